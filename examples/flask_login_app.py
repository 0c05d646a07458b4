"""A Flask application whose callers are the users that Flask-Login has signed in.

    GITHUB_TOKEN=... flask --app examples.flask_login_app run
    curl -c jar -d user=alice -d password=wonderland http://127.0.0.1:5000/sign-in
    curl -b jar http://127.0.0.1:5000/connections/github/proxy/rate_limit

The proxy is asked before Flask is, so there is no `current_user` yet, and nobody has set REMOTE_USER for `host_user`.
`signed_in` opens a request context, in which Flask-Login reads the session as it does in a view.
"""

import os
import secrets

from flask import Flask, request
from flask_login import LoginManager, UserMixin, current_user, login_required, login_user
from werkzeug.exceptions import Unauthorized
from werkzeug.security import check_password_hash, generate_password_hash

from proxy_middleware import (
    Connection,
    Credential,
    EgressPolicy,
    ProxyRequest,
    StaticCredentials,
    StaticResolver,
    WSGIProxyMiddleware,
)

app = Flask(__name__)
app.secret_key = os.environ.get("SECRET_KEY") or secrets.token_bytes(32)
login_manager = LoginManager(app)


class User(UserMixin):  # type: ignore[misc]
    """A user of the application."""

    def __init__(self, name: str, password: str) -> None:
        self.id = name
        self.password_hash = generate_password_hash(password)


USERS = {"alice": User("alice", "wonderland")}
login_manager.user_loader(USERS.get)


@app.post("/sign-in")
def sign_in() -> str:
    """Begins a session."""
    user = USERS.get(request.form["user"])
    if user is None or not check_password_hash(user.password_hash, request.form["password"]):
        raise Unauthorized
    login_user(user)
    return f"signed in as {user.id}\n"


@app.get("/me")
@login_required  # type: ignore[untyped-decorator]
def me() -> str:
    """A page for those who are signed in."""
    return f"{current_user.id}\n"


def signed_in(call: ProxyRequest) -> str | None:
    """Gives the id of the user, who may belong to a database session that ends with the context."""
    with app.request_context(call.environ):
        return current_user.get_id() if current_user.is_authenticated else None


app.wsgi_app = WSGIProxyMiddleware(  # type: ignore[method-assign]
    app.wsgi_app,
    resolver=StaticResolver([Connection("github", os.environ.get("GITHUB_API_URL", "https://api.github.com"))]),
    credentials=StaticCredentials({"github": Credential.bearer(os.environ.get("GITHUB_TOKEN", ""))}),
    authenticate=signed_in,
    egress=EgressPolicy(allow=os.environ.get("GITHUB_NETWORKS", "").split()),
)

"""A Flask application whose pages call GitHub through it, for the user who is signed in.

    GITHUB_TOKEN=... flask --app examples.flask_app run
    curl -c jar -d user=alice -d password=wonderland http://127.0.0.1:5000/sign-in
    curl -b jar http://127.0.0.1:5000/connections/github/proxy/rate_limit

The caller is whoever Flask's own session says. A script in one of the pages can call the same path with `fetch`; pages
of other sites cannot, since cross-site requests are refused (`BrowserPolicy`).
"""

import os
import secrets
from collections.abc import Mapping

from flask import Flask, request, session
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


def create_app(
    base_url: str, token: str, password_hashes: Mapping[str, str], egress: EgressPolicy | None = None
) -> Flask:
    """Makes the application.

    Args:
        base_url: Base URL of the third-party API.
        token: The token that the API wants; callers never see it.
        password_hashes: `{user name: hash}`.
        egress: The addresses that may be dialled; public ones by default.
    """
    app = Flask(__name__)
    app.secret_key = os.environ.get("SECRET_KEY") or secrets.token_bytes(32)

    @app.post("/sign-in")
    def sign_in() -> str:
        user = request.form["user"]
        if not check_password_hash(password_hashes.get(user, ""), request.form["password"]):
            raise Unauthorized
        session.clear()
        session["user"] = user
        return f"signed in as {user}\n"

    @app.get("/me")
    def me() -> str:
        return f"{session.get('user', 'nobody')}\n"

    def signed_in(call: ProxyRequest) -> str | None:
        # The middleware runs before Flask does, hence the session is opened from the environ; reading it does not touch
        # the request body.
        current = app.session_interface.open_session(app, app.request_class(call.environ))
        user = current.get("user") if current else None
        return user if user in password_hashes else None

    app.wsgi_app = WSGIProxyMiddleware(  # type: ignore[method-assign]
        app.wsgi_app,
        resolver=StaticResolver([Connection("github", base_url, methods=("GET", "HEAD"))]),
        credentials=StaticCredentials({"github": Credential.bearer(token)}),
        authenticate=signed_in,
        egress=egress or EgressPolicy(),
    )
    return app


app = create_app(
    os.environ.get("GITHUB_API_URL", "https://api.github.com"),
    os.environ.get("GITHUB_TOKEN", ""),
    {"alice": generate_password_hash("wonderland")},
    EgressPolicy(allow=os.environ.get("GITHUB_NETWORKS", "").split()),
)

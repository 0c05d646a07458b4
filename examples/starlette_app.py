"""A Starlette application whose signed-in callers call GitHub through it.

    CALLER_TOKEN=alice-token GITHUB_TOKEN=... uvicorn examples.starlette_app:app
    curl -H 'Authorization: Bearer alice-token' http://127.0.0.1:8000/me
    curl -H 'Authorization: Bearer alice-token' http://127.0.0.1:8000/connections/github/proxy/rate_limit

Who is calling is found out once, by Starlette's own AuthenticationMiddleware, for the routes and for the proxy alike.
"""

import os
from hmac import compare_digest

from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, BaseUser, SimpleUser
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from proxy_middleware import (
    ASGIProxyMiddleware,
    Connection,
    Credential,
    EgressPolicy,
    StaticCredentials,
    StaticResolver,
    host_user,
)

AUTHORIZATION = f"Bearer {os.environ.get('CALLER_TOKEN', 'alice-token')}".encode()


class Tokens(AuthenticationBackend):
    """The application's own sign-in."""

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        """Gives the user whose token came."""
        if compare_digest(conn.headers.get("Authorization", "").encode(), AUTHORIZATION):
            return AuthCredentials(["authenticated"]), SimpleUser("alice")
        return None


async def me(request: Request) -> PlainTextResponse:
    """A route of the application."""
    return PlainTextResponse(f"{request.user.display_name or 'nobody'}\n")


app = Starlette(routes=[Route("/me", me)])
app.add_middleware(
    ASGIProxyMiddleware,
    resolver=StaticResolver([Connection("github", os.environ.get("GITHUB_API_URL", "https://api.github.com"))]),
    credentials=StaticCredentials({"github": Credential.bearer(os.environ.get("GITHUB_TOKEN", ""))}),
    authenticate=host_user,
    egress=EgressPolicy(allow=os.environ.get("GITHUB_NETWORKS", "").split()),
)
# What is added last is outermost, and the proxy asks what has been found out before it: the order matters.
app.add_middleware(AuthenticationMiddleware, backend=Tokens())

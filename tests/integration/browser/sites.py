"""The sites: a host application with the proxy in it, and pages of other origins, each on a port of its own."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from proxy_middleware import (
    ASGIProxyMiddleware,
    BrowserPolicy,
    Connection,
    Credential,
    EgressPolicy,
    ProxyRequest,
    StaticCredentials,
    StaticResolver,
    nonblocking,
)
from tests.host_plugins import UPSTREAM_SECRET
from tests.servers import ASGIApp, serve_asgi

WAIT = 10.0
SESSION = "signed-in"
_PAGE = "<!doctype html><title>page</title>"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the proxy was asked by a browser, and what it answered. Absent fields are empty."""

    method: str
    site: str
    mode: str
    dest: str
    origin: str
    status: int
    names: frozenset[str]


class Journal:
    """Keeps what goes to the proxy and comes from it: the outermost middleware of a host."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._asked: list[Asked] = []
        self._changed = threading.Condition()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve the app's requests."""
        if scope["type"] != "http" or not scope["path"].startswith("/connections/"):
            await self._app(scope, receive, send)
            return

        async def noting(message: Any) -> None:
            if message["type"] == "http.response.start":
                self._note(scope, message)
            await send(message)

        await self._app(scope, receive, noting)

    def wait(self, count: int = 1) -> list[Asked]:
        """Wait until that many requests have been answered; all of them."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._asked) >= count, WAIT):
                raise TimeoutError(f"{len(self._asked)} of {count} requests came to the proxy")
            return list(self._asked)

    def forget(self) -> None:
        """Begin a new test."""
        with self._changed:
            self._asked.clear()

    def _note(self, scope: Any, start: Any) -> None:
        sent = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        site, mode, dest = (sent.get(f"sec-fetch-{part}", "") for part in ("site", "mode", "dest"))
        asked = Asked(
            method=scope["method"],
            site=site,
            mode=mode,
            dest=dest,
            origin=sent.get("origin", ""),
            status=start["status"],
            names=frozenset(name.decode() for name, _ in start["headers"]),
        )
        with self._changed:
            self._asked.append(asked)
            self._changed.notify_all()


@dataclass(frozen=True)
class Site:
    """A server; each name of loopback makes another site of it."""

    port: int

    def origin(self, name: str = "127.0.0.1") -> str:
        """The origin that pages have under this name."""
        return f"http://{name}:{self.port}"

    def url(self, path: str = "/", name: str = "127.0.0.1") -> str:
        """The URL of a path."""
        return self.origin(name) + path


@dataclass(frozen=True)
class Host(Site):
    """A host application. `/sign-in` is a page that sets the session cookie, `/whoami` says whose session it sees."""

    journal: Journal

    def proxied(self, path: str = "/x", *, name: str = "127.0.0.1", selector: str = "crm") -> str:
        """The URL by which the upstream's path is reached through the proxy."""
        return self.url(f"/connections/{selector}/proxy{path}", name)


async def _page(request: Request) -> Response:
    return HTMLResponse(_PAGE)


async def _sign_in(request: Request) -> Response:
    response = HTMLResponse(_PAGE)
    response.set_cookie("session", SESSION, httponly=True, samesite="lax")
    return response


async def _whoami(request: Request) -> Response:
    return PlainTextResponse(request.cookies.get("session", "nobody"))


async def _go(request: Request) -> Response:
    return RedirectResponse(request.query_params["to"], 307)


_ROUTES = [Route("/", _page), Route("/sign-in", _sign_in), Route("/whoami", _whoami), Route("/go", _go)]


@nonblocking
def _authenticate(request: ProxyRequest) -> object | None:
    """Lets everyone in, so that nothing but the browser rules stands between a page and the upstream."""
    return None if request.selector == "nobody" else "anyone"


def _proxy(upstream_url: str, browser: BrowserPolicy) -> Middleware:
    return Middleware(
        ASGIProxyMiddleware,
        resolver=StaticResolver([Connection("crm", upstream_url)]),
        credentials=StaticCredentials({"crm": Credential.bearer(UPSTREAM_SECRET)}),
        authenticate=_authenticate,
        egress=EgressPolicy(allow=("127.0.0.0/8",)),
        browser=browser,
    )


@contextmanager
def serve_pages() -> Iterator[Site]:
    """Serve the same pages without a proxy: another origin, or another site."""
    with serve_asgi(Starlette(routes=_ROUTES)) as address:
        yield Site(address[1])


@contextmanager
def serve_host(upstream_url: str, listed: str | None = None) -> Iterator[Host]:
    """Serve the host application; with a `listed` origin that the browser policy and the host's CORS rules allow."""
    middleware = [_proxy(upstream_url, BrowserPolicy(allowed_origins=[listed]) if listed else BrowserPolicy())]
    if listed:
        cors = Middleware(
            CORSMiddleware, allow_origins=[listed], allow_methods=["*"], allow_headers=["*"], allow_credentials=True
        )
        middleware.insert(0, cors)
    journal = Journal(Starlette(routes=_ROUTES, middleware=middleware))
    with serve_asgi(journal) as address:
        yield Host(address[1], journal)

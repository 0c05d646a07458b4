"""Both doors of a proxy around plugins under test, called as servers call them, with a FakeUpstream as every origin."""

import asyncio
import io
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Barrier
from typing import Any, Literal, NoReturn
from urllib.parse import quote, unquote

from proxy_middleware._drive import Perform
from proxy_middleware._steps import Forward
from proxy_middleware._target import parse_base
from proxy_middleware.models import EgressPolicy
from proxy_middleware.protocols import ConnectionResolver, CredentialProvider, nonblocking
from proxy_middleware.proxy import Proxy
from proxy_middleware.testing.upstream import FakeUpstream

__all__ = ["COLOURS", "WAIT", "Answer", "Colour", "Doors", "Request"]

Colour = Literal["asgi", "wsgi"]
COLOURS: tuple[Colour, ...] = ("asgi", "wsgi")
# Seconds within which a plugin has to have answered.
WAIT = 30.0
THREADS = 8


@dataclass(frozen=True, slots=True)
class Request:
    """What a caller sends, to a path behind the selector."""

    selector: str
    path: str = "/"
    method: str = "GET"
    headers: Mapping[str, str] | None = None

    @property
    def target(self) -> str:
        """The raw path, with its query."""
        return f"/connections/{quote(self.selector, safe='')}/proxy{self.path}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a door answers: status and body."""

    status: int
    body: bytes


class Doors:
    """The two doors of one proxy.

    Args:
        upstream: Gets every request, whatever the base URL of its connection.
        resolver: See `Proxy`.
        credentials: See `Proxy`.
        caller: Who calls.
    """

    def __init__(
        self, upstream: FakeUpstream, resolver: ConnectionResolver, credentials: CredentialProvider, caller: object
    ) -> None:
        @nonblocking
        def authenticate(request: object) -> object:
            return caller

        self._proxy = _Redirected(
            upstream,
            resolver=resolver,
            credentials=credentials,
            authenticate=authenticate,
            egress=EgressPolicy(allow=("127.0.0.0/8",)),
            spool_unframed="never",
        )
        self._asgi, self._wsgi = self._proxy.asgi(_host), self._proxy.wsgi(_host)

    def ask(self, colour: Colour, *requests: Request) -> list[Answer]:
        """The answers to these requests, which come all at once: in threads, or on one event loop."""
        if colour == "asgi":
            return asyncio.run(self._on_loop(requests))
        try:
            with ThreadPoolExecutor(min(THREADS, len(requests))) as pool:
                return list(pool.map(self._in_thread, requests))
        finally:
            self._proxy.close()

    def ask_on_loops(self, loops: int, requests: Sequence[Request]) -> list[Answer]:
        """The answers to these requests, on each of several event loops that run side by side."""
        barrier = Barrier(loops)

        def run(_: int) -> list[Answer]:
            barrier.wait(WAIT)
            return asyncio.run(self._on_loop(requests))

        with ThreadPoolExecutor(loops) as pool:
            return [answer for answers in pool.map(run, range(loops)) for answer in answers]

    async def _on_loop(self, requests: Sequence[Request]) -> list[Answer]:
        try:
            async with asyncio.timeout(WAIT):
                return await asyncio.gather(*(self._on_asgi(request) for request in requests))
        finally:
            await self._proxy.aclose()

    async def _on_asgi(self, request: Request) -> Answer:
        sent: list[Any] = []

        async def receive() -> NoReturn:
            await asyncio.get_running_loop().create_future()  # The caller stays.
            raise AssertionError

        async def send(message: Any) -> None:
            sent.append(message)

        await self._asgi(_scope(request), receive, send)
        return Answer(sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:]))

    def _in_thread(self, request: Request) -> Answer:
        statuses: list[str] = []

        def start_response(status: str, fields: object, exc_info: object = None) -> None:
            statuses.append(status)

        pieces: Any = self._wsgi(_environ(request), start_response)
        try:
            body = b"".join(pieces)
        finally:
            if hasattr(pieces, "close"):
                pieces.close()
        return Answer(int(statuses[0].split()[0]), body)


class _Redirected(Proxy):
    """A proxy with its own engine, that dials one address whatever the origin is called."""

    def __init__(self, upstream: FakeUpstream, **settings: Any) -> None:
        super().__init__(**settings)
        self._origin = parse_base(upstream.url).origin

    def asgi_performers(self) -> tuple[Perform, Perform]:
        here, elsewhere = super().asgi_performers()
        return self._redirect(here), self._redirect(elsewhere)

    def wsgi_performers(self) -> Perform:
        return self._redirect(super().wsgi_performers())

    def _redirect(self, perform: Perform) -> Perform:
        send: Callable[[Forward], Any] = perform[Forward]
        return {**perform, Forward: lambda forward: send(forward._replace(origin=self._origin))}


def _host(*objects: object) -> NoReturn:
    raise AssertionError("the request is the proxy's")


def _scope(request: Request) -> dict[str, Any]:
    path, _, query = request.target.partition("?")
    headers = {"host": "host.test", **(request.headers or {})}
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "http",
        "method": request.method,
        "path": unquote(path),
        "raw_path": path.encode("ascii"),
        "query_string": query.encode("ascii"),
        "root_path": "",
        "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }


def _environ(request: Request) -> dict[str, Any]:
    path, _, query = request.target.partition("?")
    fields = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in (request.headers or {}).items()}
    return {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote(path, "latin-1"),
        "QUERY_STRING": query,
        "RAW_URI": request.target,
        "SERVER_NAME": "host.test",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "host.test",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        **fields,
    }

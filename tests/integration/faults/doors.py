"""Both doors in this process, with the test as their server: an answer, and whether its caller could take it for whole.

`serve` has real servers instead, in threads of this process, for what needs many callers at a time.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from anyio.from_thread import BlockingPortal, start_blocking_portal

from proxy_middleware import Proxy
from tests import in_process
from tests.credentials.proxied import wsgi_host
from tests.servers import serve_asgi, serve_wsgi
from tests.test_wsgi_endings import environ
from tests.wire import Address, Fields

DOORS = ("asgi", "wsgi")


@dataclass(frozen=True)
class Outcome:
    """What a server was given. `whole` says whether it would end the caller's transfer properly."""

    status: int
    fields: Fields
    body: bytes
    whole: bool


Ask = Callable[..., Outcome]


class Call(in_process.Call):
    """The same, whose fields are kept."""

    @property
    def fields(self) -> Fields:
        """The response's."""
        return tuple(self.sent[0]["headers"])

    @property
    def body(self) -> bytes:
        """What came of the response's body."""
        return b"".join(message.get("body", b"") for message in self.sent)


@contextmanager
def asking(door: str, proxy: Proxy) -> Iterator[Ask]:
    """Asks through one door of a proxy, which is closed in the end; each answer is an Outcome."""
    if door == "wsgi":
        yield _asking_wsgi(proxy)
        proxy.close()
        return
    with start_blocking_portal() as portal:
        yield _asking_asgi(proxy, portal)
        portal.call(proxy.aclose)


def _asking_asgi(proxy: Proxy, portal: BlockingPortal) -> Ask:
    door = proxy.asgi(in_process.host)

    def ask(method: str = "GET", *pieces: bytes) -> Outcome:
        call = Call(method, pieces)
        with suppress(ConnectionError):  # The server breaks the transfer.
            portal.call(call.at, door)
        (status,) = call.statuses
        return Outcome(status, call.fields, call.body, call.ended and _as_long_as_said(method, call.fields, call.body))

    return ask


def _asking_wsgi(proxy: Proxy) -> Ask:
    door = proxy.wsgi(wsgi_host)

    def ask(method: str = "GET", *pieces: bytes) -> Outcome:
        begun: list[tuple[int, Fields]] = []

        def start_response(status: str, fields: list[tuple[str, str]], exc_info: Any = None) -> None:
            begun.append((int(status[:3]), tuple((name.encode(), value.encode()) for name, value in fields)))

        sent = b"".join(pieces)
        given = environ(method, **{"CONTENT_LENGTH": str(len(sent)), "wsgi.input": BytesIO(sent)} if pieces else {})
        result, body, ended = door(given, start_response), b"", False
        with suppress(ConnectionError):
            for piece in result:
                body += piece
            ended = True
        getattr(result, "close", lambda: None)()
        ((status, fields),) = begun
        return Outcome(status, fields, body, ended and _as_long_as_said(method, fields, body))

    return ask


def _as_long_as_said(method: str, fields: Fields, body: bytes) -> bool:
    """Whether a body is no other than its Content-Length: servers break a transfer that is."""
    said = [int(value) for name, value in fields if name.lower() == b"content-length"]
    return method == "HEAD" or not said or said == [len(body)]


def serve(door: str, proxy: Proxy) -> AbstractContextManager[Address]:
    """Serves a proxy on a real server in a thread; under WSGI whoever made it has to close it."""
    return serve_asgi(proxy.asgi(in_process.host)) if door == "asgi" else serve_wsgi(proxy.wsgi(wsgi_host))

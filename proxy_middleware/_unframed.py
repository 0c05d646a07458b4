"""Responses without a length, on servers that cannot break a transfer off.

Where such a response broke off on its way from the upstream, the caller could not tell it from a whole one. So it is
spooled first, and what is whole is sent with a Content-Length.
"""

from collections.abc import Iterator
from typing import Any, Literal

from proxy_middleware._fields import Field
from proxy_middleware._spool import Spool
from proxy_middleware._steps import Relay
from proxy_middleware.models import ProxyRequest, Replay, first_value

Mode = Literal["auto", "always", "never"]

LIMIT = 8 * 1024 * 1024


class Unframed:
    """One spooled response; `full` once it is longer than may be spooled, so that it is streamed from there on."""

    def __init__(self) -> None:
        self._spool = Spool(Replay(memory=256 * 1024, disk=LIMIT - 256 * 1024))
        self._rest = b""
        self.full = False

    def add(self, data: bytes) -> None:
        """Takes the next piece."""
        self._spool.add(data)
        if self._spool.overflown:
            self._rest, self.full = data, True

    def length(self) -> Field:
        """The Content-Length of what has been spooled."""
        return (b"content-length", b"%d" % self._spool.size)

    def __iter__(self) -> Iterator[bytes]:
        position = 0
        while data := self._spool.read(position):
            position += len(data)
            yield data
        if self._rest:
            yield self._rest

    def close(self) -> None:
        """Frees the memory and the file."""
        self._spool.close()


class SpoolPolicy:
    """Decides which responses are spooled."""

    def __init__(self, mode: Mode) -> None:
        if mode not in ("auto", "always", "never"):
            raise ValueError(f"spool_unframed is 'auto', 'always' or 'never', not {mode!r}")
        self._mode = mode

    def asgi(self, relay: Relay, request: ProxyRequest, send: Any) -> Unframed | None:
        """A spool, if this response needs one on this ASGI server."""
        if not self._applies(relay, request):
            return None
        breaks = request.scope["http_version"] not in ("1.0", "1") and not _cannot_break(send)
        return None if breaks and self._mode == "auto" else Unframed()

    def wsgi(self, relay: Relay, request: ProxyRequest) -> Unframed | None:
        """A spool, if this response needs one on this WSGI server."""
        if not self._applies(relay, request):
            return None
        environ = request.environ
        software = environ.get("SERVER_SOFTWARE", "")
        breaks = (
            environ.get("SERVER_PROTOCOL") != "HTTP/1.0"
            and "uwsgi.version" not in environ
            and not software.lower().startswith(("granian", "wsgiserver"))
            and not is_granian(environ)
        )
        return None if breaks and self._mode == "auto" else Unframed()

    def _applies(self, relay: Relay, request: ProxyRequest) -> bool:
        """Whether the response has a body without a length that is no endless one."""
        if relay.has_length or self._mode == "never" or request.method == "HEAD":
            return False
        if relay.response.status in (204, 304):
            return False
        return not (first_value(relay.fields, "content-type") or "").lower().startswith("text/event-stream")


def _cannot_break(send: Any) -> bool:
    """Whether an exception out of the app would end in a clean response, or in none, seen from this `send`."""
    if getattr(send, "__qualname__", "").startswith("BaseHTTPMiddleware."):
        return True
    owner = getattr(getattr(send, "func", None), "__self__", None)
    return type(owner).__module__.startswith("daphne.")


def is_granian(environ: Any) -> bool:
    """Whether the WSGI server is Granian, which shows neither a cut body nor a broken response to anybody."""
    return type(environ.get("wsgi.errors")).__module__.startswith("granian") or type(
        environ.get("wsgi.input")
    ).__module__.partition(".")[0] in ("granian", "_granian")

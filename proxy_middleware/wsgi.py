"""The WSGI door: from the server's interface to the core, and from the engine's response to the server."""

import errno
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Unpack

from proxy_middleware._drive import drive
from proxy_middleware._exchange import exchange
from proxy_middleware._fields import Field, clean_values
from proxy_middleware._problem import problem
from proxy_middleware._steps import Relay
from proxy_middleware._target import Match
from proxy_middleware._trail import Trail, as_one
from proxy_middleware._unframed import Unframed
from proxy_middleware.errors import (
    CallerLeft,
    ConnectionTerminated,
    InvalidRequest,
    ProxyError,
    ResponseTruncated,
)
from proxy_middleware.models import ProxyRequest
from proxy_middleware.proxy import Proxy, Settings
from proxy_middleware.wsgi_body import Environ, RequestBody, check_framing, read_fields

__all__ = ["WSGIProxyMiddleware"]

StartResponse = Callable[..., Any]
WSGIApp = Callable[[Environ, StartResponse], Iterable[bytes]]


class WSGIProxyMiddleware:
    """Wraps a WSGI application: answers `{prefix}/{selector}/proxy/{target}`, leaves everything else to it.

    Args:
        app: The host application.
        settings: What `Proxy` takes; `resolver`, `credentials` and `authenticate` are required.

    Attributes:
        app: The host application.
        proxy: The engine, which can be closed.
    """

    def __init__(self, app: WSGIApp, **settings: Unpack[Settings]) -> None:
        self._open(app, Proxy(**settings))

    @classmethod
    def over(cls, app: WSGIApp, proxy: Proxy) -> "WSGIProxyMiddleware":
        """A door of an existing proxy, which shares its pool."""
        door = cls.__new__(cls)
        door._open(app, proxy)
        return door

    def _open(self, app: WSGIApp, proxy: Proxy) -> None:
        self.app = app
        self.proxy = proxy
        self._match = proxy.matcher.match_wsgi
        self._rules = proxy.wsgi_rules
        self._observe = as_one(proxy.observers)
        self._perform = proxy.wsgi_performers()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answers what is the proxy's, and passes on everything else with the very same objects."""
        try:
            match = self._match(environ)
        except ProxyError as error:
            if self._observe is not None:
                trail = Trail(self._observe, environ["REQUEST_METHOD"], "")
                trail.error = error
                trail.finish(0)
            return _answer(error, start_response)
        if match is None:
            return self.app(environ, start_response)
        rules = self._rules
        body = RequestBody(environ, rules.limits.request_body, rules.replay)
        try:
            return self._respond(match, environ, body, start_response)
        except ProxyError as error:
            return _refuse(error, body, start_response)
        except CallerLeft:
            cut = InvalidRequest("The body ended before its announced length")
            return _refuse(cut, body, start_response)
        except BaseException as error:
            body.failed(error)
            body.close()
            raise

    def _respond(
        self, match: Match, environ: Environ, body: RequestBody, start_response: StartResponse
    ) -> Iterable[bytes]:
        if self._observe is not None:
            body.trail = Trail(self._observe, environ["REQUEST_METHOD"], match.selector)
        request = ProxyRequest(
            environ["REQUEST_METHOD"],
            match.selector,
            match.target + _query(environ),
            read_fields(environ),
            _client(environ),
            None,
            None,
            environ,
        )
        check_framing(environ)
        version = environ.get("SERVER_PROTOCOL", "HTTP/1.1").rpartition("/")[2]
        steps = exchange(request, version, body, self._rules)
        relay = drive(steps, self._perform, body.trail)
        try:
            return self._begin(relay, request, body, start_response)
        except BaseException:
            relay.response.abort()
            raise

    def _begin(
        self, relay: Relay, request: ProxyRequest, body: RequestBody, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Starts the response once its first bytes are there, so that a break before them is a clean 502."""
        response, fields, _ = relay
        unframed = self.proxy.unframed.wsgi(relay, request)
        try:
            if unframed is not None:
                fields = _spool(response, unframed, fields)
                pieces = iter(unframed)
            else:
                pieces = iter([response.read()])
        except ResponseTruncated as error:
            raise ConnectionTerminated(str(error)) from None
        reason = response.reason if clean_values([(b"", response.reason)]) else b""
        start_response(
            f"{response.status} {reason.decode('latin-1')}",
            [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields],
        )
        return _Pieces(pieces, response, body, unframed)


def _spool(response: Any, unframed: Unframed, fields: list[Field]) -> list[Field]:
    try:
        while not unframed.full and not response.at_end:
            unframed.add(response.read())
    except BaseException:
        unframed.close()
        raise
    return fields if unframed.full else [*fields, unframed.length()]


class _Pieces:
    """The response body: what is at hand first, then the rest as it comes.

    A body that breaks off raises a ConnectionError out of `__next__`; werkzeug would end any other cleanly.
    """

    def __init__(self, at_hand: Iterator[bytes], response: Any, body: RequestBody, unframed: Unframed | None) -> None:
        self._at_hand = at_hand
        self._response = response
        self._body = body
        self._unframed = unframed

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        for data in self._at_hand:
            if data:
                return data
        response = self._response
        try:
            while not response.at_end:
                data = response.read()
                if data:
                    return bytes(data)
        except CallerLeft:
            # What a server makes of it is what it makes of its own failing send.
            raise BrokenPipeError(errno.EPIPE, "The caller has left") from None
        except (ProxyError, ResponseTruncated) as error:
            truncated = ResponseTruncated(str(error))
            self._body.failed(truncated)
            raise truncated from None
        self._body.close()  # Middleware that is a generator passes no `close` on.
        raise StopIteration

    def close(self) -> None:
        """The server is done, or its caller has left."""
        if not self._response.at_end:
            self._body.failed(CallerLeft())
        self._response.abort()
        self._body.close()
        if self._unframed is not None:
            self._unframed.close()


def _query(environ: Environ) -> bytes:
    """The query with its question mark, which may stand alone where the server shows the raw URI."""
    query: str = environ.get("QUERY_STRING", "")
    if query or (environ.get("RAW_URI") or environ.get("REQUEST_URI") or "").partition("#")[0].endswith("?"):
        return b"?" + query.encode("latin-1", "backslashreplace")
    return b""


def _client(environ: Environ) -> tuple[str, int] | None:
    address, port = environ.get("REMOTE_ADDR"), environ.get("REMOTE_PORT")
    return (address, int(port or 0)) if address else None


def _refuse(error: ProxyError, body: RequestBody, start_response: StartResponse) -> list[bytes]:
    body.failed(error)
    body.close()
    return _answer(error, start_response)


def _answer(error: ProxyError, start_response: StartResponse) -> list[bytes]:
    fields, content = problem(error)
    start_response(
        f"{error.status} {error.title}", [(name.decode("ascii"), value.decode("ascii")) for name, value in fields]
    )
    return [content]

"""Any httpx or httpx2 transport as upstream, and the transport that serves under trio.

Transports only, never a `Client`: a client keeps cookies across callers, obeys the environment and adds fields. Which
addresses a transport dials, how many connections it holds and whether it tries again is up to whoever made it.

How time-outs differ from the built-in engine: a transport knows one for each read, not for the whole head. The
asynchronous upstream adds the deadline `Timeouts.head` itself; the blocking one cannot, and there an upstream that
sends its head (1xx included) byte by byte has `Timeouts.head` for each read. The TLS handshake has `Timeouts.connect`
for itself, and a response that comes before the request's end is read only after it.
"""

import math
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from itertools import count
from typing import Any

import anyio
from anyio.lowlevel import RunVar

from proxy_middleware._loops import read_apart
from proxy_middleware._steps import Forward
from proxy_middleware.errors import HeadTimeout
from proxy_middleware.models import EgressPolicy, Limits
from proxy_middleware.upstream.dial import connect_error, default_ssl_context
from proxy_middleware.upstream.egress import AddrInfo, dialable
from proxy_middleware.upstream.httpx_library import (
    bound_method,
    library_of,
    mixed,
    own_library,
    spell,
)
from proxy_middleware.upstream.httpx_response import AsyncResponse, Response, before_head

__all__ = ["AsyncTransportUpstream", "TransportUpstream", "default_async_transport"]


class AsyncTransportUpstream:
    """Sends requests through an asynchronous transport, on asyncio or trio.

    Args:
        transport: Of httpx or httpx2; it stays open.

    Raises:
        TypeError: It is no asynchronous transport.
    """

    def __init__(self, transport: Any) -> None:
        self._handle = _method_of(transport, "handle_async_request", "the ASGI door", "AsyncHTTPTransport")
        self._requests = _Requests(transport, _AsyncContent, "AsyncByteStream")

    async def send(self, forward: Forward) -> AsyncResponse:
        """Sends a request; returns when its response's head has come.

        Raises:
            ProxyError: There is no response.
        """
        body = _prepared_body(forward)
        # No connection is taken while the caller is still silent.
        first = await body.read() if body is not None else b""
        scope = anyio.CancelScope(deadline=_latest_head(forward))

        def start_clock() -> None:
            if forward.timeouts.head is not None:
                scope.deadline = anyio.current_time() + forward.timeouts.head

        content = self._requests.content(body, first, start_clock)
        failure: Exception = HeadTimeout()
        answer = None
        try:
            request = self._requests.request(forward, content)
            with scope:
                answer = await self._handle(request)
        except Exception as error:
            failure = content.failure or before_head(error)
        if answer is None:
            # Raised out here, so that no exception with the request's fields in its frames goes along as context.
            raise failure from None
        response = AsyncResponse(answer, forward, request.extensions["timeout"])
        try:
            await response.begin()
        except BaseException:
            response.abort()
            raise
        return response

    async def aclose(self) -> None:
        """Leaves the transport open, since it was not made here."""


class TransportUpstream:
    """Sends requests through a blocking transport.

    Args:
        transport: Of httpx or httpx2; it stays open.

    Raises:
        TypeError: It is no blocking transport.
    """

    def __init__(self, transport: Any) -> None:
        self._handle = _method_of(transport, "handle_request", "the WSGI door", "HTTPTransport")
        self._requests = _Requests(transport, _Content, "SyncByteStream")

    def send(self, forward: Forward) -> Response:
        """Sends a request; returns when its response's head has come.

        Raises:
            ProxyError: There is no response.
        """
        body = _prepared_body(forward)
        content = self._requests.content(body, body.read() if body is not None else b"")
        failure: Exception | None = None
        try:
            request = self._requests.request(forward, content)
            answer = self._handle(request)
        except Exception as error:
            failure = content.failure or before_head(error)
        if failure is not None:
            raise failure from None
        response = Response(answer, forward, request.extensions["timeout"])
        response.begin()
        return response

    def close(self) -> None:
        """Leaves the transport open, since it was not made here."""


def _method_of(transport: Any, name: str, door: str, example: str) -> Callable[[Any], Any]:
    method = bound_method(transport, name)
    if method is None:
        what = transport if isinstance(transport, type) else type(transport)
        raise TypeError(
            f"As upstream {door} needs a transport of httpx or httpx2 with the method `{name}`, such as "
            f"`{example}()`; this is {'the class' if what is transport else 'a'} {what.__module__}.{what.__qualname__}"
        )
    return method


def _prepared_body(forward: Forward) -> Any:
    body = forward.body
    if body is not None and forward.again:
        body.rewind()
    elif body is not None and forward.keep:
        body.keep()
    return body


def _latest_head(forward: Forward) -> float:
    """When the head of a response to a bodiless request is late, even if the transport never asks for the body."""
    timeouts = forward.timeouts
    if forward.body is not None or timeouts.head is None or timeouts.pool is None or timeouts.connect is None:
        return math.inf
    return anyio.current_time() + timeouts.pool + timeouts.connect + timeouts.head


# The request.


class _AsyncContent:
    """A request body as a transport reads it. No generator: a transport that fails would leave one suspended.

    Attributes:
        failure: What reading it from the caller has raised. It goes to the caller's door as it is.
    """

    def __init__(self, body: Any, first: bytes, ended: Callable[[], None]) -> None:
        self.failure: Exception | None = None
        self._body = body
        self._first = first
        self._ended = ended
        self._begun = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        _refuse_again(self._begun)
        return self

    async def __anext__(self) -> bytes:
        self._begun = True
        data, self._first = self._first, b""
        while not data and self._body is not None and not self._body.at_end:
            try:
                data = await read_apart(self._body)
            except Exception as error:
                self.failure = error
                raise
        if not data:
            self._ended()
            raise StopAsyncIteration
        return data


class _Content:
    """The same, blocking."""

    def __init__(self, body: Any, first: bytes) -> None:
        self.failure: Exception | None = None
        self._body = body
        self._first = first
        self._begun = False

    def __iter__(self) -> Iterator[bytes]:
        _refuse_again(self._begun)
        return self

    def __next__(self) -> bytes:
        self._begun = True
        data, self._first = self._first, b""
        while not data and self._body is not None and not self._body.at_end:
            try:
                data = self._body.read()
            except Exception as error:
                self.failure = error
                raise
        if not data:
            raise StopIteration
        return data


def _refuse_again(begun: bool) -> None:
    if begun:
        # What is left of a chunked body would look like the whole.
        raise RuntimeError("The transport read the request's body a second time")


class _Requests:
    """Makes requests of the library that a transport belongs to, which checks their parts with isinstance."""

    def __init__(self, transport: Any, content: type, stream: str) -> None:
        self._library = library_of(transport)
        self.content = mixed(content, self._library, stream)

    def request(self, forward: Forward, content: Any) -> Any:
        """The request; nothing is added to its fields."""
        origin, make = str(forward.origin), self._library.httpx.Request
        request = make("", origin, headers=forward.fields, stream=content, extensions=_extensions(forward))
        return spell(self._library, request, forward.method.decode("ascii"), origin, forward.target)


def _extensions(forward: Forward) -> dict[str, Any]:
    timeouts = forward.timeouts
    # "read" is for the head; a transport looks again when it begins with the body: see `httpx_response`.
    timeout = {"connect": timeouts.connect, "read": timeouts.head, "write": timeouts.idle, "pool": timeouts.pool}
    return {"timeout": timeout}


# The transport that serves under trio.


# anyio before 4.12 tells variables apart by their names.
_serials = count()


class PerLoopUpstream:
    """Sends requests from event loops that are not asyncio's, through a transport for each of them."""

    def __init__(self, limits: Limits, egress: EgressPolicy, ssl_context: ssl.SSLContext | None) -> None:
        self._settings = limits, egress, ssl_context
        self._own: RunVar[tuple[Any, AsyncTransportUpstream] | None] = RunVar(
            f"proxy_middleware {next(_serials)}", None
        )

    async def send(self, forward: Forward) -> AsyncResponse:
        """Sends a request; returns, and raises, what `AsyncTransportUpstream.send` does."""
        own = self._own.get()
        if own is None:
            try:
                transport = default_async_transport(*self._settings)
            except OSError as error:  # The file of the authorities cannot be read now.
                raise connect_error(error) from None
            own = transport, AsyncTransportUpstream(transport)
            self._own.set(own)
        return await own[1].send(forward)

    async def aclose(self) -> None:
        """Closes the running event loop's transport."""
        own = self._own.get()
        self._own.set(None)
        if own is not None:
            await own[0].aclose()


def default_async_transport(limits: Limits, egress: EgressPolicy, ssl_context: ssl.SSLContext | None) -> Any:
    """A transport that dials only what the egress policy allows, for event loops that the built-in engine cannot use.

    Speaks HTTP/1.1, one request per connection; knows neither `Limits.connections_per_origin` nor
    `Limits.response_head` (its own is 100 KiB).

    Args:
        limits: `connections` holds.
        egress: Which addresses may be dialled.
        ssl_context: None verifies against the system's authorities.
    """
    context = ssl_context or default_ssl_context()
    httpx, httpcore = own_library()
    transport = httpx.AsyncHTTPTransport(verify=context, trust_env=False)
    # httpx takes no network backend; the pool it has made is still empty.
    transport._pool = httpcore.AsyncConnectionPool(
        ssl_context=context,
        max_connections=limits.connections,
        # httpcore reuses a connection on which bytes came unasked, and takes them for the next answer.
        max_keepalive_connections=0,
        network_backend=_CheckedBackend(egress, httpcore),
    )
    return transport


class _CheckedBackend:
    """Dials the addresses that it has checked itself. TLS goes by the name all the same."""

    def __init__(self, egress: EgressPolicy, httpcore: Any) -> None:
        self._egress = egress
        self._httpcore = httpcore
        self._dialler = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> Any:
        try:
            with anyio.fail_after(timeout):
                found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                # The policy judges the name, too.
                named = [(family, kind, protocol, host, address) for family, kind, protocol, _, address in found]
                infos = dialable(self._egress, named)
                # No address has more than its share of the time.
                share = None if timeout is None else timeout / len(infos)
                return await self._dial(infos, (share, local_address, socket_options))
        except TimeoutError:
            raise self._httpcore.ConnectTimeout from None

    async def _dial(self, infos: list[AddrInfo], options: tuple[Any, ...]) -> Any:
        failure: Exception = self._httpcore.ConnectError()
        for info in infos:
            address, port = info[4][:2]
            try:
                return await self._dialler.connect_tcp(address, port, *options)
            except (self._httpcore.ConnectError, self._httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

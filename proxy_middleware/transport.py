"""The transport: the proxy without a server, for SDKs that are built on httpx or httpx2.

The same core, engines and plugins as behind the doors; what the proxy itself answers comes as the same response.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from proxy_middleware import asgi_body, wsgi_body
from proxy_middleware._drive import Perform, adrive, drive
from proxy_middleware._exchange import Rules, exchange
from proxy_middleware._loops import asyncio_loop
from proxy_middleware._problem import problem
from proxy_middleware._steps import Authenticate, Forward, Relay, Steps
from proxy_middleware._target import checked_selector
from proxy_middleware._trail import Trail, as_one
from proxy_middleware.errors import CallerLeft, InvalidRequest, InvalidTarget, ProxyError
from proxy_middleware.models import ProxyRequest, Timeouts
from proxy_middleware.transport_body import AsyncSource, AsyncStream, Body, Source, Stream
from proxy_middleware.upstream.httpx_library import Library, library_of, mixed

if TYPE_CHECKING:
    from proxy_middleware.proxy import Proxy

__all__ = ["ProxyTransport"]


class ProxyTransport:
    """A transport of httpx and of httpx2, blocking and asynchronous in one, whose requests all go to one connection.

    Where a request goes is told by its URL. The origin of the connection's base URL, or one of its `allowed_origins`,
    is called as it is, and any other is a 403. A host below `.invalid`, which no name look-up ever finds (RFC 6761
    section 6.4), stands for the connection: the path is appended to its base URL. A client that follows redirects
    calls the connection's own origin instead, since a redirect's path is the upstream's.

    Time-outs of the client hold beside the proxy's own, whichever is shorter. The proxy's answers are responses, as
    they are over the wire: `application/problem+json`, with a `Proxy-Status` field. Where a response breaks off after
    its head, its stream raises `RemoteProtocolError` or `ReadTimeout` of the client's library.

    Args:
        proxy: Whose pools, cache and plugins are used. Closing the transport leaves them open.
        selector: Names the connection.
        caller: Becomes `request.caller`, unasked; None answers 401, as ever. Resolvers and observers see neither scope
            nor environ.

    Raises:
        ValueError: The selector is malformed.
    """

    def __init__(self, proxy: "Proxy", selector: str, caller: object) -> None:
        self._proxy = proxy
        self._selector = checked_selector(selector)
        self._caller = caller
        self._observe = as_one(proxy.observers)
        self._async_rules = _unguarded(proxy.asgi_rules)
        self._rules = _unguarded(proxy.wsgi_rules)
        self._on_loops: tuple[Perform, Perform] | None = None
        self._in_thread: Perform | None = None

    def handle_request(self, request: Any) -> Any:
        """Sends a request, and returns when the response's head has come."""
        library, rules, source = library_of(request), self._rules, Source(request.stream, _length(request))
        environ = {"wsgi.input": source, "wsgi.input_terminated": True}
        body = wsgi_body.RequestBody(environ, rules.limits.request_body, rules.replay)
        if self._in_thread is None:
            self._in_thread = {**self._proxy.wsgi_performers(), Authenticate: _given}
        try:
            relay = drive(self._steps(request, body, rules), _within(request, self._in_thread), body.trail)
        except BaseException as error:
            return _instead(error, source.failure, body, library)
        _limit(relay, request)
        stream = mixed(Stream, library, "SyncByteStream")
        return _response(library, relay, stream(relay.response, body, source, library, request))

    async def handle_async_request(self, request: Any) -> Any:
        """The same, on asyncio or trio."""
        library, rules = library_of(request), self._async_rules
        whole = isinstance(request.stream, library.httpx.ByteStream)
        source = AsyncSource(request.stream, _length(request), whole=whole)
        body = asgi_body.RequestBody(source.receive, rules.limits.request_body, rules.replay)
        body.loop = asyncio_loop()
        try:
            perform = _within(request, self._performers(body.loop))
            relay = await adrive(self._steps(request, body, rules), perform, body.trail)
        except BaseException as error:
            try:
                return _instead(error, source.failure, body, library)
            finally:
                await source.aclose()
        _limit(relay, request)
        stream = mixed(AsyncStream, library, "AsyncByteStream")
        return _response(library, relay, stream(relay.response, body, source, library, request))

    def _performers(self, loop: object) -> Perform:
        if self._on_loops is None:
            on_asyncio, elsewhere = self._proxy.asgi_performers()
            self._on_loops = {**on_asyncio, Authenticate: _given}, {**elsewhere, Authenticate: _given}
        return self._on_loops[loop is None]

    def _steps(self, request: Any, body: Body, rules: Rules) -> Steps:
        if self._observe is not None:
            body.trail = Trail(self._observe, request.method, self._selector)
        fields = [(name.lower(), value) for name, value in request.headers.raw]
        made = ProxyRequest(request.method, self._selector, _target(request), fields, None, self._caller)
        # As in HTTP/2, where the fields need not say whether there is a body.
        return exchange(made, "2", body, rules)

    def close(self) -> None:
        """Nothing: the pools are the proxy's."""

    async def aclose(self) -> None:
        """Nothing: the pools are the proxy's."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass


def _unguarded(rules: Rules) -> Rules:
    """The same rules for what is no browser, and no server that fails on a status."""
    return replace(rules, browser=replace(rules.browser, guard=False), max_status=999)


def _given(request: ProxyRequest) -> object:
    return request.caller


def _target(request: Any) -> bytes:
    url = request.url
    target: bytes = request.extensions.get("target", url.raw_path)
    if url.scheme not in ("http", "https") or not target.startswith(b"/"):
        raise InvalidTarget
    if url.host.endswith(".invalid"):
        return target
    return b"/%b://%b%b" % (url.raw_scheme, url.netloc, target)


def _length(request: Any) -> int | None:
    length: str = request.headers.get("content-length", "")
    return int(length) if length.isdecimal() and len(length) <= 18 else None


def _within(request: Any, perform: Perform) -> Perform:
    """The performers, who send with the client's time-outs."""
    own = request.extensions.get("timeout") or {}
    if all(seconds is None for seconds in own.values()):
        return perform
    send = perform[Forward]
    return {**perform, Forward: lambda step: send(step._replace(timeouts=_shorter(step.timeouts, own)))}


def _shorter(timeouts: Timeouts, own: Mapping[str, float | None]) -> Timeouts:
    def least(seconds: float | None, name: str) -> float | None:
        # None of ours can be 0, at which httpx gives up at once.
        given = [max(limit, 0.001) for limit in (seconds, own.get(name)) if limit is not None]
        return min(given, default=None)

    return Timeouts(
        pool=least(timeouts.pool, "pool"),
        connect=least(timeouts.connect, "connect"),
        head=least(timeouts.head, "read"),
        idle=least(timeouts.idle, "read"),
    )


def _limit(relay: Relay, request: Any) -> None:
    """The client's own time-out holds for event streams, too, for which the proxy has none."""
    seconds = (request.extensions.get("timeout") or {}).get("read")
    if seconds is not None:
        relay.response.limit(max(seconds, 0.001))


def _response(library: Library, relay: Relay, stream: Any) -> Any:
    response, fields, _ = relay
    return library.httpx.Response(
        response.status, headers=fields, stream=stream, extensions={"reason_phrase": response.reason}
    )


def _instead(error: BaseException, failure: BaseException | None, body: Body, library: Library) -> Any:
    """What the proxy answers; raises what is no answer, such as the failure of the client's own body."""
    if failure is None and isinstance(error, CallerLeft):
        error = InvalidRequest("The body has not the length that it announces")
    body.failed(error)
    body.close()
    if failure is not None and isinstance(error, Exception):  # Else it is a cancellation.
        raise failure from None
    if not isinstance(error, ProxyError):
        raise error
    fields, content = problem(error)
    return library.httpx.Response(error.status, headers=fields, stream=library.httpx.ByteStream(content))

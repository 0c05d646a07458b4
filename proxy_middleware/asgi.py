"""The ASGI door: from the server's interface to the core, and from the engine's response to the server."""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from time import monotonic
from typing import Any, Unpack

import anyio

from proxy_middleware._drive import Perform, adrive
from proxy_middleware._exchange import exchange
from proxy_middleware._loops import asyncio_loop
from proxy_middleware._problem import problem
from proxy_middleware._steps import Relay
from proxy_middleware._target import Match
from proxy_middleware._trail import Trail, as_one
from proxy_middleware._unframed import Unframed
from proxy_middleware.asgi_body import Receive, RequestBody
from proxy_middleware.errors import CallerLeft, ConnectionTerminated, ProxyError, ResponseTruncated
from proxy_middleware.models import ProxyRequest, Replay
from proxy_middleware.proxy import Proxy, Settings

__all__ = ["ASGIProxyMiddleware"]

_logger = logging.getLogger("proxy_middleware")

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
# Whatever types a framework has for them.
ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]

# Seconds after which a request that is still under way is worth a task that notices the caller's leaving.
PATROL = 0.2


class ASGIProxyMiddleware:
    """Wraps an ASGI application: answers `{prefix}/{selector}/proxy/{target}`, leaves everything else to it.

    Websockets are always the application's. Install it outermost.

    Args:
        app: The host application.
        settings: What `Proxy` takes; `resolver`, `credentials` and `authenticate` are required.

    Attributes:
        app: The host application.
        proxy: The engine, which can be closed.
    """

    def __init__(self, app: ASGIApp, **settings: Unpack[Settings]) -> None:
        self._open(app, Proxy(**settings))

    @classmethod
    def over(cls, app: ASGIApp, proxy: Proxy) -> "ASGIProxyMiddleware":
        """A door of an existing proxy, which shares its pool."""
        door = cls.__new__(cls)
        door._open(app, proxy)
        return door

    def _open(self, app: ASGIApp, proxy: Proxy) -> None:
        self.app = app
        self.proxy = proxy
        self._match = proxy.matcher.match_asgi
        self._rules = proxy.asgi_rules
        self._observe = as_one(proxy.observers)
        self._perform, self._perform_elsewhere = proxy.asgi_performers()
        self._thread = threading.local()  # Has the patrol: to ask for the running loop is a system call up to 3.11.

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers what is the proxy's, and passes on everything else with the very same objects."""
        if scope["type"] == "http":
            try:
                match = self._match(scope)
            except ProxyError as error:
                if self._observe is not None:
                    trail = Trail(self._observe, scope["method"], "")
                    trail.error = error
                    trail.finish(0)
                await _answer(send, error)
                return
            if match is not None:
                await self._respond(match, scope, receive, send)
                return
        elif scope["type"] == "lifespan":
            await _Lifespan(self.app, self.proxy).run(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _respond(self, match: Match, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        selector, target = match
        query, fields = scope["query_string"], scope["headers"]
        if type(fields) is not list or (fields and type(fields[0]) is not tuple):
            fields = [(name, value) for name, value in fields]
        request = ProxyRequest(
            scope["method"],
            selector,
            target + b"?" + query if query else target,
            fields,
            scope.get("client"),
            None,
            scope,
        )
        rules = self._rules
        patrol: _Patrol | None = getattr(self._thread, "patrol", None)
        task = None if patrol is None else asyncio.current_task(patrol.loop)
        if patrol is None or task is None:
            patrol, task = self._enter_loop()
        if patrol is None or task is None:
            body = RequestBody(receive, rules.limits.request_body, rules.replay)
            return self._respond_elsewhere(request, body, send)
        watched = _WatchedBody(receive, rules.limits.request_body, rules.replay, task, patrol)
        return self._serve(self._perform, request, watched, send)

    def _enter_loop(self) -> "tuple[_Patrol, asyncio.Task[Any] | None] | tuple[None, None]":
        """The patrol of the running event loop, and the running task; None where it is not asyncio's."""
        loop = asyncio_loop()
        if loop is None:
            return None, None
        patrol = self._thread.patrol = _Patrol(loop, self._rules.timeouts.idle)
        return patrol, asyncio.current_task(loop)

    async def _respond_elsewhere(self, request: ProxyRequest, body: RequestBody, send: Send) -> None:
        """Under trio a task group stands around each request."""
        failure: Exception | None = None
        async with anyio.create_task_group() as group:

            async def watch() -> None:
                while not body.ended:  # noqa: ASYNC110 -- the body is read without an event to wait for
                    await anyio.sleep(PATROL)
                if await body.wait_left() and not body.answered:
                    group.cancel_scope.cancel()

            group.start_soon(watch)
            try:
                await self._serve(self._perform_elsewhere, request, body, send)
            except Exception as error:
                failure = error
            group.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _serve(self, perform: Perform, request: ProxyRequest, body: RequestBody, send: Send) -> None:
        try:
            try:
                steps = exchange(request, request.scope["http_version"], body, self._rules)
                if self._observe is not None:
                    body.trail = Trail(self._observe, request.method, request.selector)
                relay = await adrive(steps, perform, body.trail)
                response, fields, has_length = relay
                try:
                    unframed = None if has_length else self.proxy.unframed.asgi(relay, request, send)
                    if unframed is not None:
                        await _serve_spooled(relay, unframed, body, send)
                    else:
                        await send({"type": "http.response.start", "status": response.status, "headers": fields})
                        if response.complete:
                            body.answered = True
                            await send({"type": "http.response.body", "body": response.take(), "more_body": False})
                        else:
                            await _stream(send, response, body)
                except BaseException:
                    response.abort()
                    raise
            except ProxyError as error:
                body.answered = True
                body.failed(error)
                await _answer(send, error)
            except CallerLeft as error:
                body.failed(error)  # Nobody is left to answer.
        except BaseException as error:
            body.failed(error)
            if not isinstance(error, asyncio.CancelledError) or not body.cancelled():
                raise
        finally:
            body.close()


async def _serve_spooled(relay: Relay, unframed: Unframed, body: RequestBody, send: Send) -> None:
    """Sends a response of unknown length only once it is known to be whole, and how long it is."""
    response = relay.response
    try:
        try:
            while not unframed.full and not response.at_end:
                unframed.add(await response.read())
        except ResponseTruncated as error:
            raise ConnectionTerminated(str(error)) from None
        fields = relay.fields if unframed.full else [*relay.fields, unframed.length()]
        await send({"type": "http.response.start", "status": response.status, "headers": fields})
        for data in unframed:
            await send({"type": "http.response.body", "body": data, "more_body": True})
        await _stream(send, response, body)
    finally:
        unframed.close()


async def _stream(send: Send, response: Any, body: RequestBody) -> None:
    """Sends the body as it comes.

    Raises:
        ResponseTruncated: It broke off; the server must not end the transfer properly.
    """
    if not response.ready:
        # Granian holds the head back until something of the body comes.
        await send({"type": "http.response.body", "body": b"", "more_body": True})
    try:
        while True:
            data = await response.read()
            if response.at_end:
                body.answered = True
                await send({"type": "http.response.body", "body": data, "more_body": False})
                return
            body.sending_since = monotonic()
            await send({"type": "http.response.body", "body": data, "more_body": True})
            body.sending_since = None
            # A download would flow on for nobody until the patrol comes by.
            body.watch()
    except ProxyError as error:
        raise ResponseTruncated(error.detail) from None


async def _answer(send: Send, error: ProxyError) -> None:
    fields, content = problem(error)
    await send({"type": "http.response.start", "status": error.status, "headers": fields})
    await send({"type": "http.response.body", "body": content, "more_body": False})


class _WatchedBody(RequestBody):
    """A request's body, and behind it its caller, who may leave. ASGI's `send` never tells of that; only `receive`."""

    seen = False
    left = False
    stalled = False
    _watcher: "asyncio.Task[None] | None" = None

    def __init__(
        self, receive: Receive, limit: int | None, replay: Replay, task: "asyncio.Task[Any]", patrol: "_Patrol"
    ) -> None:
        self._receive, self._limit, self._replay = receive, limit, replay
        self.task, self.patrol, self.loop = task, patrol, patrol.loop
        patrol.bodies.add(self)
        if patrol.timer is None:
            patrol.start()

    def watch(self) -> None:
        """From now on the request is cancelled when its caller leaves."""
        # While the body is still coming, whoever reads it notices.
        if self._watcher is None and self.ended:
            self._watcher = self.task.get_loop().create_task(self._wait())

    async def _wait(self) -> None:
        left = True
        try:
            left = await self.wait_left()
        except Exception as error:
            # A server that cannot say whether its caller is there has none to answer.
            _logger.warning("receive failed with %s while the caller was watched", type(error).__name__)
        # A server may report its caller as gone while the last of the answer is on its way.
        if left and not self.answered:
            self.left = True
            self.task.cancel()

    def check(self) -> None:
        """A caller that takes nothing of its response for too long keeps an upstream connection from all others."""
        since, patience = self.sending_since, self.patrol.patience
        if since is None or patience is None or self.left or self.stalled:
            return
        if monotonic() - since > patience:
            self.stalled = True
            self.task.cancel()

    def cancelled(self) -> bool:
        """Whether it was this that cancelled the request, as its caller had left.

        Raises:
            ResponseTruncated: The caller is there, and takes nothing.
        """
        # As asyncio.timeout does it: a cancellation that is not only ours goes on.
        if not (self.left or self.stalled) or self.task.uncancel():
            return False
        if self.stalled:
            raise ResponseTruncated("The caller took nothing of the response for too long") from None
        return True

    def close(self) -> None:
        """Forgets the body, and its caller."""
        self.patrol.bodies.discard(self)
        if self._watcher is not None:
            self._watcher.cancel()
        if self._pending is not None or self._spool is not None or self.leave is not None:
            super().close()
        elif self.trail is not None:
            self.trail.finish(self._size)


class _Patrol:
    """Starts the watch over requests that are not answered at once, so that the others need no task of their own.

    Args:
        loop: Where the requests are.
        patience: Seconds after which a caller that takes nothing is given up; None is no limit.

    Attributes:
        bodies: The requests that are under way.
        timer: Fires when it comes by the next time.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, patience: float | None) -> None:
        self.loop = loop
        self.patience = patience
        self.bodies: set[_WatchedBody] = set()
        self.timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Comes by from now on, for as long as there is anything to look at."""
        self.timer = self.loop.call_later(PATROL, self._look) if self.bodies else None

    def _look(self) -> None:
        for body in self.bodies:
            if body.seen:
                body.watch()
                body.check()
            body.seen = True
        self.start()


class _Lifespan:
    """Passes lifespan on to the host, closes the pools on shutdown, and answers by itself where the host refuses."""

    def __init__(self, app: ASGIApp, proxy: Proxy) -> None:
        self._app = app
        self.proxy = proxy
        self._answered = False
        self._received: list[MutableMapping[str, Any]] = []

    async def run(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def host_receive() -> MutableMapping[str, Any]:
            message = await receive()
            self._received.append(message)
            return message

        async def host_send(message: MutableMapping[str, Any]) -> None:
            self._answered = True
            if message["type"].startswith("lifespan.shutdown"):
                await self.proxy.aclose()
            await send(message)

        try:
            await self._app(scope, host_receive, host_send)
        except Exception:
            # An application without lifespan raises, or returns without an answer (ASGI specification, "Lifespan").
            if self._answered:
                raise
        if not self._answered:
            await self._answer(receive, send)

    async def _answer(self, receive: Receive, send: Send) -> None:
        if not self._received:
            await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.proxy.aclose()
        await send({"type": "lifespan.shutdown.complete"})

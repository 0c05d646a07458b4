"""The two loops that perform the core's steps, one per colour, and the calls to plugins in the door's colour."""

import asyncio
import logging
import os
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import anyio.to_thread
from asgiref.sync import iscoroutinefunction, sync_to_async

from proxy_middleware._credential import Credential
from proxy_middleware._exchange import (
    Authenticate,
    Collect,
    Discard,
    Forward,
    Judge,
    Obtain,
    Obtained,
    Probe,
    Refresh,
    Relay,
    Resolve,
    Step,
    Steps,
)
from proxy_middleware.errors import CallerLeft, InternalError, ProxyError, RefreshFailed, ResponseTruncated
from proxy_middleware.models import Connection, ResponseHead
from proxy_middleware.protocols import Authenticator, ConnectionResolver, CredentialProvider, is_nonblocking

_logger = logging.getLogger("proxy_middleware")

# Bytes of a response's body that `is_rejected` may see.
JUDGED = 64 * 1024

Call = Callable[..., Any]
Colour = Callable[[Call], Call]
Perform = Mapping[type, Call]
Find = Callable[[Connection], Credential | CredentialProvider]


class Plugins(NamedTuple):
    """What the application plugged in; `find` gives the credential or the provider of a connection."""

    authenticate: Authenticator
    resolver: ConnectionResolver
    find: Find


# The loops. A performer's answer may be awaitable, whatever kind of function gave it.


async def adrive(steps: Steps, perform: Perform) -> Relay:
    """Performs the steps on an event loop.

    Raises:
        ProxyError: What is answered instead.
        CallerLeft: Nobody is left to answer.
    """
    send, response = perform[Forward], None
    step: Step | None = None
    try:
        step = next(steps)
        while True:
            try:
                if type(step) is Forward:
                    value = response = await send(step)
                else:
                    value = perform[type(step)](*step)
                    if hasattr(value, "__await__"):
                        value = await value
            except Exception as error:
                failed, step = step, None
                step = steps.throw(_answerable(failed, error))
            else:
                step = None
                step = steps.send(value)
    except StopIteration as done:
        relay: Relay = done.value
        return relay
    except BaseException as error:
        if response is not None:
            response.abort()
        raise _answerable(step, error) from None


def drive(steps: Steps, perform: Perform) -> Relay:
    """Performs the steps in the calling thread. Raises what `adrive` raises."""
    send, response = perform[Forward], None
    step: Step | None = None
    try:
        step = next(steps)
        while True:
            try:
                if type(step) is Forward:
                    value = response = send(step)
                else:
                    value = perform[type(step)](*step)
                    if hasattr(value, "__await__"):
                        value = background.run(value)
            except Exception as error:
                failed, step = step, None
                step = steps.throw(_answerable(failed, error))
            else:
                step = None
                step = steps.send(value)
    except StopIteration as done:
        relay: Relay = done.value
        return relay
    except BaseException as error:
        if response is not None:
            response.abort()
        raise _answerable(step, error) from None


def _answerable(step: Step | None, error: BaseException) -> BaseException:
    """The error as it may be answered: what a plugin raised is told to nobody, since it may hold a credential."""
    if type(step) is Refresh and isinstance(error, Exception) and not isinstance(error, CallerLeft):
        if not isinstance(error, RefreshFailed):
            _log(step, error)
        return RefreshFailed()
    if isinstance(error, ProxyError | CallerLeft | ResponseTruncated) or not isinstance(error, Exception):
        return error
    _log(step, error)
    return InternalError()


def _log(step: Step | None, error: Exception) -> None:
    frames = traceback.extract_tb(error.__traceback__)
    where = "\n".join(f"  {frame.filename}:{frame.lineno} in {frame.name}" for frame in frames)
    _logger.error("%s failed with %s (message withheld)\n%s", type(step).__name__, type(error).__name__, where)


# Plugins, in the colour of the door.


def for_asgi(function: Call) -> Call:
    """The function as the event loop may call it: a plain `def` that may block runs in a worker thread."""
    if iscoroutinefunction(function) or iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004
        return function
    return function if is_nonblocking(function) else _in_thread(function)


def _in_thread(function: Call) -> Call:
    def guarded(*args: Any) -> Any:
        try:
            return (function(*args),)  # In a tuple, since trio refuses to hand over a coroutine.
        except StopIteration as error:
            # A future cannot hold one: whoever waits for it would wait for ever.
            raise RuntimeError("a plugin raised StopIteration") from error

    on_asyncio = sync_to_async(guarded, thread_sensitive=False)

    async def call(*args: Any) -> Any:
        if on_asyncio_loop():
            (value,) = await on_asyncio(*args)
        else:
            (value,) = await anyio.to_thread.run_sync(guarded, *args)
        return await value if hasattr(value, "__await__") else value

    return call


def on_asyncio_loop() -> bool:
    """Whether asyncio runs the calling coroutine, rather than trio."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class _Provider:
    """A credential provider, its methods in the colour of the door."""

    def __init__(self, provider: CredentialProvider, colour: Colour) -> None:
        refresh, is_rejected = getattr(provider, "refresh", None), getattr(provider, "is_rejected", None)
        self.obtain = colour(provider.obtain)
        self.refresh = colour(refresh) if refresh else None
        self.is_rejected = colour(is_rejected) if is_rejected else None
        self.needs_body: Call | None = getattr(is_rejected, "needs_body", None)

    def obtained(self, credential: Credential) -> Obtained:
        return Obtained(credential, time.time(), self.refresh is not None, self.is_rejected is not None)


class _Providers:
    """Finds the provider of a connection, and calls it."""

    def __init__(self, find: Find, colour: Colour, judge_body: Call) -> None:
        self._find = find
        self._colour = colour
        self._judge_body = judge_body
        self._known: dict[int, _Provider | Obtained] = {}

    def obtain(self, connection: Connection) -> Any:
        provider = self._of(connection)
        if type(provider) is Obtained:
            return provider
        assert isinstance(provider, _Provider)
        value = provider.obtain(connection)
        return _obtained_later(provider, value) if hasattr(value, "__await__") else provider.obtained(value)

    def refresh(self, connection: Connection, rejected: Credential) -> Any:
        provider = self._of(connection)
        if isinstance(provider, _Provider) and provider.refresh:
            return provider.refresh(connection, rejected)
        raise RefreshFailed

    def judge(self, connection: Connection, response: Any) -> Any:
        provider = self._of(connection)
        assert isinstance(provider, _Provider)
        assert provider.is_rejected is not None
        head = ResponseHead(response.status, response.fields)
        if provider.needs_body is None or not provider.needs_body(head):
            return provider.is_rejected(connection, head)
        return self._judge_body(provider.is_rejected, connection, response)

    def _of(self, connection: Connection) -> _Provider | Obtained:
        source = self._find(connection)
        known = self._known.get(id(source))
        if known is None:
            known = Obtained(source) if isinstance(source, Credential) else _Provider(source, self._colour)
            # `find` hands out the same few objects for ever, so that their ids stay theirs.
            self._known[id(source)] = known
        return known


async def _ajudge_body(is_rejected: Call, connection: Connection, response: Any) -> bool:
    """Judges a response by the start of its body, which stays where it is."""
    pieces: list[bytes] = []
    try:
        while not response.at_end and sum(map(len, pieces)) < JUDGED:
            pieces.append(await response.read())
    except (ProxyError, ResponseTruncated):
        pass  # Whoever reads on is told.
    value = is_rejected(connection, _head_with(response, pieces))
    return bool(await value if hasattr(value, "__await__") else value)


def _judge_body(is_rejected: Call, connection: Connection, response: Any) -> Any:
    pieces: list[bytes] = []
    try:
        while not response.at_end and sum(map(len, pieces)) < JUDGED:
            pieces.append(response.read())
    except (ProxyError, ResponseTruncated):
        pass
    return is_rejected(connection, _head_with(response, pieces))


def _head_with(response: Any, pieces: list[bytes]) -> ResponseHead:
    body = b"".join(pieces)
    response.unread(body)
    return ResponseHead(response.status, response.fields, body[:JUDGED])


async def _obtained_later(provider: _Provider, value: Awaitable[Credential]) -> Obtained:
    credential: Any = value
    while hasattr(credential, "__await__"):
        credential = await credential
    return provider.obtained(credential)


def asgi_performers(plugins: Plugins, send: Call) -> Perform:
    """Who performs which step on an event loop; `send` is the upstream's, and gets all of a Forward."""
    return _performers(plugins, send, for_asgi, _adiscard, _ajudge_body)


def wsgi_performers(plugins: Plugins, send: Call) -> Perform:
    """Who performs which step in a thread."""
    return _performers(plugins, send, lambda function: function, _discard, _judge_body)


def _performers(plugins: Plugins, send: Call, colour: Colour, discard: Call, judge_body: Call) -> Perform:
    """Each is called with what its step holds; `drive` and `adrive` await what is awaitable."""
    providers = _Providers(plugins.find, colour, judge_body)
    return {
        Authenticate: colour(plugins.authenticate),
        Resolve: colour(plugins.resolver.resolve),
        Obtain: providers.obtain,
        Refresh: providers.refresh,
        Judge: providers.judge,
        Probe: lambda body: body.probe(),
        Collect: lambda body, limit: body.collect(limit),
        Forward: send,
        Discard: discard,
    }


async def _adiscard(response: Any, body: Any) -> bool:
    if body is not None and not body.replayable:
        return False
    await response.aclose()
    return True


def _discard(response: Any, body: Any) -> bool:
    if body is not None and not body.replayable:
        return False
    response.close()
    return True


class _BackgroundLoop:
    """One event loop in a daemon thread, on which WSGI runs `async def` plugins, so that their connections live."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, awaitable: Awaitable[Any]) -> Any:
        """The awaitable's result; the calling thread waits for it."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="proxy_middleware", daemon=True).start()
        return asyncio.run_coroutine_threadsafe(_as_coroutine(awaitable), self._loop).result()


async def _as_coroutine(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


background = _BackgroundLoop()


def _after_fork() -> None:
    # The thread stayed with the parent.
    background.__init__()  # type: ignore[misc]


os.register_at_fork(after_in_child=_after_fork)

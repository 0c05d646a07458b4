"""The HTTP/1.1 engine on asyncio: one pool per process and event loop. What happens on a connection is next door."""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import aiohappyeyeballs

from proxy_middleware._forks import tell_after_fork
from proxy_middleware._steps import Forward
from proxy_middleware._target import Origin
from proxy_middleware.errors import ConnectionTerminated, ConnectTimeout, PoolExhausted
from proxy_middleware.models import EgressPolicy, Limits, Timeouts
from proxy_middleware.upstream.asyncio_connection import READ_SIZE, Connection, Response
from proxy_middleware.upstream.dial import connect_error, default_ssl_context
from proxy_middleware.upstream.egress import AddrInfo, dialable
from proxy_middleware.upstream.lookup import Lookups, literal
from proxy_middleware.upstream.pool import Places


class _Waiter:
    """Waits for a place in the pool."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.granted: asyncio.Future[Connection | None] = loop.create_future()

    def grant(self, connection: Connection | None) -> bool:
        if self.granted.done():
            # Cancelled, but not yet out of the queue.
            return False
        self.granted.set_result(connection)
        return True


class Pool:
    """The connections of one event loop."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, limits: Limits, egress: EgressPolicy, tls: Callable[[], ssl.SSLContext]
    ) -> None:
        self.loop = loop
        self._tls = tls
        self._limits = limits
        self._egress = egress
        self._places: Places[Connection] = Places(limits)
        self._lookups = Lookups()
        self._open: set[Connection] = set()
        self._closed = False
        self._buffer = memoryview(bytearray(READ_SIZE))

    def reuse(self, origin: Origin) -> Connection | None:
        """The idle connection used last, if it is alive as far as is known."""
        while (connection := self._places.reuse(origin)) is not None and not connection.usable():
            connection.discard()
            self._places.free(origin)
        return connection

    async def acquire(self, origin: Origin, timeouts: Timeouts) -> tuple[Connection, bool]:
        """A connection, and whether it was used before.

        Raises:
            PoolExhausted: No place came free within `Timeouts.pool`.
            ProxyError: A new connection could not be opened.
        """
        while connection := self.reuse(origin) or await self._place(origin, timeouts.pool):
            if connection.usable():
                return connection, True
            connection.close()
        return await self._fill(origin, timeouts), False

    async def replace(self, origin: Origin, timeouts: Timeouts) -> Connection:
        """A new connection, after a reused one turned out to be dead: the idle ones are suspect, too."""
        while stale := self._places.reuse(origin) or await self._place(origin, timeouts.pool):
            stale.discard()
            self._places.free(origin)
        return await self._fill(origin, timeouts)

    async def _fill(self, origin: Origin, timeouts: Timeouts) -> Connection:
        """Opens a connection in a place that has been reserved."""
        try:
            if self._closed:
                raise ConnectionTerminated
            connection = await self._open_connection(origin, timeouts.connect)
        except BaseException:
            self._places.free(origin)
            raise
        if self._closed or not connection.alive:
            self._places.free(origin)
            connection.close()
            raise ConnectionTerminated
        self._open.add(connection)
        connection.has_place = True
        return connection

    async def _open_connection(self, origin: Origin, timeout: float | None) -> Connection:
        try:
            async with asyncio.timeout(timeout):
                secure = origin.scheme == "https"
                tls = self._tls() if secure else None
                # The addresses that are checked are the ones that are dialled: there is no second look-up.
                found = dialable(self._egress, await self._look_up(origin))
                sock = await aiohappyeyeballs.start_connection(found, happy_eyeballs_delay=0.25, loop=self.loop)
                _, connection = await self.loop.create_connection(
                    lambda: Connection(self, origin, self.loop, self._limits.response_head, self._buffer),
                    sock=sock,
                    ssl=tls,
                    server_hostname=origin.host if secure else None,
                )
        except TimeoutError:
            raise ConnectTimeout from None
        except (OSError, UnicodeError) as error:
            raise connect_error(error) from None
        return connection

    async def _look_up(self, origin: Origin) -> Sequence[AddrInfo]:
        found = literal(origin)
        if found is None:
            found = await asyncio.wrap_future(self._lookups.submit(origin))
        return found

    async def _place(self, origin: Origin, timeout: float | None) -> Connection | None:
        """A connection to reuse, or, with None, a place for a new one."""
        if self._places.reserve(origin):
            return None
        waiter = _Waiter(self.loop)
        self._places.wait(origin, waiter)
        try:
            async with asyncio.timeout(timeout):
                return await waiter.granted
        except BaseException as error:
            self._places.give_up(waiter)
            if waiter.granted.done() and not waiter.granted.cancelled():
                self.give_back(origin, waiter.granted.result())
            if isinstance(error, TimeoutError):
                raise PoolExhausted from None
            raise

    def give_back(self, origin: Origin, connection: Connection | None) -> None:
        """What was granted to someone who does not want it any more."""
        if connection is None:
            self._places.free(origin)
        elif connection.alive:
            self._places.release(origin, connection)

    def release(self, connection: Connection) -> None:
        """The connection has done its request."""
        connection.watch(self._limits.keepalive, TimeoutError)
        self._places.release(connection.origin, connection)

    def gone(self, connection: Connection) -> None:
        """The connection has closed; its place is free, unless it was given away."""
        self._open.discard(connection)
        if connection.has_place:
            connection.has_place = False
            self._places.forget(connection.origin, connection)

    def close(self) -> None:
        """Closes every connection, and opens no more: whoever waits for one gets an error."""
        self._closed = True
        for connection in list(self._open):
            connection.close()


class AsyncioUpstream:
    """Sends requests upstream from any event loop; nothing is opened before the first."""

    def __init__(self, limits: Limits, egress: EgressPolicy, ssl_context: ssl.SSLContext | None) -> None:
        self._limits = limits
        self._egress = egress
        self._tls = cache(default_ssl_context) if ssl_context is None else lambda: ssl_context
        self._pools: dict[asyncio.AbstractEventLoop, Pool] = {}
        self._last: Pool | None = None
        tell_after_fork(self)

    async def send(self, forward: Forward) -> Response:
        """Sends a request; returns when its response's head has come.

        Raises:
            ProxyError: There is no response.
        """
        body, first, last = forward.body, b"", True
        if body is not None:
            first, last = await _begin_body(body, again=forward.again, keep=forward.keep)
        # The door knows the loop already; to ask for it costs a system call up to Python 3.11.
        loop, pool = forward.handle.loop, self._last
        if pool is None or pool.loop is not loop:
            pool = self._pool(loop or asyncio.get_running_loop())
        connection, reused = pool.reuse(forward.origin), True
        if connection is None:
            connection, reused = await pool.acquire(forward.origin, forward.timeouts)
        response = connection.send(forward, first, last)
        try:
            await response.arrival
        except BaseException as error:
            response.abort()
            if not (reused and _may_retry(forward, response, error)):
                raise
        else:
            return response
        if body is not None:
            first, last = await _begin_body(body, again=True, keep=forward.keep)
        connection = await pool.replace(forward.origin, forward.timeouts)
        response = connection.send(forward, first, last)
        response.retried = True
        try:
            await response.arrival
        except BaseException:
            response.abort()
            raise
        return response

    def _pool(self, loop: asyncio.AbstractEventLoop) -> Pool:
        # The answer is not read back: an event loop in another thread may put its own there at any time.
        pool = self._last = self._pools.get(loop) or self._new_pool(loop)
        return pool

    def _new_pool(self, loop: asyncio.AbstractEventLoop) -> Pool:
        # Those of event loops that have ended without `aclose`.
        for ended in [other for other in list(self._pools) if other.is_closed()]:
            self._pools.pop(ended, None)
        pool = self._pools[loop] = Pool(loop, self._limits, self._egress, self._tls)
        return pool

    async def aclose(self) -> None:
        """Closes the connections of the running event loop."""
        self._last = None
        pool = self._pools.pop(asyncio.get_running_loop(), None)
        if pool is not None:
            pool.close()
            # asyncio closes the sockets in the next turn of the loop.
            await asyncio.sleep(0)

    def after_fork(self) -> None:
        """Drops connections that a parent process goes on using."""
        self._last = None
        self._pools = {}


def _may_retry(forward: Forward, response: Response, error: BaseException) -> bool:
    """Whether a request may be sent once more (RFC 9112 section 9.3.1): it was on a connection that was closed idle."""
    closed = isinstance(error, ConnectionTerminated) and not response.started
    return closed and forward.retry and (forward.body is None or forward.body.replayable)


async def _begin_body(body: Any, *, again: bool, keep: bool) -> tuple[bytes, bool]:
    """The first bytes of a body, and whether these are all; no connection is taken while the caller is still silent."""
    if again:
        body.rewind()
    elif keep:
        body.keep()
    return await body.read(), body.at_end

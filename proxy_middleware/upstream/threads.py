"""The HTTP/1.1 engine on threads: one pool per process, for all of them. What happens on a connection is next door.

One lock guards the books, and is never held while something is read, sent or dialled.
"""

import socket
import ssl
import threading
import time
from contextlib import suppress
from typing import Any

from proxy_middleware._forks import tell_after_fork
from proxy_middleware._steps import Forward
from proxy_middleware._target import Origin
from proxy_middleware.errors import ConnectionTerminated, PoolExhausted
from proxy_middleware.models import EgressPolicy, Limits, Timeouts
from proxy_middleware.upstream.dial import connect_error, default_ssl_context
from proxy_middleware.upstream.egress import AddrInfo, dialable
from proxy_middleware.upstream.lookup import Lookups
from proxy_middleware.upstream.pool import Places
from proxy_middleware.upstream.threads_connection import Connection, Response


class _Waiter:
    """Waits for a place in the pool."""

    def __init__(self) -> None:
        self.granted = threading.Event()
        self.connection: Connection | None = None

    def grant(self, connection: Connection | None) -> bool:
        self.connection = connection
        self.granted.set()
        return True


class Pool:
    """The connections of one process."""

    def __init__(self, limits: Limits, egress: EgressPolicy) -> None:
        self._limits = limits
        self._dialler = _Dialler(egress)
        # Reentrant, because the books close connections, which then tell their owner.
        self._lock = threading.RLock()
        self._places: Places[Connection] = Places(limits)
        self._open: set[Connection] = set()
        self._closed = False
        self._next_sweep = 0.0

    def acquire(self, origin: Origin, timeouts: Timeouts, tls: ssl.SSLContext | None) -> tuple[Connection, bool]:
        """A connection, and whether it was used before.

        Raises:
            PoolExhausted: No place came free within `Timeouts.pool`.
            ProxyError: A new connection could not be opened.
        """
        while connection := self._place(origin, timeouts.pool):
            if connection.usable():
                return connection, True
            connection.close()
        return self._fill(origin, timeouts, tls), False

    def replace(self, origin: Origin, timeouts: Timeouts, tls: ssl.SSLContext | None) -> Connection:
        """A new connection, after a reused one turned out to be dead: the idle ones are suspect, too."""
        while stale := self._place(origin, timeouts.pool):
            stale.close()
        return self._fill(origin, timeouts, tls)

    def _place(self, origin: Origin, timeout: float | None) -> Connection | None:
        """A connection to reuse, or, with None, a place for a new one."""
        with self._lock:
            connection = self._places.reuse(origin)
            if connection is not None or self._places.reserve(origin):
                return connection
            waiter = _Waiter()
            self._places.wait(origin, waiter)
        granted = False
        try:
            granted = waiter.granted.wait(timeout)
        finally:
            if not granted:
                self._withdraw(origin, waiter)
        if not granted:
            raise PoolExhausted
        return waiter.connection

    def _withdraw(self, origin: Origin, waiter: _Waiter) -> None:
        """Stops waiting, and gives back what was granted at the last moment."""
        with self._lock:
            self._places.give_up(waiter)
            if waiter.connection is not None:
                self._places.release(origin, waiter.connection)
            elif waiter.granted.is_set():
                self._places.free(origin)

    def _fill(self, origin: Origin, timeouts: Timeouts, tls: ssl.SSLContext | None) -> Connection:
        """Opens a connection in a place that has been reserved."""
        try:
            sock = self._dialler.dial(origin, timeouts.connect, tls)
        except BaseException:
            with self._lock:
                self._places.free(origin)
            raise
        connection = Connection(self, origin, sock, self._limits.response_head)
        with self._lock:
            self._open.add(connection)
            connection.has_place = True
        return connection

    def release(self, connection: Connection) -> None:
        """The connection has done its request."""
        now = time.monotonic()
        connection.expires = now + self._limits.keepalive
        with self._lock:
            if self._closed:
                connection.close()
                return
            self._places.release(connection.origin, connection)
            if now >= self._next_sweep:
                self._sweep(now)

    def _sweep(self, now: float) -> None:
        """Closes what has been idle for too long; there is no timer that would."""
        self._next_sweep = now + self._limits.keepalive
        for connection in self._places.idle():
            if connection.expires <= now:
                connection.close()

    def gone(self, connection: Connection) -> None:
        """The connection closes; its place is free, unless it was given away."""
        with self._lock:
            self._open.discard(connection)
            if connection.has_place:
                connection.has_place = False
                self._places.forget(connection.origin, connection)

    def close(self) -> None:
        """Closes the idle connections, and breaks the busy ones off."""
        with self._lock:
            self._closed = True
            for connection in self._places.idle():
                connection.close()
            for connection in self._open:
                connection.interrupt()

    def drop(self) -> None:
        """Closes every descriptor in a forked child, without the lock, which a thread of the parent may hold."""
        for connection in self._open:
            connection.drop()


class ThreadsUpstream:
    """Sends requests upstream from any thread; nothing is opened before the first."""

    def __init__(self, limits: Limits, egress: EgressPolicy, ssl_context: ssl.SSLContext | None) -> None:
        self._limits = limits
        self._egress = egress
        self._ssl_context = ssl_context
        self._pool = Pool(limits, egress)
        tell_after_fork(self)

    def send(self, forward: Forward) -> Response:
        """Sends a request; returns when its response's head has come.

        Raises:
            ProxyError: There is no response.
            CallerLeft: Nobody waits for one any more.
        """
        body, origin, timeouts = forward.body, forward.origin, forward.timeouts
        # While it waits, the engine looks whether the caller is still there.
        caller = forward.handle.caller
        first, last = _begin_body(body, again=forward.again, keep=forward.keep)
        pool, tls = self._pool, self._tls(origin)
        connection, reused = pool.acquire(origin, timeouts, tls)
        try:
            return connection.exchange(forward, first, last, caller)
        except ConnectionTerminated:
            # RFC 9112 section 9.3.1: a connection closed while idle says nothing about the request.
            stale = reused and not connection.answered
            if not stale or not forward.retry or not (body is None or body.replayable):
                raise
        first, last = _begin_body(body, again=True, keep=forward.keep)
        connection = pool.replace(origin, timeouts, tls)
        response = connection.exchange(forward, first, last, caller)
        response.retried = True
        return response

    def _tls(self, origin: Origin) -> ssl.SSLContext | None:
        if origin.scheme != "https":
            return None
        if self._ssl_context is None:
            try:
                self._ssl_context = default_ssl_context()
            except OSError as error:
                raise connect_error(error) from None
        return self._ssl_context

    def close(self) -> None:
        """Closes all connections. Responses that are still coming in break off."""
        pool, self._pool = self._pool, Pool(self._limits, self._egress)
        pool.close()

    def after_fork(self) -> None:
        """Drops connections that a parent process goes on using."""
        pool, self._pool = self._pool, Pool(self._limits, self._egress)
        pool.drop()


def _begin_body(body: Any, *, again: bool, keep: bool) -> tuple[bytes, bool]:
    """The first bytes of a body, and whether these are all; no connection is taken while the caller is still silent."""
    if body is None:
        return b"", True
    if again:
        body.rewind()
    elif keep:
        body.keep()
    return body.read(), body.at_end


class _Dialler:
    """Opens sockets: look-up, TCP and TLS within one time-out."""

    def __init__(self, egress: EgressPolicy) -> None:
        self._egress = egress
        self._lookups = Lookups()

    def dial(self, origin: Origin, timeout: float | None, tls: ssl.SSLContext | None) -> socket.socket:
        """A connected socket that does not block."""
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            # The addresses that are checked are the ones that are dialled: there is no second look-up.
            addresses = dialable(self._egress, self._lookups.find(origin, timeout))
            sock = _connect(addresses, deadline)
            if tls is not None:
                sock = _secure(sock, origin, deadline, tls)
        except (OSError, UnicodeError) as error:
            raise connect_error(error) from None
        sock.setblocking(False)
        return sock


def _connect(addresses: list[AddrInfo], deadline: float | None) -> socket.socket:
    """Tries each address for its share of the time that is left; the last one's error is the one that counts."""
    *others, last = addresses
    for tried, address in enumerate(others):
        left = _left(deadline)
        with suppress(OSError):
            return _connect_to(address, left and left / (len(addresses) - tried))
    return _connect_to(last, _left(deadline))


def _connect_to(info: AddrInfo, timeout: float | None) -> socket.socket:
    family, kind, protocol, _, address = info
    sock = socket.socket(family, kind, protocol)
    try:
        sock.settimeout(timeout)
        sock.connect(address)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        sock.close()
        raise
    return sock


def _secure(sock: socket.socket, origin: Origin, deadline: float | None, tls: ssl.SSLContext) -> ssl.SSLSocket:
    try:
        sock.settimeout(_left(deadline))
        return tls.wrap_socket(sock, server_hostname=origin.host, suppress_ragged_eofs=False)
    except BaseException:
        sock.close()
        raise


def _left(deadline: float | None) -> float | None:
    """Seconds until the deadline."""
    if deadline is None:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left

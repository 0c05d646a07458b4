"""Which connections to upstreams exist, which are idle, and who waits for one: no I/O, no lock, no clock.

Idle connections are reused last in, first out, so that those not needed grow old and go. Waiting is fair: whoever came
first is served first, per origin, and across origins where the total is what they wait for.
"""

from bisect import insort
from collections import deque
from itertools import count
from operator import itemgetter
from typing import Generic, Protocol, TypeVar

from proxy_middleware._target import Origin
from proxy_middleware.models import Limits


class Closable(Protocol):
    """A connection, as far as the book-keeping goes."""

    def discard(self) -> None:
        """Closes an idle connection whose place the book-keeping has already given away."""


C = TypeVar("C", bound=Closable)
C_contra = TypeVar("C_contra", contravariant=True)


class Waiter(Protocol[C_contra]):
    """Someone who waits for a place."""

    def grant(self, connection: C_contra | None) -> None:
        """Here is a connection to reuse, or, with None, a place for a new one."""


class Places(Generic[C]):
    """The places of one pool: each is an open connection, or one being opened."""

    def __init__(self, limits: Limits) -> None:
        self._per_origin = limits.connections_per_origin
        self._total = limits.connections
        self._taken: dict[Origin, int] = {}
        self._count = 0
        self._stacks: dict[Origin, list[C]] = {}
        self._idle: dict[C, Origin] = {}  # In the order in which they became idle.
        self._waiting: dict[Origin, deque[tuple[int, Waiter[C]]]] = {}  # For a place of their origin.
        self._starved: deque[tuple[int, Origin, Waiter[C]]] = deque()  # For any place at all.
        self._tickets = count()

    def reuse(self, origin: Origin) -> C | None:
        """The idle connection used last, if there is one."""
        stack = self._stacks.get(origin)
        if not stack:
            return None
        connection = stack.pop()
        del self._idle[connection]
        return connection

    def reserve(self, origin: Origin) -> bool:
        """Takes a place for a new connection, if there is one, or if one can be had from another origin's idle."""
        taken = self._taken.get(origin, 0)
        if taken >= self._per_origin:
            return False
        if self._count >= self._total and not self._evict():
            return False
        self._taken[origin] = taken + 1
        self._count += 1
        return True

    def wait(self, origin: Origin, waiter: Waiter[C]) -> None:
        """Queues a waiter, after `reserve` refused."""
        ticket = next(self._tickets)
        if self._taken.get(origin, 0) >= self._per_origin:
            self._waiting.setdefault(origin, deque()).append((ticket, waiter))
        else:
            self._starved.append((ticket, origin, waiter))

    def give_up(self, origin: Origin, waiter: Waiter[C]) -> None:
        """Takes a waiter out of the queue, if it is still there."""
        queue = self._waiting.get(origin, deque())
        self._waiting[origin] = deque(entry for entry in queue if entry[1] is not waiter)
        self._tidy(origin)
        starved = len(self._starved)
        self._starved = deque(entry for entry in self._starved if entry[2] is not waiter)
        if len(self._starved) < starved:
            self._promote(origin)

    def release(self, origin: Origin, connection: C) -> None:
        """The connection can be used again: by who waits for it, or it is idle."""
        first, queue = self._first_starved(), self._waiting.get(origin)
        if first and not (queue and queue[0][0] < first[0]):
            _, wanted, waiter = first
            if wanted == origin:
                self._starved.popleft()
                waiter.grant(connection)
                return
            # Others were first, and need its place for another origin.
            connection.discard()
            self.free(origin)
        elif queue:
            _, waiter = queue.popleft()
            self._tidy(origin)
            waiter.grant(connection)
        else:
            self._stacks.setdefault(origin, []).append(connection)
            self._idle[connection] = origin

    def forget(self, origin: Origin, connection: C) -> None:
        """A connection has closed, idle or not."""
        if self._idle.pop(connection, None) is not None:
            self._stacks[origin].remove(connection)
        self.free(origin)

    def free(self, origin: Origin) -> None:
        """A place is free: its connection has closed, or could not be opened."""
        self._leave(origin)
        self._promote(origin)
        while self._count < self._total and (first := self._first_starved()):
            self._starved.popleft()
            _, wanted, waiter = first
            self._taken[wanted] = self._taken.get(wanted, 0) + 1
            self._count += 1
            waiter.grant(None)

    def idle(self) -> list[C]:
        """All idle connections."""
        return list(self._idle)

    def _promote(self, origin: Origin) -> None:
        """The origin has room: who waits first for a place of it may now have any place at all."""
        if queue := self._waiting.get(origin):
            ticket, waiter = queue.popleft()
            self._tidy(origin)
            insort(self._starved, (ticket, origin, waiter), key=itemgetter(0))

    def _first_starved(self) -> tuple[int, Origin, Waiter[C]] | None:
        """Who has waited longest for any place at all."""
        while self._starved:
            ticket, wanted, waiter = first = self._starved[0]
            if self._taken.get(wanted, 0) < self._per_origin:
                return first
            # Its origin has filled up meanwhile; it keeps its ticket there.
            self._starved.popleft()
            insort(self._waiting.setdefault(wanted, deque()), (ticket, waiter), key=itemgetter(0))
        return None

    def _evict(self) -> bool:
        """Closes the connection that has been idle for longest."""
        if not self._idle:
            return False
        oldest = next(iter(self._idle))
        origin = self._idle.pop(oldest)
        self._stacks[origin].remove(oldest)
        self._leave(origin)
        oldest.discard()
        return True

    def _leave(self, origin: Origin) -> None:
        self._count -= 1
        self._taken[origin] -= 1
        if not self._taken[origin]:
            del self._taken[origin]
            self._stacks.pop(origin, None)

    def _tidy(self, origin: Origin) -> None:
        if not self._waiting.get(origin):
            self._waiting.pop(origin, None)

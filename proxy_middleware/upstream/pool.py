"""Which connections to upstreams exist, which are idle, and who waits for one: no I/O, no lock, no clock.

Idle connections are reused last in, first out, so that those not needed grow old and go. Waiting is fair: whoever came
first is served first, of those whom the place helps.
"""

from collections import OrderedDict
from itertools import count, islice
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

    def grant(self, connection: C_contra | None) -> bool:
        """Here is a connection to reuse, or, with None, a place for a new one. False: it is not waiting any more."""


class Places(Generic[C]):
    """The places of one pool: each is an open connection, or one being opened."""

    def __init__(self, limits: Limits) -> None:
        self._per_origin = limits.connections_per_origin
        self._total = limits.connections
        self._taken: dict[Origin, int] = {}
        self._count = 0
        self._stacks: dict[Origin, list[C]] = {}
        self._idle: dict[C, Origin] = {}  # In the order in which they became idle.
        self._waiting: dict[Origin, OrderedDict[Waiter[C], int]] = {}  # With tickets, in the order in which they came.
        self._wanted: dict[Waiter[C], Origin] = {}
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
        if self._taken.get(origin, 0) >= self._per_origin:
            return False
        if self._count >= self._total and not self._evict():
            return False
        self._take(origin)
        return True

    def wait(self, origin: Origin, waiter: Waiter[C]) -> None:
        """Queues a waiter, after `reserve` refused."""
        self._waiting.setdefault(origin, OrderedDict())[waiter] = next(self._tickets)
        self._wanted[waiter] = origin

    def give_up(self, waiter: Waiter[C]) -> None:
        """Takes a waiter out of the queue, if it is still there."""
        origin = self._wanted.pop(waiter, None)
        if origin is not None:
            queue = self._waiting[origin]
            del queue[waiter]
            if not queue:
                del self._waiting[origin]

    def release(self, origin: Origin, connection: C) -> None:
        """The connection can be used again: by who waits for it, or it is idle."""
        while self._waiting and (first := self._first(origin, self._count >= self._total)) is not None:
            if self._wanted[first] != origin:
                # It was first, and needs the place for another origin.
                connection.discard()
                self.free(origin)
                return
            self.give_up(first)
            if first.grant(connection):
                return
        self._stacks.setdefault(origin, []).append(connection)
        self._idle[connection] = origin

    def forget(self, origin: Origin, connection: C) -> None:
        """A connection has closed, idle or not."""
        if self._idle.pop(connection, None) is not None:
            self._stacks[origin].remove(connection)
        self.free(origin)

    def free(self, origin: Origin) -> None:
        """A place is free: its connection has closed, or could not be opened."""
        full = self._count >= self._total
        self._leave(origin)
        while self._waiting and (first := self._first(origin, full)) is not None:
            wanted = self._wanted[first]
            self.give_up(first)
            self._take(wanted)
            if first.grant(None):
                return
            self._leave(wanted)

    def idle(self) -> list[C]:
        """All idle connections."""
        return list(self._idle)

    def _first(self, origin: Origin, full: bool) -> Waiter[C] | None:
        """Who came first, of those whom a place of this origin would help: others only where the total is full."""
        tickets = [
            (ticket, waiter)
            for wanted in (list(self._waiting) if full else [origin])
            if wanted == origin or self._taken.get(wanted, 0) < self._per_origin
            for waiter, ticket in islice(self._waiting.get(wanted, {}).items(), 1)
        ]
        return min(tickets, key=itemgetter(0))[1] if tickets else None

    def _take(self, origin: Origin) -> None:
        self._taken[origin] = self._taken.get(origin, 0) + 1
        self._count += 1

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

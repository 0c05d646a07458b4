"""The book-keeping of connections: limits, reuse, fairness, and that nobody who waits is forgotten."""

import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from proxy_middleware._target import Origin
from proxy_middleware.models import Limits
from proxy_middleware.upstream.pool import Places

A, B, C = (Origin("https", name, 443) for name in ("a.example", "b.example", "c.example"))


class Connection:
    """A connection that notes that it was closed."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.discarded = False

    def discard(self) -> None:
        assert not self.discarded
        self.discarded = True


class Waiter:
    """Someone who waits, and keeps what was granted."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.granted: list[Connection | None] = []

    def grant(self, connection: Connection | None) -> bool:
        self.granted.append(connection)
        return True


def places(per_origin: int = 100, total: int = 100) -> Places[Connection]:
    """The places of a pool with these limits."""
    return Places(Limits(connections_per_origin=per_origin, connections=total))


def opened(pool: Places[Connection], origin: Origin) -> Connection:
    """A new connection."""
    assert pool.reserve(origin)
    return Connection(origin)


def waiting(pool: Places[Connection], *origins: Origin) -> list[Waiter]:
    """Waiters for these origins, in their order."""
    waiters = [Waiter(origin) for origin in origins]
    for waiter in waiters:
        assert not pool.reserve(waiter.origin)
        pool.wait(waiter.origin, waiter)
    return waiters


def granted(*waiters: Waiter) -> list[list[Connection | None]]:
    """What each was granted."""
    return [waiter.granted for waiter in waiters]


class TestReuse:
    def test_last_in_first_out(self) -> None:
        """The connection that became idle last is used first, and only for its own origin."""
        pool = places()
        first, second, other = opened(pool, A), opened(pool, A), opened(pool, B)
        for connection in (first, second, other):
            pool.release(connection.origin, connection)
        assert [pool.reuse(A) for _ in range(3)] == [second, first, None]

    def test_closed_is_not_reused(self) -> None:
        """An idle connection that has closed is gone."""
        pool = places()
        first, second = opened(pool, A), opened(pool, A)
        pool.release(A, first)
        pool.release(A, second)
        pool.forget(A, second)
        assert [pool.reuse(A), pool.reuse(A)] == [first, None]


class TestLimits:
    def test_per_origin(self) -> None:
        """One origin has so many places, and another has its own."""
        pool = places(per_origin=2)
        assert [pool.reserve(origin) for origin in (A, A, A, B)] == [True, True, False, True]

    def test_total(self) -> None:
        """All origins together have so many places."""
        pool = places(total=2)
        assert [pool.reserve(origin) for origin in (A, B, C, A)] == [True, True, False, False]

    def test_eviction(self) -> None:
        """Where all places are taken, the connection that has been idle for longest gives way."""
        pool = places(total=3)
        busy, old, young = opened(pool, A), opened(pool, A), opened(pool, B)
        pool.release(A, old)
        pool.release(B, young)
        assert pool.reserve(C)
        assert [busy.discarded, old.discarded, young.discarded] == [False, True, False]
        assert pool.idle() == [young]

    def test_own_limit_evicts_nobody(self) -> None:
        """A full origin does not gain by closing another's connection."""
        pool = places(per_origin=1, total=2)
        opened(pool, A)
        other = opened(pool, B)
        pool.release(B, other)
        assert not pool.reserve(A)
        assert not other.discarded


class TestWaiting:
    def test_connection_is_handed_over(self) -> None:
        """A connection that comes free goes to the first who waits for its origin."""
        pool = places(per_origin=1)
        connection = opened(pool, A)
        first, second = waiting(pool, A, A)
        pool.release(A, connection)
        assert granted(first, second) == [[connection], []]
        pool.forget(A, connection)
        assert granted(first, second) == [[connection], [None]]

    def test_total_is_handed_over(self) -> None:
        """Where the total is what is waited for, a connection of the right origin is still reused."""
        pool = places(total=1)
        connection = opened(pool, A)
        (waiter,) = waiting(pool, A)
        pool.release(A, connection)
        assert waiter.granted == [connection]
        assert not connection.discarded

    def test_across_origins(self) -> None:
        """Whoever came first is served first, though the connection that comes free is another origin's."""
        pool = places(total=1)
        connection = opened(pool, A)
        other, same = waiting(pool, B, A)
        pool.release(A, connection)
        assert connection.discarded
        assert granted(other, same) == [[None], []]
        pool.free(B)
        assert granted(other, same) == [[None], [None]]

    def test_place_went_to_another_origin(self) -> None:
        """Who waited for a place of a full origin is served once there is any place at all."""
        pool = places(per_origin=1, total=1)
        opened(pool, A)
        other, same = waiting(pool, B, A)
        pool.free(A)
        assert granted(other, same) == [[None], []]
        pool.free(B)
        assert granted(other, same) == [[None], [None]]

    def test_stead(self) -> None:
        """When someone gives up, the next of the same origin takes their stead."""
        pool = places(per_origin=1, total=1)
        opened(pool, A)
        other, first, second = waiting(pool, B, A, A)
        pool.free(A)
        pool.give_up(first)
        pool.free(B)
        assert granted(other, first, second) == [[None], [], [None]]

    def test_full_origin_blocks_nobody(self) -> None:
        """Who waits for a full origin holds up nobody who waits for another."""
        pool = places(per_origin=1, total=2)
        opened(pool, A)
        opened(pool, B)
        full, other = waiting(pool, A, C)
        pool.free(B)
        assert granted(full, other) == [[], [None]]

    @pytest.mark.parametrize("limits", [{"per_origin": 1}, {"total": 1}])
    def test_gave_up(self, limits: dict[str, int]) -> None:
        """Who gave up is granted nothing, however often, and the next one is."""
        pool = places(**limits)
        connection = opened(pool, A)
        first, second = waiting(pool, A, A)
        pool.give_up(first)
        pool.give_up(first)
        pool.release(A, connection)
        assert granted(first, second) == [[], [connection]]


def steps_beside(waiters: int, happening: Callable[[Places[Connection], Connection], None]) -> int:
    """How many lines run when this happens to a connection of B, while so many wait for the full origin A."""
    pool, steps = places(per_origin=1, total=2), 0
    opened(pool, A)
    connection = opened(pool, B)
    waiting(pool, *[A] * waiters)
    (last,) = waiting(pool, C)

    def count(frame: object, event: str, _: object) -> Any:
        nonlocal steps
        steps += event == "line"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        happening(pool, connection)
    finally:
        sys.settrace(before)
    assert last.granted == [None]
    return steps


@pytest.mark.parametrize(
    "happening",
    [
        lambda pool, connection: pool.release(B, connection),
        lambda pool, connection: pool.forget(B, connection),
        lambda pool, connection: [pool.give_up(next(iter(pool._wanted))), pool.free(B)],
    ],
    ids=["release", "forget", "give up"],
)
def test_others_crowd_costs_nothing(happening: Callable[[Places[Connection], Connection], None]) -> None:
    """Nobody waits longer because many wait for another origin, which is full."""
    assert steps_beside(5000, happening) == steps_beside(100, happening) > 0


class Pooling(RuleBasedStateMachine):
    """Everything that can happen to a pool, in any order."""

    @initialize(per_origin=st.integers(1, 3), total=st.integers(1, 5))
    def start(self, per_origin: int, total: int) -> None:
        self.per_origin, self.total = per_origin, total
        self.pool = places(per_origin, total)
        self.opening: list[Origin] = []
        self.busy: list[Connection] = []
        self.idle: list[Connection] = []  # The oldest first.
        self.queue: list[Asker] = []
        self.releasing: Connection | None = None

    def taken(self, origin: Origin) -> int:
        """How many places an origin has."""
        return self.opening.count(origin) + sum(each.origin == origin for each in (*self.busy, *self.idle))

    def pick(self, data: st.DataObject, some: list[Any]) -> Any:
        """Takes one out."""
        return some.pop(data.draw(st.integers(0, len(some) - 1)))

    @rule(origin=st.sampled_from([A, B, C]))
    def ask(self, origin: Origin) -> None:
        """Someone wants a connection."""
        mine = [each for each in self.idle if each.origin == origin]
        connection = self.pool.reuse(origin)
        assert connection is (mine[-1] if mine else None)
        if connection is not None:
            self.idle.remove(connection)
            self.busy.append(connection)
        elif self.pool.reserve(origin):
            self.opening.append(origin)
        else:
            self.queue.append(Asker(self, origin))
            self.pool.wait(origin, self.queue[-1])

    @precondition(lambda self: self.opening)
    @rule(data=st.data(), good=st.booleans())
    def open(self, data: st.DataObject, good: bool) -> None:
        """A connection has been opened, or could not be."""
        origin = self.pick(data, self.opening)
        if good:
            self.busy.append(OwnedConnection(self, origin))
        else:
            self.pool.free(origin)

    @precondition(lambda self: self.busy)
    @rule(data=st.data(), reusable=st.booleans())
    def finish(self, data: st.DataObject, reusable: bool) -> None:
        """A request is done; its connection can be used again, or has closed."""
        connection = self.pick(data, self.busy)
        if reusable:
            self.give_back(connection)
        else:
            self.pool.forget(connection.origin, connection)

    def give_back(self, connection: Connection) -> None:
        """Releases a connection; it is idle, unless someone takes it or its place."""
        self.idle.append(connection)
        self.releasing = connection
        self.pool.release(connection.origin, connection)
        self.releasing = None

    @precondition(lambda self: self.idle)
    @rule(data=st.data())
    def close_idle(self, data: st.DataObject) -> None:
        """The upstream closes an idle connection."""
        connection = self.pick(data, self.idle)
        self.pool.forget(connection.origin, connection)

    @precondition(lambda self: self.queue)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        """Someone does not want to wait any longer."""
        asker = self.pick(data, self.queue)
        self.pool.give_up(asker)

    @precondition(lambda self: self.queue)
    @rule(data=st.data())
    def lose_interest(self, data: st.DataObject) -> None:
        """Someone does not want to wait any longer, but has not said so yet."""
        data.draw(st.sampled_from(self.queue)).wants = False

    @invariant()
    def limits_hold(self) -> None:
        """Never more connections than allowed, and as many as the book-keeping says."""
        taken = {origin: count for origin in (A, B, C) if (count := self.taken(origin))}
        assert all(count <= self.per_origin for count in taken.values())
        assert sum(taken.values()) <= self.total
        assert (self.pool._taken, self.pool._count) == (taken, sum(taken.values()))
        assert self.pool.idle() == self.idle
        assert not any(each.discarded for each in (*self.busy, *self.idle))

    @invariant()
    def nobody_is_forgotten(self) -> None:
        """Whoever waits could not be served."""
        for asker in self.queue:
            assert not any(each.origin == asker.origin for each in self.idle)
            full = sum(map(self.taken, (A, B, C))) == self.total and not self.idle
            assert full or self.taken(asker.origin) == self.per_origin

    def teardown(self) -> None:
        """Once all are done, nothing is left."""
        if not hasattr(self, "pool"):
            return
        while self.opening or self.busy or self.idle:
            if self.opening:
                self.pool.free(self.opening.pop())
            else:
                connection = (self.busy or self.idle).pop()
                self.pool.forget(connection.origin, connection)
        assert not self.queue
        assert (self.pool._count, self.pool._taken, self.pool._stacks) == (0, {}, {})
        assert not self.pool._waiting


class OwnedConnection(Connection):
    """A connection of a machine: only the oldest idle one, or the one being released, is ever closed by the pool."""

    def __init__(self, machine: Pooling, origin: Origin) -> None:
        super().__init__(origin)
        self.machine = machine

    def discard(self) -> None:
        super().discard()
        assert self is self.machine.releasing or self is self.machine.idle[0]
        self.machine.idle.remove(self)


class Asker(Waiter):
    """Someone who waits in a machine, and must be the first whom the place could go to."""

    def __init__(self, machine: Pooling, origin: Origin) -> None:
        super().__init__(origin)
        self.machine = machine
        self.wants = True

    def grant(self, connection: Connection | None) -> bool:
        machine = self.machine
        for earlier in machine.queue[: machine.queue.index(self)]:
            assert earlier.origin != self.origin
            assert machine.taken(earlier.origin) == machine.per_origin
        machine.queue.remove(self)
        if not self.wants:
            return False
        if connection is None:
            machine.opening.append(self.origin)
        else:
            assert connection is machine.releasing
            assert connection.origin == self.origin
            machine.idle.remove(connection)
            machine.busy.append(connection)
        return True


TestPooling = Pooling.TestCase
# Shrinking a failure of so many steps takes minutes, and the cases above are the short ones.
TestPooling.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate)
)

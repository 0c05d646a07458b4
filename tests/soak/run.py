"""The soak itself: real servers, the scripted upstream, callers side by side, quiet points to look at what is held."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from itertools import count

from tests.host_plugins import UPSTREAM_SECRET
from tests.servers import RunningServer, start
from tests.soak.caller import Caller
from tests.soak.judge import judge
from tests.soak.ledger import WRONG, Ledger
from tests.soak.plan import Door, Plan
from tests.soak.planning import make_plan
from tests.soak.samples import leaks, settled
from tests.soak.tally import Tally
from tests.soak.upstream import Upstream
from tests.wire import closed_port

SERVERS: dict[Door, tuple[str, str]] = {
    "asgi": ("uvicorn-httptools", "tests.soak.host:asgi_app"),
    "wsgi": ("gunicorn-gthread", "tests.soak.host:wsgi_app"),
}
CALLERS = 12
# Seconds between quiet points, and the longest warm-up before the first one.
EVERY = 60.0
WARM_UP = 60.0

Progress = Callable[[str], None]


class Soak:
    """One run.

    Args:
        seed: Decides what happens in which exchange.
        doors: The doors to go through; the exchanges alternate.
        only: The only exchange to run, of all that the seed plans.
        progress: Is told of quiet points.
    """

    def __init__(self, seed: int, doors: Sequence[Door], only: int | None = None, progress: Progress = print) -> None:
        self.tally = Tally()
        self._seed = seed
        self._doors = doors
        self._only = only
        self._progress = progress
        self._ledger = Ledger()
        self._upstream = Upstream(self._plan, self._ledger)
        self._numbers = {
            door: count(index + 1, len(doors)) if only is None else iter([only]) for index, door in enumerate(doors)
        }
        self._running: dict[Door, RunningServer] = {}

    def _plan(self, number: int) -> Plan:
        door = self._doors[(number - 1) % len(self._doors)] if self._only is None else self._doors[0]
        return make_plan(self._seed, number, door)

    async def run(self, seconds: float) -> Tally:
        """Everything, for so long."""
        async with AsyncExitStack() as stack:
            closed = stack.enter_context(closed_port())
            steady, fragile = await self._upstream.start()
            stack.push_async_callback(self._upstream.stop)
            env = {"UPSTREAM_URL": steady, "FRAGILE": fragile, "CLOSED": f"http://127.0.0.1:{closed}"}
            for door in self._doors:
                server, app = SERVERS[door]
                self._running[door] = await asyncio.to_thread(start, server, app, env)
                stack.callback(self._running[door].remove_log)
                stack.callback(self._running[door].kill)
            await self._rounds(seconds)
        return self.tally

    async def _rounds(self, seconds: float) -> None:
        """Calls and quiet points in turn: after a warm-up, then every minute, then at the end."""
        left, length = seconds, min(WARM_UP, seconds / 3)
        while left > 0:
            began = time.monotonic()
            await self._calls(min(length, left))
            took = time.monotonic() - began
            self.tally.seconds += took
            left = left - took if self._only is None else 0
            length = EVERY if left > 1.5 * EVERY else left
            await self._look()
        self._conclude()

    def _conclude(self) -> None:
        """What can be told only when all is over."""
        for number, seen in self._ledger.arrivals.items():
            for fault in seen.wrong[seen.judged :]:
                self.tally.add_wrong(fault.kind, f"{self._plan(number).describe()}\n  later: {fault.text}")
        for running in self._running.values():
            if UPSTREAM_SECRET in running.log():
                self.tally.add_wrong(WRONG, f"{running.server} logged a secret")
        for error in self._upstream.errors:
            self.tally.add_wrong(WRONG, f"the upstream failed: {error!r}")
        for line in self._ledger.unplanned:
            self.tally.add_wrong(WRONG, f"the upstream got what nobody sent: {line}")
        for door, samples in self.tally.samples.items():
            self.tally.leaks += [f"{door}: {leak}" for leak in leaks(samples[0], samples[-1], CALLERS)]

    async def _calls(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        async with asyncio.TaskGroup() as group:
            for door in self._doors:
                for _ in range(CALLERS):
                    group.create_task(self._call(door, partial(_before, end)))

    async def _call(self, door: Door, goes_on: Callable[[], bool]) -> None:
        caller = Caller(self._running[door].address)
        while goes_on() and (number := next(self._numbers[door], None)) is not None:
            plan = self._plan(number)
            answer = await caller.perform(plan)
            seen = self._ledger.arrivals[number]
            self.tally.add(plan, answer, judge(plan, answer, seen))
            seen.judged = len(seen.wrong)
        caller.leave()
        self.tally.reconnected += caller.reconnected

    async def _look(self) -> None:
        samples = await asyncio.gather(*map(settled, self._running.values()))
        for door, found in zip(self._running, samples, strict=True):
            self.tally.samples.setdefault(door, []).append(found)
            total, wrong = self.tally.requests[door], self.tally.wrong.total()
            self._progress(f"{self.tally.seconds:.0f} s, {door}: {total} requests, {wrong} wrong, {found}")


def _before(end: float) -> bool:
    return time.monotonic() < end

"""Callers who ask without a pause, each over a connection of their own to a worker process that is known."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Self

from tests.callers import OpenCall, RawResponse, open_call, request
from tests.wire import Address

# Seconds, for what takes no longer than ten.
SOON = 20.0

# Answers, as a status and whether it is the proxy's own.
Answer = tuple[int, bool]
FINE: Answer = (200, False)
REJECTED: Answer = (401, False)
UNUSABLE: Answer = (424, True)


def asked(connection_id: str) -> bytes:
    """A request to a connection's API."""
    return request("GET", f"/connections/{connection_id}/proxy/x")


def kind(answer: RawResponse) -> Answer:
    """What an answer is; it must be whole."""
    assert answer.complete
    return answer.status, answer.header(b"proxy-status") is not None


def until(condition: Callable[[], object]) -> None:
    """Waits for something that no event tells."""
    deadline = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Load:
    """As a context manager it asks for as long as the block lasts.

    Args:
        address: The server's.
        connection_id: What is asked for.
        workers: So many worker processes has the server; each has callers.
        each: So many.

    Attributes:
        callers: How many there are.
        pids: The workers.
    """

    def __init__(self, address: Address, connection_id: str, workers: int = 1, each: int = 2) -> None:
        self._address = address
        self._request = asked(connection_id)
        self._workers, self._each = workers, each
        self.callers = workers * each
        self.pids: Counter[int] = Counter()
        self._changed = threading.Condition()
        self._stopped = self._broken = False
        self._seen: set[Answer] = set()
        self._counts = [0] * self.callers
        self._last: list[Answer | None] = [None] * self.callers

    def settle(self) -> set[Answer]:
        """Waits until everyone got an answer to what they asked after this call; all answers since the last one."""
        with self._changed:
            # The next answer may be to what was asked before.
            enough = [count + 2 for count in self._counts]
            self._wait(lambda: all(count >= least for count, least in zip(self._counts, enough, strict=True)))
            return self._take()

    def wait_for(self, answer: Answer) -> set[Answer]:
        """Waits until this is what everyone got last; all answers since the last call."""
        with self._changed:
            self._wait(lambda: all(last == answer for last in self._last))
            return self._take()

    def _wait(self, condition: Callable[[], bool]) -> None:
        assert self._changed.wait_for(lambda: self._broken or condition(), SOON), (self._seen, self._last)
        assert not self._broken, "a caller has failed"

    def _take(self) -> set[Answer]:
        seen, self._seen = self._seen, set()
        return seen

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            calls = self._connect(stack)
            pool = stack.enter_context(ThreadPoolExecutor(len(calls), "caller"))
            self._results = [pool.submit(self._ask, index, opened) for index, opened in enumerate(calls)]
            stack.callback(self._stop)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()
        for result in self._results:
            result.result()

    def _connect(self, stack: ExitStack) -> list[OpenCall]:
        """Connects until every worker has its callers; who accepts a connection is a matter of chance."""
        deadline = time.monotonic() + SOON
        calls: list[OpenCall] = []
        while len(calls) < self.callers:
            assert time.monotonic() < deadline, self.pids
            opened = stack.enter_context(open_call(self._address, request("GET", "/"), timeout=SOON))
            pid = int(opened.read_rest().body)
            if self.pids[pid] < self._each:
                self.pids[pid] += 1
                calls.append(opened)
        assert len(self.pids) == self._workers
        return calls

    def _ask(self, index: int, opened: OpenCall) -> None:
        try:
            while not self._stopped:
                opened.send(self._request)
                self._note(index, kind(opened.read_rest()))
        except BaseException:
            with self._changed:
                self._broken = True
                self._changed.notify_all()
            raise

    def _note(self, index: int, answer: Answer) -> None:
        with self._changed:
            self._seen.add(answer)
            self._counts[index] += 1
            self._last[index] = answer
            self._changed.notify_all()

    def _stop(self) -> None:
        self._stopped = True

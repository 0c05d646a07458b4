"""How many requests a connection gets, without a server around it."""

import asyncio
import os
import threading
import time
from collections.abc import Callable

import pytest

from proxy_middleware import Connection, Credential, Proxy, StaticCredentials, StaticResolver, anyone
from proxy_middleware._admission import Admission
from proxy_middleware.errors import TooManyRequests
from proxy_middleware.models import Limits
from tests.in_process import Call


class Body:
    """What notes how a request leaves."""

    leave: Callable[[], None] | None = None


def admitted(admission: Admission, connection: str = "crm") -> Body:
    """The body of a request that was let in."""
    body = Body()
    admission.admit(connection, body)
    return body


def left(body: Body) -> None:
    """The request leaves."""
    assert body.leave is not None
    body.leave()


def let_in_together(admission: Admission, count: int) -> int:
    """How many of so many threads that ask at once are let in."""
    start, let_in = threading.Barrier(count), []

    def ask() -> None:
        start.wait(10)
        try:
            let_in.append(admitted(admission))
        except TooManyRequests:
            return

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    return len(let_in)


class TestConcurrency:
    def test_each_connection_counts_by_itself(self) -> None:
        """So many requests of one connection are let in, and as many of another."""
        admission = Admission(Limits(per_connection_concurrency=2))
        first, _ = admitted(admission), admitted(admission)
        with pytest.raises(TooManyRequests) as caught:
            admitted(admission)
        assert caught.value.fields == ((b"retry-after", b"1"),)
        admitted(admission, "other")
        left(first)
        admitted(admission)

    def test_nothing_is_kept_of_who_has_left(self) -> None:
        """A connection without requests takes no memory."""
        admission = Admission(Limits(per_connection_concurrency=1))
        for number in range(100):
            left(admitted(admission, f"c{number}"))
        assert not admission._under_way

    def test_leaving_never_waits(self) -> None:
        """Who leaves while another counts, as the garbage collector may have it in one thread, is counted later."""
        admission = Admission(Limits(per_connection_concurrency=1))
        body = admitted(admission)
        with admission._lock:
            left(body)
        admitted(admission)

    def test_cancelled_in_a_worker_thread(self, closed_port: int) -> None:
        """A request that is cancelled while its rate is counted in a thread leaves no place taken behind."""
        limits = Limits(per_connection_concurrency=1, rate="9/hour", rate_storage=f"redis://127.0.0.1:{closed_port}")
        proxy = Proxy(
            resolver=StaticResolver([Connection("crm", "https://api.example.com")]),
            credentials=StaticCredentials({"crm": Credential.bearer("secret")}),
            authenticate=anyone,
            limits=limits,
        )
        counting, go_on = threading.Event(), threading.Event()

        def take(connection_id: str) -> None:
            counting.set()
            assert go_on.wait(10)

        async def main() -> None:
            call = asyncio.create_task(Call().through(proxy))
            assert await asyncio.to_thread(counting.wait, 10)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            go_on.set()

        assert proxy._admission._rate is not None
        proxy._admission._rate.take = take  # type: ignore[method-assign]
        asyncio.run(main())
        assert not proxy._admission._under_way

    def test_threads(self) -> None:
        """However many threads ask at once, no more are let in."""
        assert let_in_together(Admission(Limits(per_connection_concurrency=5)), 32) == 5

    # From Python 3.12 on, forking beside threads is warned of; servers do it all the same.
    @pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
    def test_fork(self) -> None:
        """What is under way in a parent is not the child's."""
        admission = Admission(Limits(per_connection_concurrency=1))
        admitted(admission)
        child = os.fork()
        if not child:
            try:
                admitted(admission)
                os._exit(0)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


class TestRate:
    def test_moving_window(self) -> None:
        """More than the rate is refused, with the seconds until the oldest request falls out of the window."""
        admission = Admission(Limits(rate="2/minute"))
        assert not admission.blocks
        admitted(admission), admitted(admission)
        with pytest.raises(TooManyRequests) as caught:
            admitted(admission)
        ((name, seconds),) = caught.value.fields
        assert name == b"retry-after"
        assert 50 < int(seconds) <= 61
        admitted(admission, "other")

    def test_clock_that_jumps_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A wall clock that jumps back does not shut a connection until it is where it was; the rate counts on."""
        admission, real = Admission(Limits(rate="2/minute")), time.time
        admitted(admission), admitted(admission)
        monkeypatch.setattr(time, "time", lambda: real() - 5 * 3600)
        admitted(admission), admitted(admission)
        with pytest.raises(TooManyRequests):
            admitted(admission)

    @pytest.mark.parametrize("rate", ["", "fast", "2/fortnight", "-1/minute"])
    def test_malformed(self, rate: str) -> None:
        """A rate that cannot be understood is an error at construction."""
        with pytest.raises(ValueError, match=r"Limits\.rate"):
            Admission(Limits(rate=rate))

    @pytest.mark.parametrize("storage", ["bogus://x", "nonsense", "async+memory://"])
    def test_storage_that_there_is_not(self, storage: str) -> None:
        """A storage that cannot be understood is an error at construction, and not taken for one that is down."""
        with pytest.raises(ValueError, match="rate_storage"):
            Admission(Limits(rate="1/minute", rate_storage=storage))

    def test_first_use_by_many(self) -> None:
        """Threads that come first, all at once, count in one memory."""
        assert let_in_together(Admission(Limits(rate="1/hour")), 16) == 1

    def test_storage_that_is_down(self, closed_port: int, caplog: pytest.LogCaptureFixture) -> None:
        """A storage that cannot be reached stops nobody, and the log says so."""
        admission = Admission(Limits(rate="1/hour", rate_storage=f"redis://127.0.0.1:{closed_port}"))
        for _ in range(3):
            admitted(admission)
        assert "not limited" in caplog.text


@pytest.mark.parametrize("count", [0, -1])
def test_no_room_at_all(count: int) -> None:
    """A limit that would let nobody in is an error."""
    with pytest.raises(ValueError, match="per_connection_concurrency"):
        Limits(per_connection_concurrency=count)

"""Callers that leave: the upstream is let go of at once, everybody else is served, and nothing is left behind."""

import os
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import cycle
from typing import Protocol

import pytest

from tests.callers import OpenCall, open_call, request
from tests.integration.asking import ask, asked
from tests.integration.bulk import MIB, head_of, pieces_of, upload_head
from tests.servers import ASGI_SERVERS, WSGI_SERVERS, RunningServer, ServerFactory
from tests.upstreams import Exchange, ScriptedUpstream, response

OK = b"HTTP/1.1 200 OK\r\n"
EVENT = b"data: 1\n\n"
EVENTS = OK + b"Content-Type: text/event-stream\r\n\r\n" + EVENT
# Seconds after which an upstream must have been let go of.
AT_ONCE = 1.0
LARGE = 64 * 1024 * MIB

Watched = Callable[[Exchange], None]
Times = queue.SimpleQueue[float]


class StartHost(Protocol):
    """Starts the host of these tests under a server; other settings in its environment make it another server."""

    def __call__(self, server: str, **env: str) -> RunningServer:
        """Start it, or take the running one."""
        ...


@pytest.fixture
def start_host(server_factory: ServerFactory, shared_upstream: ScriptedUpstream) -> StartHost:
    """Starts the host of these tests under a server, with `shared_upstream` behind it."""

    def start(server: str, **env: str) -> RunningServer:
        app = "asgi_app" if server in ASGI_SERVERS else "wsgi_app"
        settings = {"UPSTREAM_URL": shared_upstream.url, **env}
        return server_factory(server, f"tests.integration.leaving_host:{app}", settings)

    return start


# What the upstream does until it is let go of: it returns then, or fails.


def _silent(exchange: Exchange) -> None:
    assert exchange.wait_closed(10)


def _idle_events(exchange: Exchange) -> None:
    exchange.send(EVENTS)
    assert exchange.wait_closed(10)


def _flowing(exchange: Exchange) -> None:
    exchange.send(head_of(LARGE, chunked=True))
    with suppress(ConnectionError):
        for piece in pieces_of(LARGE, chunked=True):
            exchange.send(piece)
        raise AssertionError("it was never let go of")


def _trickling(exchange: Exchange) -> None:
    exchange.send(EVENTS)
    for _ in range(100):
        if exchange.wait_closed(0.05):
            return
        exchange.send(EVENT)
    raise AssertionError("it was never let go of")


def _taking(exchange: Exchange) -> None:
    exchange.read(None)
    assert not exchange.request.complete


def _answering_early(exchange: Exchange) -> None:
    exchange.send(EVENTS)
    _taking(exchange)


ROUTES: dict[bytes, Watched] = {
    b"/silent": _silent,
    b"/lookup": _silent,
    b"/events": _idle_events,
    b"/flowing": _flowing,
    b"/trickling": _trickling,
    b"/upload": _taking,
    b"/answered": _answering_early,
}


@pytest.fixture
def let_go(shared_upstream: ScriptedUpstream) -> Times:
    """When the upstream was let go of, for each of its exchanges that follow the scripts above."""
    times: Times = queue.SimpleQueue()

    def noting(watched: Watched) -> Watched:
        def script(exchange: Exchange) -> None:
            watched(exchange)
            times.put(time.monotonic())

        return script

    for path, watched in ROUTES.items():
        shared_upstream.route(path, noting(watched))
    shared_upstream.route(b"/ok", response(body=b"ok"))
    return times


# What the caller does until it leaves.


def _wait(caller: OpenCall, upstream: ScriptedUpstream) -> None:
    """Until the upstream has the request."""
    count = len(upstream.requests)
    caller.send(asked("crm/proxy/silent"))
    upstream.wait_for_requests(count + 1)


def _wait_uploaded(caller: OpenCall, upstream: ScriptedUpstream) -> None:
    """The same, when all of an upload is on its way."""
    count = len(upstream.requests)
    caller.send(asked("crm/proxy/silent", "POST", body=b"x" * MIB))
    upstream.wait_for_requests(count + 1)


def _listen(caller: OpenCall, upstream: ScriptedUpstream) -> None:
    """Until it has an event, and no other comes."""
    caller.send(asked("crm/proxy/events"))
    assert caller.read(len(EVENT)) == EVENT


def _listen_on(caller: OpenCall, upstream: ScriptedUpstream) -> None:
    """While events come one after the other."""
    caller.send(asked("crm/proxy/trickling"))
    assert caller.read(len(EVENT)) == EVENT


def _download(caller: OpenCall, upstream: ScriptedUpstream) -> None:
    """In the middle of what the upstream sends as fast as it can."""
    caller.send(asked("crm/proxy/flowing"))
    assert len(caller.read(4 * MIB)) == 4 * MIB


def _upload(caller: OpenCall, upstream: ScriptedUpstream) -> None:
    """In the middle of an upload, of which the upstream has something already."""
    count = len(upstream.requests)
    caller.send(upload_head("crm/proxy/upload", 8 * MIB, chunked=False) + b"x" * MIB)
    upstream.wait_for_requests(count + 1)


def _upload_chunks(caller: OpenCall, upstream: ScriptedUpstream) -> None:
    """In the middle of a chunk."""
    count = len(upstream.requests)
    caller.send(upload_head("crm/proxy/upload", 0, chunked=True) + b"100000\r\n" + b"x" * (MIB // 2))
    upstream.wait_for_requests(count + 1)


def _upload_answered(caller: OpenCall, upstream: ScriptedUpstream) -> None:
    """In the middle of an upload that the upstream answers already."""
    caller.send(upload_head("crm/proxy/answered", 8 * MIB, chunked=False) + b"x" * MIB)
    assert caller.read(len(EVENT)) == EVENT


def _be_looked_up(caller: OpenCall, upstream: ScriptedUpstream) -> None:
    """While the resolver, an `async def`, still waits for an answer."""
    count = len(upstream.requests)
    caller.send(asked("remote/proxy/x"))
    upstream.wait_for_requests(count + 1)


MOMENTS = {
    "waiting": _wait,
    "uploaded": _wait_uploaded,
    "events": _listen,
    "download": _download,
    "upload": _upload,
    "upload in chunks": _upload_chunks,
    "upload answered": _upload_answered,
    "resolver": _be_looked_up,
    "trickling": _listen_on,
}


# These show the caller's socket to the application, which looks at it while it waits.
PEEKED = ("gunicorn-gthread", "gunicorn-sync", "werkzeug")
# A thread that waits for the rest of an upload does not see that the upstream has answered; a transport of httpx, which
# serves under trio, does not look before all of it is sent.
UNDER_WSGI = [moment for moment in MOMENTS if moment not in ("upload answered", "resolver")]
UNDER_TRIO = [moment for moment in MOMENTS if moment != "upload answered"]


def _moments_on(server: str) -> list[str]:
    """When a caller can leave so that the server lets go of the upstream by itself."""
    if server == "hypercorn-trio":
        return UNDER_TRIO
    if server in ASGI_SERVERS:
        return [*MOMENTS]
    return UNDER_WSGI if server in PEEKED else ["trickling"]


NOTICED = [(server, moment) for server in (*ASGI_SERVERS, *PEEKED) for moment in _moments_on(server)]


@pytest.mark.parametrize(("server", "moment"), NOTICED)
@pytest.mark.parametrize("leave", ["closed", "reset"])
def test_upstream_is_let_go_of(
    server: str, moment: str, leave: str, start_host: StartHost, shared_upstream: ScriptedUpstream, let_go: Times
) -> None:
    """The connection to the upstream is closed within a second after the caller has left; the next one is served."""
    running = start_host(server)
    with open_call(running.address) as caller:
        MOMENTS[moment](caller, shared_upstream)
        left = time.monotonic()
        caller.abandon() if leave == "reset" else caller.sock.close()
    assert let_go.get(timeout=10) - left < AT_ONCE
    assert len(shared_upstream.requests) == 1
    assert ask(running.address, "crm/proxy/ok").body == b"ok"


@pytest.mark.parametrize("server", ["waitress", "granian-wsgi"])
@pytest.mark.parametrize("leave", ["closed", "reset"])
def test_upstream_is_let_go_of_at_the_next_yield(
    server: str, leave: str, start_host: StartHost, shared_upstream: ScriptedUpstream, let_go: Times
) -> None:
    """Where nothing shows the caller, that is so when what the upstream sends can no longer be delivered."""
    running = start_host(server)
    with open_call(running.address) as caller:
        _listen_on(caller, shared_upstream)
        caller.abandon() if leave == "reset" else caller.sock.close()
    let_go.get(timeout=10)
    assert ask(running.address, "crm/proxy/ok").body == b"ok"


def _come_and_go(running: RunningServer, upstream: ScriptedUpstream, let_go: Times, moments: Sequence[str]) -> None:
    """A caller for each moment, all at the same time; half of them close their connection, half of them reset it."""
    with ExitStack() as stack:
        callers = [stack.enter_context(open_call(running.address)) for _ in moments]
        for caller, moment in zip(callers, moments, strict=True):
            MOMENTS[moment](caller, upstream)
        for number, caller in enumerate(callers):
            caller.abandon() if number % 2 else caller.sock.close()
    for _ in moments:
        let_go.get(timeout=10)


class Remains:
    """What a server has open and under way, compared with what it had at first."""

    # Far below the number of callers: what has been started for the first of them, and may stay.
    TOLERATED = 4

    def __init__(self, running: RunningServer, asking: OpenCall | None) -> None:
        self._running = running
        self._asking = asking
        self._files, self._tasks = self._count_files(), self._count_tasks()

    @classmethod
    @contextmanager
    def of(cls, running: RunningServer) -> Iterator["Remains"]:
        """What there is now. An event loop is asked for its tasks on a connection of our own, which stays open."""
        if running.server in ASGI_SERVERS:
            with open_call(running.address) as asking:
                yield cls(running, asking)
        else:
            yield cls(running, None)

    def check(self) -> None:
        """There is no more of anything now."""
        deadline = time.monotonic() + 10  # hypercorn keeps connections that have ended for 5 seconds
        while self._count_files() > self._files + self.TOLERATED or self._count_tasks() > self._tasks + self.TOLERATED:
            assert time.monotonic() < deadline, (self._files, self._count_files(), self._tasks, self._count_tasks())
            time.sleep(0.05)

    def _count_files(self) -> int:
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in self._running.pids())

    def _count_tasks(self) -> int:
        if self._asking is None:
            return 0
        self._asking.send(request("GET", "/tasks"))
        return int(self._asking.read_rest().body.split(b" ")[0])


CLOSING = [("Connection", "close")]
# Callers at a time, and how often: with one thread left for somebody else, unless there is but one.
CROWDS = {
    **dict.fromkeys(ASGI_SERVERS, (50, 1)),
    **dict.fromkeys((*WSGI_SERVERS, "granian-wsgi"), (7, 8)),
    "gunicorn-sync": (1, 16),
}


@pytest.mark.parametrize("server", CROWDS)
def test_nothing_is_left_behind(
    server: str, start_host: StartHost, shared_upstream: ScriptedUpstream, let_go: Times
) -> None:
    """After 50 callers have left nothing is open or under way that was not before; others are served meanwhile."""
    running, go_on = start_host(server, CALLERS="50"), threading.Event()

    def steady(exchange: Exchange) -> None:
        exchange.send(EVENTS)
        exchange.wait(go_on, 30)
        exchange.send(EVENT)
        exchange.close()

    shared_upstream.route(b"/steady", steady)
    (at_once, rounds), usable = CROWDS[server], cycle(_moments_on(server))
    assert ask(running.address, "crm/proxy/ok", fields=CLOSING).body == b"ok"
    with ExitStack() as stack:
        remains = stack.enter_context(Remains.of(running))
        caller = stack.enter_context(open_call(running.address, asked("crm/proxy/steady", fields=CLOSING)))
        if at_once == 1:
            go_on.set()
            assert caller.read_rest().body == EVENT * 2
        else:
            assert caller.read(len(EVENT)) == EVENT
        for _ in range(rounds):
            _come_and_go(running, shared_upstream, let_go, [next(usable) for _ in range(at_once)])
        if at_once > 1:
            go_on.set()
            rest = caller.read_rest()
            assert (rest.body, rest.complete) == (EVENT, True)
        assert ask(running.address, "crm/proxy/ok", fields=CLOSING).body == b"ok"
        remains.check()


COMPLAINT = re.compile("Traceback|[Ee]xception|never (retrieved|awaited)|ERROR|CRITICAL")


@pytest.mark.parametrize("server", CROWDS)
def test_leaving_is_no_error(
    server: str, start_host: StartHost, shared_upstream: ScriptedUpstream, let_go: Times
) -> None:
    """To leave is everybody's right: the server's log holds no complaint, and no line for each piece of a download."""
    running, (at_once, _) = start_host(server, CALLERS="50"), CROWDS[server]
    before = running.log()
    # Each moment twice, one right after the other, so that it is left by closing and by resetting.
    moments = [moment for moment in _moments_on(server) if moment != "upload answered" for _ in range(2)]
    for first in range(0, len(moments), at_once):
        _come_and_go(running, shared_upstream, let_go, moments[first : first + at_once])
    assert ask(running.address, "crm/proxy/ok", fields=CLOSING).body == b"ok"
    lines = running.log().removeprefix(before).splitlines()
    assert not [line for line in lines if COMPLAINT.search(line)][:5]
    # Granian says a line for each send until the leaving is noticed; draining the download would make thousands.
    assert len(lines) < 200, lines[-5:]

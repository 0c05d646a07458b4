"""A thousand callers that leave whenever they like: nothing is left of them, and whoever comes next is served."""

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from tests.callers import OpenCall, call, open_call
from tests.integration.asking import asked
from tests.integration.bulk import MIB, upload_head
from tests.integration.test_leaving import CLOSING, EVENT, EVENTS, Remains
from tests.servers import ASGI_SERVERS, RunningServer, ServerFactory
from tests.soak.samples import sample
from tests.upstreams import Exchange, Script, ScriptedUpstream, response
from tests.wire import chunked

CALLERS = 1000
# Of them at a time; gunicorn has 8 threads, and queues the others.
AT_ONCE = 20
SEED = 20
UPLOAD = 256 * 1024
PIECE = b"x" * 16 * 1024
# Seconds until the last of them must be forgotten, and bytes that they may cost together.
SETTLE, MEMORY = 5.0, 32 * MIB

Leave = Callable[[OpenCall, random.Random], None]


# What the upstream does until it is let go of.


def _silent(exchange: Exchange) -> None:
    assert exchange.wait_closed(10)


def _taking(exchange: Exchange) -> None:
    exchange.read(None)
    if exchange.request.complete:
        exchange.send(response(body=b"all of it"))


def _flowing(exchange: Exchange) -> None:
    exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    with suppress(ConnectionError):
        while not exchange.wait_closed(0.001):
            exchange.send(chunked(PIECE).removesuffix(b"0\r\n\r\n"))


def _events(exchange: Exchange) -> None:
    exchange.send(EVENTS)
    while not exchange.wait_closed(0.02):
        exchange.send(EVENT)


# What a caller does until it leaves. The generator says when.


def _connect(caller: OpenCall, chance: random.Random) -> None:
    """Nothing at all."""


def _begin(caller: OpenCall, chance: random.Random) -> None:
    """A part of a request's head."""
    head = asked("crm/proxy/silent", fields=[("X-A", "a" * 200)])
    caller.send(head[: chance.randrange(1, len(head) - 1)])


def _upload(caller: OpenCall, chance: random.Random) -> None:
    """A part of an upload, whose length is known or not."""
    framed = chance.random() < 0.5
    body = chunked(*[PIECE] * (UPLOAD // len(PIECE))) if framed else b"x" * UPLOAD
    caller.send(upload_head("crm/proxy/taking", UPLOAD, chunked=framed) + body[: chance.randrange(len(body))])


def _wait(caller: OpenCall, chance: random.Random) -> None:
    """A whole request, and some patience."""
    caller.send(asked("crm/proxy/silent"))
    time.sleep(chance.random() * 0.05)


def _download(caller: OpenCall, chance: random.Random) -> None:
    """Takes some of a response."""
    caller.send(asked("crm/proxy/flowing"))
    caller.read(chance.randrange(4 * len(PIECE)))


def _listen(caller: OpenCall, chance: random.Random) -> None:
    """Takes some events."""
    caller.send(asked("crm/proxy/events"))
    caller.read(chance.randrange(3 * len(EVENT)))


MOMENTS: dict[Leave, int] = {_connect: 4, _begin: 4, _upload: 4, _wait: 1, _download: 3, _listen: 1}


class UnderWay:
    """Counts the exchanges that an upstream has under way."""

    def __init__(self) -> None:
        self.now = 0
        self._lock = threading.Lock()

    def counting(self, script: Script) -> Script:
        """The same script, counted."""

        def counted(exchange: Exchange) -> None:
            self._add(1)
            try:
                script(exchange)
            finally:
                self._add(-1)

        return counted

    def _add(self, number: int) -> None:
        with self._lock:
            self.now += number


@pytest.fixture
def under_way(shared_upstream: ScriptedUpstream) -> UnderWay:
    """What the upstream has under way of the scripts above."""
    counts = UnderWay()
    for script in (_silent, _taking, _flowing, _events):
        shared_upstream.route(b"/" + script.__name__[1:].encode(), counts.counting(script))
    return counts


def come_and_go(running: RunningServer, seed: int, count: int) -> None:
    """So many callers, one after the other, that leave; half of them by RST."""
    chance = random.Random(seed)
    moments = chance.choices(list(MOMENTS), list(MOMENTS.values()), k=count)
    for moment in moments:
        with open_call(running.address) as caller:
            with suppress(ConnectionError):
                moment(caller, chance)
            if chance.random() < 0.5:
                caller.abandon()


def crowd(running: RunningServer, seed: int, count: int) -> None:
    """The same, some of them at a time."""
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for done in [threads.submit(come_and_go, running, seed + n, count // AT_ONCE) for n in range(AT_ONCE)]:
            done.result()


@pytest.fixture
def running(server: str, server_factory: ServerFactory, shared_upstream: ScriptedUpstream) -> RunningServer:
    """A server of these tests' own, that has answered once."""
    app = "asgi_app" if server in ASGI_SERVERS else "wsgi_app"
    env = {"UPSTREAM_URL": shared_upstream.url, "CALLERS": str(CALLERS)}
    started = server_factory(server, f"tests.integration.leaving_host:{app}", env)
    assert served(started) == 200
    return started


def served(running: RunningServer) -> int:
    """The status of a request by somebody who stays for it."""
    return call(running.address, asked("crm/proxy/x", fields=CLOSING)).status


@pytest.mark.parametrize("server", ["uvicorn-httptools", "gunicorn-gthread"])
def test_thousand_callers_leave(running: RunningServer, shared_upstream: ScriptedUpstream, under_way: UnderWay) -> None:
    """Descriptors, tasks, threads, memory and places are what they were; no upload that was cut looks whole."""
    with Remains.of(running) as remains:
        crowd(running, SEED, 5 * AT_ONCE)  # Whatever is made once for a crowd is there then.
        before = sample(running)
        crowd(running, SEED + AT_ONCE, CALLERS)
        remains.check()
        after = sample(running)
    assert after.threads <= before.threads + 2
    assert after.memory < before.memory + MEMORY, (before, after)
    deadline = time.monotonic() + SETTLE
    while under_way.now:
        assert time.monotonic() < deadline, under_way.now
        time.sleep(0.02)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        # More than there are places to an origin.
        assert set(threads.map(served, [running] * 150)) == {200}
    uploads = [seen for seen in shared_upstream.requests if seen.target == b"/taking"]
    assert len(uploads) > CALLERS // 10
    assert not any(seen.wait_ended() for seen in uploads)

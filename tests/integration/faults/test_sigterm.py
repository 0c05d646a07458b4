"""A server that is told to end while responses stream: none of them ends as if it were whole."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.callers import open_call
from tests.integration.asking import asked
from tests.integration.test_leaving import EVENT, EVENTS
from tests.servers import ASGI_SERVERS, RunningServer, start
from tests.upstream.blocking import until
from tests.upstreams import Exchange, ScriptedUpstream

# Seconds that a server gives its requests, and how many more it may take until it is gone.
GRACE, MARGIN = 1, 8
SETTINGS = {
    "UVICORN_TIMEOUT_GRACEFUL_SHUTDOWN": str(GRACE),
    "GUNICORN_CMD_ARGS": f"--graceful-timeout {GRACE}",
}
OK = b"HTTP/1.1 200 OK\r\n"
# Each with the bytes that have come when the server is told.
STREAMS = {
    b"/length": OK + b"Content-Length: 100\r\n\r\nhello",
    b"/chunks": OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    b"/until-close": OK + b"\r\nhello",
    b"/events": EVENTS,
}


@pytest.fixture
def running(server: str, upstream: ScriptedUpstream) -> Iterator[RunningServer]:
    """A server of this test's own, which gives its requests one second to end."""
    app = "asgi_app" if server in ASGI_SERVERS else "wsgi_app"
    started = start(server, f"tests.hosts:{app}", {"UPSTREAM_URL": upstream.url, **SETTINGS})
    yield started
    started.kill()
    started.remove_log()


@pytest.mark.parametrize("server", ["uvicorn-httptools", "gunicorn-gthread"])
def test_streams_of_a_server_that_ends(server: str, running: RunningServer, upstream: ScriptedUpstream) -> None:
    """What ends in time is whole, everything else is broken, and with the server its upstream connections are gone."""
    told, closed = threading.Event(), []

    def endless(exchange: Exchange) -> None:
        exchange.send(STREAMS[exchange.request.target])
        closed.append(exchange.wait_closed(GRACE + MARGIN))
        exchange.ended = True

    def ending(exchange: Exchange) -> None:
        exchange.send(STREAMS[b"/chunks"])
        exchange.wait(told)
        exchange.send(b"6\r\n world\r\n0\r\n\r\n")

    for path in STREAMS:
        upstream.route(path, endless)
    upstream.route(b"/ending", ending)
    with ExitStack() as stack:
        callers = [stack.enter_context(open_call(running.address)) for _ in range(len(STREAMS) + 1)]
        for caller, path in zip(callers, (b"/ending", *STREAMS), strict=True):
            caller.send(asked(f"root/proxy{path.decode()}"))
            assert caller.read(5) in (b"hello", EVENT[:5])
        os.kill(running.pid, signal.SIGTERM)
        told.set()
        whole, *others = [caller.read_rest() for caller in callers]
        running._process.wait(GRACE + MARGIN)
    assert (whole.body, whole.complete) == (b" world", True)
    assert [answer.complete for answer in others] == [False] * len(STREAMS)
    until(lambda: len(closed) == len(STREAMS))
    assert closed == [True] * len(STREAMS)

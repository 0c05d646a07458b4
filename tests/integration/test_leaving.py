"""Callers that leave: the upstream is let go of at once, everybody else is served, and nothing is left behind."""

import os
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import psutil
import pytest

from tests.callers import OpenCall, call, open_call, request
from tests.integration.asking import ask, asked
from tests.integration.bulk import MIB, head_of, pieces_of, upload_head
from tests.servers import ASGI_SERVERS, WSGI_SERVERS, RunningServer, ServerFactory
from tests.upstreams import Exchange, ScriptedUpstream, response

OK = b"HTTP/1.1 200 OK\r\n"
EVENT = b"data: 1\n\n"
EVENTS = OK + b"Content-Type: text/event-stream\r\n\r\n" + EVENT
# Seconds until an upstream must have been let go of.
AT_ONCE = 1.0
LARGE = 64 * 1024 * MIB

Watched = Callable[[Exchange], None]
StartHost = Callable[[str], RunningServer]


@pytest.fixture
def start_host(server_factory: ServerFactory, shared_upstream: ScriptedUpstream) -> StartHost:
    """Starts the host of these tests under a server, with `shared_upstream` behind it."""

    def start(server: str) -> RunningServer:
        app = "asgi_app" if server in ASGI_SERVERS else "wsgi_app"
        env = {"UPSTREAM_URL": shared_upstream.url}
        return server_factory(server, f"tests.integration.leaving_host:{app}", env)

    return start


# What the upstream does until it is let go of: it returns then, or fails.


def _silent(exchange: Exchange) -> None:
    assert exchange.wait_closed(10)


def _idle_events(exchange: Exchange) -> None:
    exchange.send(EVENTS)
    assert exchange.wait_closed(10)


def _flowing(exchange: Exchange) -> None:
    exchange.send(head_of(LARGE, chunked=True))
    with pytest.raises(ConnectionError):
        for piece in pieces_of(LARGE, chunked=True):
            exchange.send(piece)


def _trickling(exchange: Exchange) -> None:
    exchange.send(EVENTS)
    for _ in range(100):
        if exchange.wait_closed(0.05):
            return
        exchange.send(EVENT)
    pytest.fail("it was never let go of")


def _taking(exchange: Exchange) -> None:
    exchange.read(None)
    assert not exchange.request.complete


ROUTES: dict[bytes, Watched] = {
    b"/silent": _silent,
    b"/lookup": _silent,
    b"/events": _idle_events,
    b"/flowing": _flowing,
    b"/trickling": _trickling,
    b"/upload": _taking,
    b"/steps": _taking,
}


@pytest.fixture
def let_go(shared_upstream: ScriptedUpstream) -> "queue.SimpleQueue[float]":
    """When the upstream was let go of, for each of its exchanges that follow the scripts above."""
    times: queue.SimpleQueue[float] = queue.SimpleQueue()

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


def _listen(caller: OpenCall, upstream: ScriptedUpstream) -> None:
    """Until it has an event, and no other comes."""
    caller.send(asked("crm/proxy/events"))
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


def _be_looked_up(caller: OpenCall, upstream: ScriptedUpstream) -> None:
    """While the resolver, an `async def`, still waits for an answer."""
    count = len(upstream.requests)
    caller.send(asked("remote/proxy/x"))
    upstream.wait_for_requests(count + 1)


MOMENTS = {
    "waiting": _wait,
    "events": _listen,
    "download": _download,
    "upload": _upload,
    "upload in chunks": _upload_chunks,
    "resolver": _be_looked_up,
}


@pytest.mark.parametrize("server", ASGI_SERVERS)
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("leave", ["closed", "reset"])
def test_upstream_is_let_go_of(
    server: str,
    moment: str,
    leave: str,
    start_host: StartHost,
    shared_upstream: ScriptedUpstream,
    let_go: "queue.SimpleQueue[float]",
) -> None:
    """Under ASGI, the connection to the upstream is closed within a second after the caller has left."""
    running = start_host(server)
    with open_call(running.address) as caller:
        MOMENTS[moment](caller, shared_upstream)
        left = time.monotonic()
        caller.abandon() if leave == "reset" else caller.sock.close()
    assert let_go.get(timeout=10) - left < AT_ONCE
    assert len(shared_upstream.requests) == 1
    assert ask(running.address, "crm/proxy/ok").body == b"ok"

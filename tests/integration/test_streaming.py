"""Bodies are passed on as they come, either way, whatever their size and whoever is slow."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress

import pytest

from tests.callers import open_call
from tests.conftest import StartProxy
from tests.integration.asking import SERVERS, ask, asked, check_problem
from tests.integration.bulk import (
    GIB,
    MIB,
    Comparison,
    comparing,
    download,
    flat_memory,
    head_of,
    pieces_of,
    sending,
    upload_head,
)
from tests.integration.conftest import ProxyServer
from tests.servers import ASGI_SERVERS, RunningServer
from tests.upstreams import Exchange, ScriptedUpstream
from tests.wire import Wire

OK = b"HTTP/1.1 200 OK\r\n"
ALL_SERVERS = (*SERVERS, "granian-wsgi")
MEMORY = 32 * MIB
# It keeps up to 16 MiB that the caller has not taken yet, and moves them about: a bare application costs the same.
WAITRESS_MEMORY = 64 * MIB
ServerAlone = Callable[[str], RunningServer]


@pytest.fixture
def server_alone(start_proxy: StartProxy, shared_upstream: ScriptedUpstream) -> ServerAlone:
    """Starts a server that only the large bodies go through, so that no other test has driven its peak up."""

    def start(server: str) -> RunningServer:
        running = start_proxy(server, connections={"bulk": {}})
        shared_upstream.script(sending(MIB, chunked=True))
        assert len(ask(running.address, "bulk/proxy/x").body) == MIB
        return running

    return start


# One that is large by any measure through either door; the others are large beside the memory that they may cost.
LARGE = 256 * MIB
DOWN = [
    ("uvicorn-httptools", False, LARGE),
    ("uvicorn-httptools", True, GIB),
    ("granian", True, LARGE),
    ("gunicorn-gthread", False, LARGE),
    ("gunicorn-gthread", True, GIB),
    ("waitress", False, LARGE),
]


@pytest.mark.parametrize(("server", "chunked", "size"), DOWN)
def test_large_download(
    server: str, chunked: bool, size: int, server_alone: ServerAlone, shared_upstream: ScriptedUpstream
) -> None:
    """A large body arrives whole, and passes through without being collected."""
    running, limit = server_alone(server), WAITRESS_MEMORY if server == "waitress" else MEMORY
    shared_upstream.script(sending(size, chunked=chunked))
    with flat_memory(running, size, limit), open_call(running.address, asked("bulk/proxy/x")) as opened:
        assert download(Wire(opened.sock)) == (size, True)


# Not waitress: it collects a request's body, in a file, before it calls the application.
UP = [
    ("uvicorn-httptools", False, LARGE),
    ("uvicorn-httptools", True, GIB),
    ("granian", True, LARGE),
    ("gunicorn-gthread", False, LARGE),
    ("gunicorn-gthread", True, GIB),
]


@pytest.mark.parametrize(("server", "chunked", "size"), UP)
def test_large_upload(
    server: str, chunked: bool, size: int, server_alone: ServerAlone, shared_upstream: ScriptedUpstream
) -> None:
    """A large body goes out whole, and passes through without being collected."""
    running, arrived = server_alone(server), Comparison()
    shared_upstream.script(comparing(arrived))
    with flat_memory(running, size, MEMORY), open_call(running.address) as opened:
        opened.send(upload_head("bulk/proxy/x", size, chunked=chunked))
        for piece in pieces_of(size, chunked=chunked):
            opened.send(piece)
        assert opened.read_rest().body == b"ok"
    seen = shared_upstream.requests[-1]
    assert (arrived.count, seen.complete) == (size, True)
    assert seen.header(b"content-length") == (None if chunked else b"%d" % size)


PARTS = (b"data: first\n\n", bytes(range(256)), b"\r\n0\r\n\r\n")
FRAMINGS = {
    "events": (b"Content-Type: text/event-stream\r\n\r\n", PARTS),
    "events in chunks": (
        b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
        tuple(b"%x\r\n%b\r\n" % (len(part), part) for part in PARTS),
    ),
    "chunks": (b"Transfer-Encoding: chunked\r\n\r\n", tuple(b"%x\r\n%b\r\n" % (len(part), part) for part in PARTS)),
    "length": (b"Content-Length: %d\r\n\r\n" % sum(map(len, PARTS)), PARTS),
}


# Not chunks on Granian's WSGI: it could not break the transfer off, so that what has no length is spooled.
PARTED = [(server, framing) for server in ALL_SERVERS for framing in FRAMINGS]
PARTED.remove(("granian-wsgi", "chunks"))


@pytest.mark.parametrize(("server", "framing"), PARTED)
def test_parts_arrive_as_they_are_sent(
    server: str, framing: str, proxy_server: ProxyServer, shared_upstream: ScriptedUpstream
) -> None:
    """Each part is at the caller, as it was sent, before the upstream sends the next one."""
    head, parts = FRAMINGS[framing]
    arrived = [threading.Event() for _ in parts]

    @shared_upstream.script
    def script(exchange: Exchange) -> None:
        exchange.send(OK + head)
        for part, event in zip(parts, arrived, strict=True):
            exchange.send(part)
            exchange.wait(event)
        if b"chunked" in head:
            exchange.send(b"0\r\n\r\n")
        elif framing == "events":
            exchange.close()

    with open_call(proxy_server(server).address, asked("crm/proxy/x")) as opened:
        for part, event in zip(PARTS, arrived, strict=True):
            assert opened.read(len(part)) == part
            event.set()
        rest = opened.read_rest()
    assert (rest.body, rest.complete) == (b"", True)


@pytest.mark.parametrize("server", ASGI_SERVERS)
def test_head_arrives_before_the_body(
    server: str, proxy_server: ProxyServer, shared_upstream: ScriptedUpstream
) -> None:
    """Under ASGI the head is at the caller before any of the body is there; WSGI waits for a first byte (502)."""
    arrived = threading.Event()

    @shared_upstream.script
    def script(exchange: Exchange) -> None:
        exchange.send(OK + b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        exchange.wait(arrived)
        exchange.send(b"0\r\n\r\n")

    with open_call(proxy_server(server).address, asked("crm/proxy/x")) as opened:
        assert opened.read_head().status == 200
        arrived.set()
        assert opened.read_rest().complete


# Not waitress: it collects a request's body before it calls the application. Not chunks on Granian's WSGI, which does
# not tell whether such a body came to its end: 411.
UPLOADS = [(server, chunked) for server in ALL_SERVERS if server != "waitress" for chunked in (False, True)]
UPLOADS.remove(("granian-wsgi", True))
# WSGI has no "as much as there is": servers read on until they have what the door asked for, or the body ends.
READ_AT_ONCE = dict.fromkeys(("gunicorn-gthread", "gunicorn-sync", "werkzeug", "granian-wsgi"), 64 * 1024)


@pytest.mark.parametrize(("server", "chunked"), UPLOADS)
def test_upload_arrives_as_it_is_sent(
    server: str, chunked: bool, proxy_server: ProxyServer, shared_upstream: ScriptedUpstream
) -> None:
    """The upstream has the first part of an upload before the caller sends the second."""
    part = b"p" * READ_AT_ONCE.get(server, 100)
    arrived = threading.Event()

    @shared_upstream.script
    def script(exchange: Exchange) -> None:
        assert exchange.read(len(part)) == part
        arrived.set()
        exchange.read(None)
        exchange.send(OK + b"Content-Length: 2\r\n\r\nok")

    framed = b"%x\r\n%b\r\n" % (len(part), part) if chunked else part
    with open_call(proxy_server(server).address, upload_head("crm/proxy/x", 2 * len(part), chunked=chunked)) as opened:
        opened.send(framed)
        assert arrived.wait(5)
        opened.send(framed + b"0\r\n\r\n" * chunked)
        assert opened.read_rest().body == b"ok"
    assert shared_upstream.requests[0].body == part * 2


BREAKING = [(server, chunked) for server in SERVERS for chunked in (False, True)]


@pytest.mark.parametrize(("server", "chunked"), [*BREAKING, ("granian-wsgi", False)])
def test_large_response_breaks_off(
    server: str, chunked: bool, proxy_server: ProxyServer, shared_upstream: ScriptedUpstream
) -> None:
    """A response that breaks off while it flows never ends properly at the caller."""

    @shared_upstream.script
    def script(exchange: Exchange) -> None:
        exchange.send(head_of(2 * MIB, chunked=chunked))
        for piece in pieces_of(MIB, chunked=False):
            exchange.send(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        exchange.close()

    with open_call(proxy_server(server).address, asked("crm/proxy/x")) as opened:
        count, complete = download(Wire(opened.sock))
    assert 0 < count <= MIB
    assert not complete


def test_response_without_a_length_breaks_off_under_granian_wsgi(
    proxy_server: ProxyServer, shared_upstream: ScriptedUpstream
) -> None:
    """Granian's WSGI would end it properly, so that it is held back, and a clean 502."""

    @shared_upstream.script
    def script(exchange: Exchange) -> None:
        exchange.send(OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        exchange.close()

    answer = ask(proxy_server("granian-wsgi").address, "crm/proxy/x")
    check_problem(answer, 502, "connection", "upstream_unreachable", "connection_terminated")


# What the kernel holds for the server's sockets; the one that reads nothing is kept narrow.
ON_THE_WAY = 24 * MIB
SLOW = 64 * MIB
SLOW_SERVERS = ("uvicorn-httptools", "granian", "hypercorn-trio", "gunicorn-gthread")


def _narrow(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MIB // 4)


def _send_until_stuck(sock: socket.socket, body: bytes) -> int:
    """Sends until nothing more goes out for half a second; how many bytes went."""
    sock.settimeout(0.5)
    sent = 0
    with suppress(TimeoutError):
        while sent < len(body):
            sent += sock.send(memoryview(body)[sent : sent + MIB])
    return sent


@pytest.mark.parametrize("server", SLOW_SERVERS)
def test_slow_caller(server: str, proxy_server: ProxyServer, shared_upstream: ScriptedUpstream) -> None:
    """While the caller reads nothing the upstream gets no more than a few MiB rid of; afterwards all of it arrives."""
    sent: list[int] = []
    stuck = threading.Event()

    @shared_upstream.script
    def script(exchange: Exchange) -> None:
        exchange.send(head_of(SLOW, chunked=False))
        body = b"".join(pieces_of(SLOW, chunked=False))
        sent.append(_send_until_stuck(exchange.sock, body))
        stuck.set()
        exchange.sock.settimeout(10)
        exchange.send(body[sent[0] :])

    with open_call(proxy_server(server).address) as opened:
        _narrow(opened.sock)
        opened.send(asked("crm/proxy/x"))
        assert stuck.wait(20)
        assert 0 < sent[0] < ON_THE_WAY
        assert download(Wire(opened.sock)) == (SLOW, True)


@pytest.mark.parametrize("server", SLOW_SERVERS)
def test_slow_upstream(server: str, start_proxy: StartProxy, shared_upstream: ScriptedUpstream) -> None:
    """While the upstream reads nothing the caller gets no more than a few MiB rid of; afterwards all of it arrives."""
    arrived, stuck = Comparison(), threading.Event()

    @shared_upstream.script
    def script(exchange: Exchange) -> None:
        _narrow(exchange.sock)
        exchange.wait(stuck, 20)
        comparing(arrived)(exchange)

    body = b"".join(pieces_of(SLOW, chunked=False))
    with open_call(start_proxy(server, connections={"slow": {}}).address) as opened:
        opened.send(upload_head("slow/proxy/x", SLOW, chunked=False))
        sent = _send_until_stuck(opened.sock, body)
        assert 0 < sent < ON_THE_WAY
        stuck.set()
        opened.sock.settimeout(10)
        opened.send(body[sent:])
        assert opened.read_rest().body == b"ok"
    assert arrived.count == SLOW

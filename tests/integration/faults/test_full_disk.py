"""A disk that is full while something is spooled: what needs no second try goes on, and nothing cut looks whole.

The servers may write files of 100,000 bytes only, so that the last write is a short one, as it is on a real disk.
"""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.asking import ask
from tests.servers import ASGI_SERVERS, RunningServer, ServerFactory
from tests.upstream.blocking import until
from tests.upstreams import Exchange, ScriptedUpstream, response
from tests.wire import Fields, chunked

FILE_SIZE = 100_000
KIB = 1024
# Longer than memory and disk together, and no piece of it is like another.
CONTENT = random.Random(1).randbytes(600 * KIB)
PIECE = 7000
PIECES = [CONTENT[at : at + PIECE] for at in range(0, len(CONTENT), PIECE)]
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
SERVERS = ("uvicorn-httptools", "gunicorn-gthread")


@pytest.fixture
def running(server: str, server_factory: ServerFactory, shared_upstream: ScriptedUpstream) -> RunningServer:
    """A server that spools every response without a length, and has next to no disk for it."""
    app = "asgi_app" if server in ASGI_SERVERS else "wsgi_app"
    options = {"spool_unframed": "always", "replay": {"memory": 16 * KIB, "disk": 4 * 1024 * KIB}}
    env = {
        "UPSTREAM_URL": shared_upstream.url,
        "PROXY_OPTIONS": json.dumps(options),
        "FILE_SIZE": str(FILE_SIZE),
    }
    return server_factory(server, f"tests.integration.faults.scarce_host:{app}", env)


@pytest.fixture(autouse=True)
def nothing_left(running: RunningServer) -> Iterator[None]:
    """Whatever a test does, no temporary file is left open."""
    before = _unnamed_files(running)
    yield
    until(lambda: _unnamed_files(running) == before)


def _unnamed_files(running: RunningServer) -> int:
    """How many files without a name a server holds open (Linux)."""
    links = [link for pid in running.pids() for link in Path(f"/proc/{pid}/fd").iterdir()]
    return sum(_names(link).endswith(" (deleted)") for link in links)


def _names(link: Path) -> str:
    try:
        return str(link.readlink())
    except FileNotFoundError:  # closed meanwhile
        return ""


@pytest.mark.parametrize("server", SERVERS)
def test_upload_that_cannot_be_kept(running: RunningServer, shared_upstream: ScriptedUpstream) -> None:
    """It is sent, whole, once; where the credential is rejected the caller gets the rejection as it came."""
    rejection: Fields = ((b"WWW-Authenticate", b"Bearer"), (b"X-A", b"1"))
    shared_upstream.answer(response(401, rejection, b"rejected", reason=b"Unauthorized"), response(body=b"taken"))
    for status, body in ((401, b"rejected"), (200, b"taken")):
        answer = ask(running.address, "expiring/proxy/x", "PUT", body=CONTENT)
        assert (answer.status, answer.body, answer.complete) == (status, body, True)
    assert [(seen.body == CONTENT, seen.complete) for seen in shared_upstream.requests] == [(True, True)] * 2


@pytest.mark.parametrize("server", SERVERS)
def test_response_that_cannot_be_spooled(running: RunningServer, shared_upstream: ScriptedUpstream) -> None:
    """It is streamed from there on, byte for byte."""
    shared_upstream.answer(HEAD + chunked(*PIECES))
    answer = ask(running.address, "root/proxy/x")
    assert (answer.status, answer.complete) == (200, True)
    assert answer.body == CONTENT


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("sent", [100 * KIB, 300 * KIB, 500 * KIB], ids=["in memory", "on disk", "beyond"])
def test_response_that_breaks_off(sent: int, running: RunningServer, shared_upstream: ScriptedUpstream) -> None:
    """One that breaks off is a 502 where all of it was spooled, and is broken where it was not."""

    @shared_upstream.script
    def script(exchange: Exchange) -> None:
        exchange.send(HEAD + chunked(*PIECES[: sent // PIECE]).removesuffix(b"0\r\n\r\n"))
        exchange.close()

    answer = ask(running.address, "root/proxy/x")
    if answer.status == 502:
        assert answer.complete
        assert sent < 256 * KIB + FILE_SIZE
    else:
        assert (answer.status, answer.complete) == (200, False)
        assert sent > 256 * KIB
        assert CONTENT.startswith(answer.body)

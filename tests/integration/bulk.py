"""Bodies of any size that cost nothing to make, and of which every byte is compared on arrival."""

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.integration.asking import asked
from tests.servers import RunningServer
from tests.upstreams import Exchange, Script
from tests.wire import Body, Message, Wire, framing_of, parse_head

MIB = 1024 * 1024
GIB = 1024 * MIB

# A large body is this, again and again; the length is no multiple of anything that a buffer may have.
_PATTERN = random.Random(1).randbytes(MIB - 3)
_TWICE = _PATTERN * 2
# What is sent at once.
_PIECE = 64 * 1024
_BATCH = 32


@dataclass
class Comparison:
    """Compares a body with the pattern as it arrives, and counts it."""

    count: int = 0

    def take(self, data: bytes) -> None:
        """The next bytes of the body, fewer than the pattern is long."""
        at = self.count % len(_PATTERN)
        assert data == _TWICE[at : at + len(data)], f"another body from byte {self.count} on"
        self.count += len(data)


def pieces_of(size: int, *, chunked: bool) -> Iterator[bytes]:
    """A body of `size` bytes, a multiple of 64 KiB, as it is on the wire."""
    count = 0
    while count < size:
        batch = []
        for _ in range(min(_BATCH, (size - count) // _PIECE)):
            at = count % len(_PATTERN)
            piece = _TWICE[at : at + _PIECE]
            batch += [b"%x\r\n" % _PIECE, piece, b"\r\n"] if chunked else [piece]
            count += _PIECE
        yield b"".join(batch)
    if chunked:
        yield b"0\r\n\r\n"


def head_of(size: int, *, chunked: bool) -> bytes:
    """The head of a response with such a body."""
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % size
    return b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n"


def sending(size: int, *, chunked: bool) -> Script:
    """A script that answers with such a body."""

    def script(exchange: Exchange) -> None:
        exchange.send(head_of(size, chunked=chunked))
        for piece in pieces_of(size, chunked=chunked):
            exchange.send(piece)

    return script


def comparing(comparison: Comparison) -> Script:
    """A script that takes an upload in and keeps nothing of it."""

    def script(exchange: Exchange) -> None:
        for _, data in exchange._body.pieces:
            comparison.take(data)
        exchange.read(None)
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    return script


def download(wire: Wire) -> tuple[int, bool]:
    """Reads a response with such a body: how many bytes it had, and whether it ended properly."""
    first, fields = parse_head(wire.through(b"\r\n\r\n"))
    assert first.split(b" ")[1] == b"200", first
    body, comparison = Body(wire, *framing_of(Message(fields=fields), otherwise="close")), Comparison()
    for _, data in body.pieces:
        comparison.take(data)
    return comparison.count, body.complete


def upload_head(path: str, size: int, *, chunked: bool) -> bytes:
    """The head of a request with such a body."""
    framing = ("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(size))
    return asked(path, "POST", [framing])


@contextmanager
def flat_memory(running: RunningServer, size: int, limit: int) -> Iterator[None]:
    """Passing `size` bytes within costs no process of the server more than `limit` bytes of memory at its peak."""
    before, start = running.peak_memory(), time.monotonic()
    yield
    rate = size / 1e6 / (time.monotonic() - start)
    grown = running.peak_memory() - before
    print(f"{running.server}: {rate:.0f} MB/s, {grown // 1024} KiB of memory")  # pytest -rP shows it
    assert grown < limit

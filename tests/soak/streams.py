"""HTTP/1.1 read from asyncio's streams, by caller and upstream alike. What breaks off is told, never raised."""

import asyncio
import socket
import struct
from dataclasses import dataclass, field

from tests.wire import Framing

PIECE = 64 * 1024
LINGER = struct.pack("ii", 1, 0)


@dataclass
class Received:
    """A body as far as it came: its bytes, and whether its end came, by its own framing."""

    data: bytearray = field(default_factory=bytearray)
    complete: bool = False


@dataclass(frozen=True)
class Pace:
    """How a body is read: seconds of a pause before each piece of `piece` bytes; no more after `stop` bytes."""

    pause: float = 0.0
    piece: int = PIECE
    stop: int | None = None


async def read_head(reader: asyncio.StreamReader) -> bytes:
    """A head with its empty line; less where the stream ended."""
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        return error.partial
    except ConnectionError:
        return b""


async def read_body(
    reader: asyncio.StreamReader, framing: Framing, length: int, pace: Pace | None = None, limit: int | None = None
) -> Received:
    """A body, at the pace that is given; not more than `limit` bytes of one with a length."""
    received, pace = Received(complete=framing == "none"), pace or Pace()
    try:
        if framing == "length":
            whole = await _exactly(reader, length if limit is None else min(limit, length), received, pace)
            received.complete = whole and (limit is None or limit >= length)
        elif framing == "chunked":
            received.complete = await _chunks(reader, received, pace, limit)
        elif framing == "close":
            received.complete = await _exactly(reader, None, received, pace)
    except ConnectionError:
        received.complete = False
    return received


async def _exactly(reader: asyncio.StreamReader, count: int | None, into: Received, pace: Pace) -> bool:
    """Whether so many bytes came; None is up to the end of the stream."""
    while count is None or count:
        if pace.stop is not None and len(into.data) >= pace.stop:
            return False
        if pace.pause:
            await asyncio.sleep(pace.pause)
        piece = await reader.read(pace.piece if count is None else min(count, pace.piece))
        if not piece:
            return count is None
        into.data += piece
        count = None if count is None else count - len(piece)
    return True


async def _chunks(reader: asyncio.StreamReader, into: Received, pace: Pace, limit: int | None) -> bool:
    while limit is None or len(into.data) < limit:
        line = await reader.readline()
        digits = line.removesuffix(b"\r\n")
        if not line.endswith(b"\r\n") or not digits or digits.strip(b"0123456789abcdefABCDEF"):
            return False
        if not int(digits, 16):
            return await reader.readline() == b"\r\n"
        if not await _exactly(reader, int(digits, 16), into, pace) or await reader.readline() != b"\r\n":
            return False
    return False


def hang_up(writer: asyncio.StreamWriter, *, abrupt: bool) -> None:
    """Closes the connection: by a reset, or once everything is sent."""
    if not abrupt:
        writer.close()
        return
    sock = writer.get_extra_info("socket")
    if sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
    writer.transport.abort()

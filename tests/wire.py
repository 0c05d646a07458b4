"""HTTP/1.1 as it is on the wire: what the raw caller and the scripted upstream have in common."""

import re
import socket
import ssl
import struct
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal

Address = tuple[str, int]
Fields = tuple[tuple[bytes, bytes], ...]
Framing = Literal["none", "length", "chunked", "close"]

PIECE = 65536
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]+)[ \t]*(?:;[^\r\n]*)?\r\n")


@dataclass(frozen=True, kw_only=True)
class Message:
    """What a request and a response have in common: fields in order, names spelled as they came."""

    fields: Fields

    def values(self, name: bytes) -> list[bytes]:
        """The values of all fields of that name, whatever the case."""
        return [value for other, value in self.fields if other.lower() == name.lower()]

    def header(self, name: bytes) -> bytes | None:
        """The value of the only field of that name; None where there is none.

        Raises:
            ValueError: there is more than one.
        """
        values = self.values(name)
        if len(values) > 1:
            raise ValueError(f"{name!r} came {len(values)} times")
        return values[0] if values else None


def parse_head(head: bytes) -> tuple[bytes, Fields]:
    """A head's first line and its fields. Only the blanks around the values are gone."""
    first, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    pairs = [line.partition(b":") for line in lines]
    return first, tuple((name, value.strip(b" \t")) for name, _, value in pairs)


def framing_of(message: Message, otherwise: Framing) -> tuple[Framing, int]:
    """How the message's body is delimited, by its fields alone; `otherwise` where they do not say."""
    if message.values(b"transfer-encoding"):
        return "chunked", 0
    length = message.header(b"content-length")
    return (otherwise, 0) if length is None else ("length", int(length))


def chunked(*pieces: bytes) -> bytes:
    """The pieces as a chunked body, one chunk each, with the last chunk."""
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


class Wire:
    """A socket read as HTTP/1.1. Where the stream ends, less is returned than was asked for, never an exception."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = bytearray()
        self.was_reset = False

    def fill(self) -> bool:
        """Receive once into the buffer; False when the peer has closed or reset the connection."""
        try:
            data = self.sock.recv(PIECE)
        except (ConnectionError, ssl.SSLEOFError):
            self.was_reset = True
            return False
        self.buffer += data
        return bool(data)

    def take(self, count: int) -> bytes:
        """Up to `count` bytes of what is buffered."""
        taken = bytes(self.buffer[:count])
        del self.buffer[:count]
        return taken

    def some(self, limit: int) -> bytes:
        """The next bytes to come, `limit` at the most."""
        if not self.buffer:
            self.fill()
        return self.take(limit)

    def through(self, marker: bytes) -> bytes:
        """Everything up to and including `marker`."""
        while marker not in self.buffer and self.fill():
            pass
        at = self.buffer.find(marker)
        return self.take(at + len(marker) if at >= 0 else len(self.buffer))

    def closes_within(self, seconds: float) -> bool:
        """Whether the peer closes its side within `seconds`; what it sends until then stays readable."""
        deadline, usual = time.monotonic() + seconds, self.sock.gettimeout()
        try:
            while (left := deadline - time.monotonic()) > 0:
                self.sock.settimeout(left)
                if not self.fill():
                    return True
        except TimeoutError:
            return False
        finally:
            self.sock.settimeout(usual)
        return False


class Body:
    """One message body while it arrives. `pieces` can be taken up again where it was left."""

    def __init__(self, wire: Wire, framing: Framing, length: int = 0) -> None:
        self._wire = wire
        self.framing = framing
        self.complete = framing == "none"
        self.trailers = b""
        self.pieces = self._read(length)

    def _read(self, length: int) -> Iterator[tuple[bytes, bytes]]:
        """Pairs of the bytes as they were framed and the same bytes decoded."""
        if self.framing == "chunked":
            yield from self._chunks()
        elif self.framing == "length":
            self.complete = yield from self._measured(length)
        elif self.framing == "close":
            while piece := self._wire.some(PIECE):
                yield piece, piece
            self.complete = not self._wire.was_reset

    def _measured(self, length: int) -> Generator[tuple[bytes, bytes], None, bool]:
        while length:
            piece = self._wire.some(min(length, PIECE))
            if not piece:
                return False
            length -= len(piece)
            yield piece, piece
        return True

    def _chunks(self) -> Iterator[tuple[bytes, bytes]]:
        while line := self._wire.through(b"\r\n"):
            yield line, b""
            if not line.endswith(b"\r\n"):
                return
            if not (size := _chunk_size(line)):
                yield from self._trailer_section()
                return
            if not (yield from self._measured(size)):
                return
            yield self._wire.through(b"\r\n"), b""

    def _trailer_section(self) -> Iterator[tuple[bytes, bytes]]:
        while line := self._wire.through(b"\r\n"):
            yield line, b""
            if line == b"\r\n":
                self.complete = True
                return
            self.trailers += line


def _chunk_size(line: bytes) -> int:
    found = _CHUNK_LINE.fullmatch(line)
    if found is None:
        raise ValueError(f"not a chunk size line: {line!r}")
    return int(found[1], 16)


def reset(sock: socket.socket) -> None:
    """Close with RST: what was not delivered yet is thrown away."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@contextmanager
def closed_port() -> Iterator[int]:
    """A port of 127.0.0.1 that refuses connections, and that nobody else can take meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@contextmanager
def stalled_port() -> Iterator[int]:
    """A port of 127.0.0.1 that leaves connection attempts without an answer: its accept queue is full (Linux)."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]

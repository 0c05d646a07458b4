"""What goes over the wire of a FakeUpstream: requests as they came, and replies to be sent."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from http import HTTPStatus
from threading import Event
from typing import BinaryIO

from proxy_middleware._fields import Field
from proxy_middleware.models import first_value

__all__ = ["ReceivedRequest", "Reply", "ends_as_announced", "read_request"]

_PIECE = 65536
_BLANK = b"\r\n"
_REASONS = {status.value: status.phrase for status in HTTPStatus}


@dataclass(frozen=True, slots=True, repr=False)
class ReceivedRequest:
    """A request, byte for byte. Its `repr` shows neither fields nor query, where credentials are.

    Attributes:
        method: As it was spelled.
        target: The request target, raw, with its query.
        fields: Header fields in order, names spelled as they came.
        head: The bytes of request line and fields, with the blank line at their end.
        body: Decoded: without the framing of chunks.
        raw: All bytes, with the body as it was framed.
        complete: Whether the body came to its proper end; False where the sender left in the middle of it.
        connection: The number of the TCP connection, from 1.
    """

    method: str
    target: bytes
    fields: tuple[Field, ...]
    head: bytes
    body: bytes
    raw: bytes
    complete: bool
    connection: int

    def header(self, name: str) -> str | None:
        """The first field of this name, whatever the case; None if there is none."""
        return first_value(self.fields, name)

    def __repr__(self) -> str:
        path = self.target.partition(b"?")[0].decode("latin-1")
        return f"<ReceivedRequest {self.method} {path}, {len(self.body)} bytes>"


@dataclass(frozen=True, slots=True)
class Reply:
    """A response of a FakeUpstream.

    Attributes:
        status: Status code.
        body: Bytes, sent with their `Content-Length`; or a list of pieces, sent as chunks, in which an Event stands for
            a pause until it is set.
        fields: Further header fields, as a mapping or as pairs.
        reason: Reason phrase; by default the usual one.
        wait_for: Nothing is sent before this event is set.
        break_after: The connection is closed after so many bytes of the body, with no regard to what was announced.
    """

    status: int = 200
    body: bytes | Sequence[bytes | Event] = field(default=b"", repr=False)
    fields: Mapping[str, str] | Sequence[tuple[str, str]] = field(default=(), repr=False)
    _: KW_ONLY
    reason: str | None = None
    wait_for: Event | None = field(default=None, repr=False)
    break_after: int | None = None

    def wire(self, method: str) -> Iterator[bytes | Event]:
        """What is sent in answer to this method, and waited for, in turn."""
        if self.wait_for is not None:
            yield self.wait_for
        yield self._head()
        if method == "HEAD" or self.status in (204, 304):
            return
        if isinstance(self.body, bytes):
            yield self.body[: self.break_after]
        else:
            yield from self._chunks(self.body)

    def _chunks(self, pieces: Iterable[bytes | Event]) -> Iterator[bytes | Event]:
        left = self.break_after
        for piece in pieces:
            if isinstance(piece, Event):
                yield piece
            elif chunk := piece[:left]:
                yield b"%x\r\n%b\r\n" % (len(chunk), chunk)
                left = None if left is None else left - len(chunk)
        if self.break_after is None:
            yield b"0\r\n\r\n"

    def _head(self) -> bytes:
        reason = _REASONS.get(self.status, "") if self.reason is None else self.reason
        pairs = self.fields.items() if isinstance(self.fields, Mapping) else self.fields
        lines = [f"HTTP/1.1 {self.status} {reason}", *(f"{name}: {value}" for name, value in pairs)]
        if not isinstance(self.body, bytes):
            lines.append("Transfer-Encoding: chunked")
        elif self.status != 204:
            lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


def ends_as_announced(data: bytes, method: str) -> bool:
    """Whether these bytes are one whole response, which leaves the connection fit for another request."""
    head, _, body = data.partition(b"\r\n\r\n")
    _, fields = _parse(head)
    if (first_value(fields, "connection") or "").lower() == "close":
        return False
    if method == "HEAD" or head.split(b" ")[1:2] in ([b"204"], [b"304"]):
        return not body
    if first_value(fields, "transfer-encoding") is not None:
        return body.endswith(b"0\r\n\r\n")
    return first_value(fields, "content-length") == str(len(body))


def read_request(stream: BinaryIO, connection: int) -> ReceivedRequest | None:
    """The next request of a connection; None where the sender has left.

    Raises:
        ValueError: What came is no HTTP/1.1 request.
    """
    tape = _Tape(stream)
    while (line := tape.line()) not in (_BLANK, b""):
        pass
    if not line:
        return None
    head = bytes(tape.raw)
    words, fields = _parse(head.removesuffix(b"\r\n\r\n"))
    if len(words) != 3:
        raise ValueError("the fake upstream received what is no HTTP/1.1 request")
    body, complete = tape.body(fields)
    method, target, _ = words
    return ReceivedRequest(method.decode("latin-1"), target, fields, head, body, bytes(tape.raw), complete, connection)


def _parse(head: bytes) -> tuple[list[bytes], tuple[Field, ...]]:
    first, *lines = head.split(b"\r\n")
    pairs = [line.partition(b":") for line in lines]
    return first.split(b" "), tuple((name, value.strip(b" \t")) for name, _, value in pairs)


class _Tape:
    """Keeps what is read. Where the sender has left, less comes than was asked for, and no exception."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.raw = bytearray()

    def line(self) -> bytes:
        try:
            line = self._stream.readline()
        except ConnectionError:
            line = b""
        self.raw += line
        return line if line.endswith(_BLANK) else b""

    def take(self, count: int) -> bytes:
        taken = bytearray()
        try:
            while piece := self._stream.read(min(count - len(taken), _PIECE)):
                taken += piece
        except ConnectionError:
            """What came before counts, and that it is too little."""
        self.raw += taken
        return bytes(taken)

    def body(self, fields: Iterable[Field]) -> tuple[bytes, bool]:
        """The body, as these fields frame it, and whether it came to its end."""
        if first_value(fields, "transfer-encoding") is not None:
            return self._chunks()
        length = int(first_value(fields, "content-length") or 0)
        body = self.take(length)
        return body, len(body) == length

    def _chunks(self) -> tuple[bytes, bool]:
        body = bytearray()
        while line := self.line():
            size = int(line.partition(b";")[0], 16)
            if not size:
                return bytes(body), self._trailers()
            piece = self.take(size)
            body += piece
            if len(piece) < size or self.line() != _BLANK:
                break
        return bytes(body), False

    def _trailers(self) -> bool:
        while (line := self.line()) not in (_BLANK, b""):
            pass
        return line == _BLANK

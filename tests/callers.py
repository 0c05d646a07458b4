"""A caller that speaks HTTP/1.1 over a plain socket and sees every byte."""

import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from tests.wire import Address, Body, Framing, Message, Wire, framing_of, parse_head, reset

TIMEOUT = 10.0


class NoResponse(ConnectionError):
    """The server closed the connection before it had sent a whole response head."""


@dataclass(frozen=True, kw_only=True)
class Head(Message):
    """A final response head; `interim` holds the whole heads of the 1xx responses before it."""

    version: bytes
    status: int
    reason: bytes
    interim: tuple[bytes, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RawResponse(Head):
    """A response as it was on the wire.

    `complete` says whether it ended as its framing demands: the last chunk was there, the `Content-Length` was met, or
    (framing "close", where a caller cannot know better) the connection ended with FIN and not with RST.
    """

    framing: Framing
    body: bytes
    raw_body: bytes
    complete: bool
    trailers: bytes = b""


class OpenCall:
    """A call in the making: send in pieces, read in pieces, leave at any time. One after the other on a connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._wire = Wire(sock)
        self._method = b""
        self._head: Head | None = None
        self._body: Body | None = None
        self._decoded = bytearray()

    def send(self, data: bytes) -> None:
        """Send bytes as they are; the first ones of a request hold its method."""
        self._method = self._method or data.partition(b" ")[0]
        self.sock.sendall(data)

    def read_head(self) -> Head:
        """The response head, when it has come.

        Raises:
            NoResponse: the connection was closed before.
        """
        if self._head is None:
            self._head = self._receive_head()
            self._body = self._body_after(self._head)
        return self._head

    def read(self, count: int) -> bytes:
        """The next `count` bytes of the decoded body; fewer where it ends or breaks off before."""
        while len(self._decoded) < count and self._advance() is not None:
            pass
        return self._hand_out(count)

    def read_until(self, marker: bytes) -> bytes:
        """The next bytes of the decoded body up to and including `marker`; what there is where it never comes."""
        while marker not in self._decoded and self._advance() is not None:
            pass
        at = self._decoded.find(marker)
        return self._hand_out(at + len(marker) if at >= 0 else len(self._decoded))

    def discard(self) -> tuple[int, bool]:
        """Read to the end and keep nothing, for large bodies: how many decoded bytes, and whether complete."""
        body = self._started_body()
        count = len(self._hand_out(len(self._decoded))) + sum(len(piece) for _, piece in body.pieces)
        self._forget()
        return count, body.complete

    def read_rest(self) -> RawResponse:
        """The response with all of the body that was not handed out before; then the next request may be sent."""
        head, body, raw = self.read_head(), self._started_body(), bytearray()
        while (framed := self._advance()) is not None:
            raw += framed
        rest = RawResponse(
            **vars(head),
            framing=body.framing,
            body=self._hand_out(len(self._decoded)),
            raw_body=bytes(raw),
            complete=body.complete,
            trailers=body.trailers,
        )
        self._forget()
        return rest

    def closes_within(self, seconds: float) -> bool:
        """Whether the server closes the connection within `seconds`."""
        return self._wire.closes_within(seconds)

    def abandon(self) -> None:
        """Leave at once, with RST."""
        reset(self.sock)

    def _receive_head(self) -> Head:
        interim: list[bytes] = []
        while (head := self._wire.through(b"\r\n\r\n")).endswith(b"\r\n\r\n"):
            first, fields = parse_head(head)
            version, status, *reason = first.split(b" ", 2)
            if not 100 <= int(status) < 200:
                text = reason[0] if reason else b""
                return Head(version=version, status=int(status), reason=text, fields=fields, interim=tuple(interim))
            interim.append(head)
        raise NoResponse(f"the server closed the connection after {head!r}")

    def _body_after(self, head: Head) -> Body:
        if self._method == b"HEAD" or head.status in (204, 304):
            return Body(self._wire, "none")
        return Body(self._wire, *framing_of(head, otherwise="close"))

    def _started_body(self) -> Body:
        self.read_head()
        assert self._body is not None
        return self._body

    def _advance(self) -> bytes | None:
        """Take one more piece in: the bytes as framed, or None at the end."""
        framed, decoded = next(self._started_body().pieces, (None, b""))
        self._decoded += decoded
        return framed

    def _hand_out(self, count: int) -> bytes:
        handed = bytes(self._decoded[:count])
        del self._decoded[:count]
        return handed

    def _forget(self) -> None:
        self._method, self._head, self._body = b"", None, None


@contextmanager
def open_call(
    address: Address, data: bytes = b"", *, timeout: float = TIMEOUT, ssl_context: ssl.SSLContext | None = None
) -> Iterator[OpenCall]:
    """Connect, send `data` if given, and close at the end. `timeout` (seconds) is for each wait, not for the call."""
    with socket.create_connection(address, timeout=timeout) as plain:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with ssl_context.wrap_socket(plain, server_hostname=address[0]) if ssl_context else plain as sock:
            opened = OpenCall(sock)
            if data:
                opened.send(data)
            yield opened


def call(
    address: Address, data: bytes, *, timeout: float = TIMEOUT, ssl_context: ssl.SSLContext | None = None
) -> RawResponse:
    """Send one whole request as it is, read the whole response, close the connection.

    Raises:
        NoResponse: the server closed the connection without a response.
        TimeoutError: nothing came for `timeout` seconds. A server that hangs is not one that breaks off.
    """
    with open_call(address, timeout=timeout, ssl_context=ssl_context) as opened:
        with suppress(BrokenPipeError, ConnectionResetError):  # the answer may have come before the request's end
            opened.send(data)
        return opened.read_rest()


def request(
    method: str,
    target: str,
    fields: Sequence[tuple[str, str]] = (),
    body: bytes | None = None,
    *,
    host: str = "host.test",
) -> bytes:
    """The bytes of a request: `Host` first, then the fields, then a `Content-Length` where there is a body."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in fields)]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")

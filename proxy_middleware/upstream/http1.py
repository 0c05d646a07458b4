"""HTTP/1.1 without I/O: requests to bytes, bytes to a response (RFC 9112).

Parsing is llhttp's, through httptools. What llhttp leaves to its user is here: bodies that the connection's end
delimits, responses to HEAD, interim responses, limits, and what may follow on a connection.
"""

from collections.abc import Sequence

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from proxy_middleware._fields import Field, NameTable
from proxy_middleware.errors import ConnectionTerminated, ProtocolViolation, ResponseTruncated

# Interim responses that are absorbed before the final one (RFC 9110 section 15.2).
MAX_INTERIM = 8
_line = b"%b: %b\r\n".__mod__
LAST_CHUNK = b"0\r\n\r\n"


_LENGTH, _CODING, _CONNECTION = 1, 2, 3
_framing = NameTable(
    lambda name: {b"content-length": _LENGTH, b"transfer-encoding": _CODING, b"connection": _CONNECTION}.get(
        name.lower(), 0
    )
)


def encode_head(method: bytes, target: bytes, fields: Sequence[Field]) -> bytes:
    """Request line and header section."""
    return b"%b %b HTTP/1.1\r\n%b\r\n" % (method, target, b"".join(map(_line, fields)))


def encode_chunk(data: bytes) -> bytes:
    """One chunk of a chunked body; no data makes no chunk, since an empty one would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


class ResponseParser:
    """One response, from its status line to its last byte.

    Attributes:
        status: Status code.
        reason: Reason phrase as sent.
        fields: Header fields as sent; trailers are dropped.
        chunks: Body bytes that arrived and were not taken yet.
        started: Whether any byte has arrived.
        head_complete: Whether the final head is complete.
        complete: Whether the whole response is.
        reusable: Whether another request may follow on the connection.
    """

    # Defaults stand in the class, so that making one per request costs little.
    status = 0
    reason = b""
    started = head_complete = complete = reusable = False
    _head_size = _framing_size = 0
    _interim = 0
    _remaining: int | None = None
    _until_close = False
    _problem: str | None = None

    def __init__(self, head_request: bool, head_limit: int) -> None:
        self.fields: list[Field] = []
        self.chunks: list[bytes] = []
        self._head_request = head_request
        self._head_limit = head_limit
        self._parser: HttpResponseParser | None = HttpResponseParser(self)

    def feed(self, data: bytes | memoryview) -> None:
        """Takes what arrived; keeps no reference to it.

        Raises:
            ProtocolViolation: It is no well-formed response.
        """
        self.started = True
        if self.complete:
            self.reusable = False
            return
        if self._until_close:
            self._parser = None
            self.chunks.append(bytes(data))
            return
        if self._remaining:
            # A body with Content-Length need not pass the parser.
            self._take(data)
            return
        in_head, parser = not self.head_complete, self._parser
        assert parser is not None
        if in_head:
            room = self._head_limit - self._head_size
            if len(data) > room:
                self._feed_oversize(data, room)
                return
            self._head_size += len(data)
        else:
            self._framing_size += len(data)
        try:
            parser.feed_data(data)
        except HttpParserUpgrade:
            self._problem = "The upstream switched protocols unasked"
        except HttpParserError:
            # After the end of a body nothing more is parsed; its bytes only make the connection useless.
            if not self.complete:
                if not in_head:
                    raise ProtocolViolation from None
                self._problem = ProtocolViolation.title
            self.reusable = False
        if self.complete:
            # The parser holds this object's methods: without it there is no cycle for the collector to find.
            self._parser = None
        elif self._framing_size > self._head_limit:
            # Trailers are dropped, but the parser collects them first.
            raise ProtocolViolation("The upstream's chunk extensions or trailers are too large")
        if self._problem:
            # Nothing of it is to be taken for an answer.
            self.head_complete = self.complete = self.reusable = False
            self.chunks.clear()
            raise ProtocolViolation(self._problem)

    def take(self) -> bytes:
        """The body bytes that have arrived since the last call."""
        chunks = self.chunks
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        return data

    def _feed_oversize(self, data: bytes | memoryview, room: int) -> None:
        """More than the head may have: is the head complete by then, so that the rest is body?"""
        if room:
            self.feed(data[:room])
        if not self.head_complete:
            raise ProtocolViolation("The upstream's response head is too large")
        self.feed(data[room:])

    def eof(self) -> None:
        """The connection has ended.

        Raises:
            ConnectionTerminated: Before the head was complete.
            ResponseTruncated: Before the body was.
        """
        self.reusable = False
        if self._until_close:
            self.complete = True
        elif not self.head_complete:
            raise ConnectionTerminated
        elif not self.complete:
            raise ResponseTruncated("The upstream's response broke off")

    def reset(self) -> None:
        """The connection has been reset: what had come so far is not whole, whatever delimits it."""
        self._until_close = False

    def _take(self, data: bytes | memoryview) -> None:
        self._parser = None
        remaining = self._remaining or 0
        if len(data) > remaining:
            data, self.reusable = data[:remaining], False
        self._remaining = remaining - len(data)
        self.chunks.append(bytes(data))
        self.complete = not self._remaining

    # What httptools calls.

    def on_message_begin(self) -> None:
        if self.complete:
            self.reusable = False
        else:
            self.reason = b""
            self.fields = []

    def on_status(self, reason: bytes) -> None:
        if not self.complete:
            self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.head_complete:
            # llhttp leaves the blanks behind a value, which are no part of it (RFC 9112 section 5.1).
            self.fields.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        if self.complete:
            return
        parser = self._parser
        assert parser is not None
        status = parser.get_status_code()
        if status < 200:
            self._interim += 1
            if status == 101 or status < 100 or self._interim > MAX_INTERIM:
                self._problem = "The upstream sent interim responses that nobody asked for"
            return
        self.status = status
        self.head_complete = True
        # How the body is delimited (RFC 9112 section 6.3).
        length = coding = None
        closing = False
        for name, value in self.fields:
            kind = _framing[name]
            if kind:
                if kind == _LENGTH:
                    length = value
                elif kind == _CODING:
                    coding = value if coding is None else b"twice"
                else:
                    closing |= b"close" in value.lower()
        if coding is not None and coding.lower() != b"chunked":
            self._problem = "The upstream used a transfer coding that nobody asked for"
        # RFC 9112 section 6.1: HTTP/1.0 has no transfer codings; what follows such a message cannot be trusted.
        self.reusable = parser.should_keep_alive() and (coding is None or parser.get_http_version() == "1.1")
        if self._head_request or self.status in (204, 304):
            # No body, whatever the fields say; llhttp would take a HEAD's length for a body's.
            self.complete = True
            self.reusable = not closing and parser.get_http_version() == "1.1"
        elif coding is None and length is None:
            self._until_close = True
        elif coding is None:
            self._remaining = int(length or 0)

    def on_body(self, data: bytes) -> None:
        if self.complete:
            self.reusable = False
            return
        if self._remaining is not None:
            self._remaining -= len(data)
        self._framing_size = 0
        self.chunks.append(data)

    def on_message_complete(self) -> None:
        if self.head_complete and not self._until_close:
            self.complete = True

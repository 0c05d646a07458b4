"""HTTP/1.1 without I/O: requests to bytes, bytes to a response (RFC 9112).

An ordinary response, which comes with its whole head and has a Content-Length, is taken apart by its lines. Everything
else is llhttp's, through httptools. What llhttp leaves to its user is here: bodies that the connection's end delimits,
responses to HEAD, interim responses, limits, and what may follow on a connection.
"""

import re
from collections.abc import Callable, Sequence

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from proxy_middleware._fields import Field, NameTable
from proxy_middleware._response_fields import as_sent, in_lower_case, read_ordinary
from proxy_middleware.errors import ConnectionTerminated, ProtocolViolation, ResponseTruncated

# Interim responses that are absorbed before the final one (RFC 9110 section 15.2).
MAX_INTERIM = 8
_line = b"%b: %b\r\n".__mod__
LAST_CHUNK = b"0\r\n\r\n"
_BODILESS = frozenset({204, 304})
_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([2-5][0-9][0-9]) ([\t -~\x80-\xff]*)")


def _parse_status(line: bytes) -> tuple[int, bytes]:
    """Status and reason; status 0 for what is left to llhttp."""
    found = _STATUS_LINE.fullmatch(line)
    status = int(found[1]) if found else 0
    return (0, b"") if found is None or status in _BODILESS else (status, found[2])


_status_of = NameTable(_parse_status).__getitem__


def encode_head(method: bytes, target: bytes, fields: Sequence[Field]) -> bytes:
    """Request line and header section."""
    return b"%b %b HTTP/1.1\r\n%b\r\n" % (method, target, b"".join(map(_line, fields)))


def encode_chunk(data: bytes) -> bytes:
    """One chunk of a chunked body; no data makes no chunk, since an empty one would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


class Message:
    """What has arrived of one response.

    Attributes:
        status: Status code.
        reason: Reason phrase as sent.
        raw: Header field lines as sent, without CRLF; trailers are dropped.
        kept: Of an ordinary response, the fields that go to a caller from whom nothing is withheld.
        chunks: Body bytes that arrived and were not taken yet.
        taken: How many bytes have been taken.
        started: Whether any byte has arrived.
        head_complete: Whether the final head is complete.
        complete: Whether the whole response is.
        reusable: Whether another request may follow on the connection.
    """

    # Defaults stand in the class, so that making one per request costs little.
    status = taken = 0
    reason = b""
    started = head_complete = complete = reusable = False
    raw: Sequence[bytes] = ()
    kept: list[Field] | None = None

    def __init__(self) -> None:
        self.chunks: list[bytes] = []

    @property
    def fields(self) -> list[Field]:
        """Header fields as sent."""
        return [field for _, field in map(as_sent, self.raw)]

    def take(self) -> bytes:
        """The body bytes that have arrived since the last call."""
        chunks = self.chunks
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self.taken += len(data)
        return data

    def unread(self, data: bytes) -> None:
        """Puts back what was taken, so that it is read again."""
        if data:
            self.chunks.insert(0, data)
            self.taken -= len(data)


class ResponseParser:
    """The responses of one connection, one after the other, each from its status line to its last byte.

    Args:
        head_limit: Bytes that a response's head may have, interim responses included.
        lower_case: Whether `Message.kept` has its names in lower case.
    """

    _message: Message
    _add: Callable[[bytes], object]
    _head_request = False
    _room = 0  # Bytes that the head may still have.
    _framing_size = 0
    _interim = 0
    _remaining: int | None = None
    _until_close = False
    _problem: str | None = None

    def __init__(self, head_limit: int, lower_case: bool) -> None:
        self._head_limit = head_limit
        self._lower_case = lower_case
        self._parser: HttpResponseParser | None = None

    def begin(self, message: Message, head_request: bool) -> None:
        """The next response, to a HEAD request or to another, goes into this message."""
        self._message = message
        self._head_request = head_request
        self._room, self._interim = self._head_limit, 0
        if head_request:
            self._parser = HttpResponseParser(_HeadCallbacks(self))

    def feed(self, data: bytes | memoryview) -> None:
        """Takes what arrived; keeps no reference to it.

        Raises:
            ProtocolViolation: It is no well-formed response.
        """
        message = self._message
        if not message.started:
            message.started = True
            if not self._head_request and self._read_ordinary(message, bytes(data)):
                return
        size = len(data)
        if message.head_complete or size > self._room:
            self._feed_on(message, data)
        else:
            self._room -= size
            self._parse(message, data)

    def _read_ordinary(self, message: Message, data: bytes) -> bool:
        """Takes an ordinary response; False if it is none, or not all of its head is there."""
        end = data.find(b"\r\n\r\n")
        status_line, *raw = data[:end].split(b"\r\n")
        status, reason = _status_of(status_line)
        found = read_ordinary(raw, self._lower_case)
        if found is None or not status or not 0 <= end <= self._room - 4:
            return False
        message.status, message.reason, message.raw = status, reason, raw
        message.kept, length = found
        message.head_complete = message.reusable = True
        body = data[end + 4 :]
        left = length - len(body)
        if left > 0:
            self._remaining, self._until_close = left, False
        else:
            message.complete = True
            if left:
                body, message.reusable = body[:length], False
        if body:
            message.chunks.append(body)
        return True

    def _parse(self, message: Message, data: bytes | memoryview) -> None:
        parser = self._parser
        if parser is None:
            parser = self._parser = HttpResponseParser(self)
        try:
            parser.feed_data(data)
        except HttpParserUpgrade:
            if not message.complete:
                self._problem = "The upstream switched protocols unasked"
            message.reusable = False
        except HttpParserError:
            # After the end of a body nothing more is parsed; its bytes only make the connection useless.
            if not message.complete:
                self._problem = ProtocolViolation.title
            message.reusable = False
        if message.head_complete and not message.complete:
            self._delimit(message)
        elif message.complete and self._parser is None and not b"\r\n\r\n".endswith(bytes(data[-4:])):
            # Where no body may come, llhttp does not tell of an unfinished chunk size.
            message.reusable = False
        if self._problem:
            # Nothing of it is to be taken for an answer.
            message.head_complete = message.complete = message.reusable = False
            message.chunks.clear()
            raise ProtocolViolation(self._problem)

    def eof(self) -> None:
        """The connection has ended.

        Raises:
            ConnectionTerminated: Before the head was complete.
            ResponseTruncated: Before the body was.
        """
        message = self._message
        message.reusable = False
        if self._until_close:
            message.complete = True
        elif not message.head_complete:
            raise ConnectionTerminated
        elif not message.complete:
            raise ResponseTruncated("The upstream's response broke off")

    def reset(self) -> None:
        """The connection has been reset: what had come so far is not whole, whatever delimits it."""
        self._until_close = False

    def close(self) -> None:
        """Nothing more comes: lets go of what holds this object, so that no cycle is left to the garbage collector."""
        self._parser = None
        self._message = Message()
        self._add = _drop

    def _feed_on(self, message: Message, data: bytes | memoryview) -> None:
        """What is, or may be, more than a head and what came with it."""
        if message.complete:
            message.reusable = False
        elif self._until_close:
            message.chunks.append(bytes(data))
        elif self._remaining:
            self._take(message, self._remaining, data)
        elif message.head_complete:
            self._feed_chunked(message, data)
        else:
            # More than the head may have: is it complete by then, so that the rest is body?
            room = self._room
            if room:
                self.feed(data[:room])
            if not message.head_complete:
                raise ProtocolViolation("The upstream's response head is too large")
            self.feed(data[room:])

    def _take(self, message: Message, remaining: int, data: bytes | memoryview) -> None:
        """A body with Content-Length need not pass the parser, which then knows nothing of its end."""
        self._parser = None
        if len(data) > remaining:
            data, message.reusable = data[:remaining], False
        self._remaining = remaining - len(data)
        message.chunks.append(bytes(data))
        message.complete = not self._remaining

    def _feed_chunked(self, message: Message, data: bytes | memoryview) -> None:
        assert self._parser is not None
        self._framing_size += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserError:
            if not message.complete:
                raise ProtocolViolation from None
            message.reusable = False
        if self._framing_size > self._head_limit and not message.complete:
            # Trailers are dropped, but the parser collects them first.
            raise ProtocolViolation("The upstream's chunk extensions or trailers are too large")

    # What httptools calls.

    def on_message_begin(self) -> None:
        message = self._message
        if message.complete:
            message.reusable = False
            self._add = _drop
        else:
            raw: list[bytes] = []
            message.raw, self._add = raw, raw.append

    def on_status(self, reason: bytes) -> None:
        message = self._message
        if not message.complete:
            message.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        self._add(b"%b: %b" % (name, value))

    def on_headers_complete(self) -> None:
        message, parser = self._message, self._parser
        if message.complete or parser is None:
            return
        status = parser.get_status_code()
        if status < 200:
            self._absorb(message, status)
            return
        self._add = _drop  # What comes now are trailers.
        message.status = status
        message.head_complete = True
        message.reusable = parser.should_keep_alive()
        self._check_coding(message, parser)
        if self._head_request or status in _BODILESS:
            # No body, whatever the fields say; llhttp would take the length for a body's, and is of no more use.
            message.complete = True
            message.reusable = parser.get_http_version() == "1.1" and not _closes(message)
            self._parser = None

    def _absorb(self, message: Message, status: int) -> None:
        message.reason = b""
        self._interim += 1
        if status == 101 or status < 100 or self._interim > MAX_INTERIM:
            self._problem = "The upstream sent interim responses that nobody asked for"

    def _check_coding(self, message: Message, parser: HttpResponseParser) -> None:
        lines = [raw.lower() for raw in message.raw if raw[:18].lower() == b"transfer-encoding:"]
        if not lines:
            return
        # llhttp takes no tab for a blank here: it would read such a body to the connection's end, chunk sizes and all.
        if [line[18:].strip(b" ") for line in lines] != [b"chunked"]:
            self._problem = "The upstream used a transfer coding that nobody asked for"
        # RFC 9112 section 6.1: HTTP/1.0 has no transfer codings; what follows such a message cannot be trusted.
        message.reusable &= parser.get_http_version() == "1.1"

    def _delimit(self, message: Message) -> None:
        """How the body ends that did not come together with its head (RFC 9112 section 6.3)."""
        names = dict(_lowered(message))
        self._remaining, self._framing_size = None, 0
        if b"transfer-encoding" in names:
            return
        length = names.get(b"content-length")
        if length is None:
            self._until_close = True
        else:
            self._remaining = int(length) - sum(map(len, message.chunks))

    def on_body(self, data: bytes) -> None:
        message = self._message
        if message.complete:
            message.reusable = False
        elif message.head_complete:
            self._framing_size = 0
            message.chunks.append(data)
        else:
            # RFC 9110 section 15.2: interim responses have no content; llhttp believes the framing of most of them.
            self._problem = "The upstream sent an interim response with content"

    def on_message_complete(self) -> None:
        message = self._message
        if message.head_complete:
            message.complete = True


class _HeadCallbacks:
    """What httptools calls where no body may come: it does not tell of a body's first chunk before its content."""

    def __init__(self, parser: ResponseParser) -> None:
        self.on_message_begin = parser.on_message_begin
        self.on_status = parser.on_status
        self.on_header = parser.on_header
        self.on_headers_complete = parser.on_headers_complete
        self.on_body = parser.on_body
        self.on_chunk_header = lambda: parser.on_body(b"")


def _drop(raw: bytes) -> None:
    """Takes what nobody wants."""


def _lowered(message: Message) -> list[Field]:
    return [field for _, field in map(in_lower_case, message.raw)]


def _closes(message: Message) -> bool:
    return any(name == b"connection" and b"close" in value.lower() for name, value in _lowered(message))

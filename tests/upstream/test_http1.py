"""HTTP/1.1 without I/O: every way of cutting a response into pieces, every way of delimiting a body, and the limits."""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy_middleware._fields import Field
from proxy_middleware.errors import ConnectionTerminated, ProtocolViolation, ResponseTruncated
from proxy_middleware.upstream.http1 import LAST_CHUNK, Message, ResponseParser, encode_chunk, encode_head
from tests.wire import chunked

EARLY = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Outcome(NamedTuple):
    """What is known of a response once its bytes are in."""

    status: int
    reason: bytes
    fields: list[Field]
    body: bytes
    complete: bool
    reusable: bool


class Case(NamedTuple):
    """The bytes of a response, and what must come of them."""

    data: bytes
    body: bytes = b"ok"
    reusable: bool = True
    complete: bool = True
    status: int = 200
    reason: bytes = b"OK"
    head: bool = False


CASES = {
    "length": Case(LENGTH + b"ok"),
    "length zero": Case(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
    "length with blanks": Case(b"HTTP/1.1 200 OK\r\nContent-Length:  2 \t\r\n\r\nok"),
    "chunked": Case(CHUNKED + chunked(b"o", b"k")),
    "chunked, capital": Case(b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n" + chunked(b"ok")),
    "chunk extensions": Case(CHUNKED + b'2;a=b;c="d"\r\nok\r\n0;e\r\n\r\n'),
    "trailers": Case(CHUNKED + b"2\r\nok\r\n0\r\nX-Sum: 1\r\nLink:\r\n\r\n"),
    "capital chunk size": Case(CHUNKED + b"00A\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
    "until close": Case(b"HTTP/1.1 200 OK\r\n\r\nok", reusable=False, complete=False),
    "HEAD": Case(LENGTH, b"", head=True),
    "HEAD, chunked": Case(CHUNKED, b"", head=True),
    "HEAD, no framing": Case(b"HTTP/1.1 200 OK\r\n\r\n", b"", head=True),
    "HEAD, close": Case(b"HTTP/1.1 200 OK\r\nConnection: x, Close\r\n\r\n", b"", reusable=False, head=True),
    "HEAD with a body": Case(LENGTH + b"ok", b"", reusable=False, head=True),
    "204": Case(b"HTTP/1.1 204 OK\r\n\r\n", b"", status=204),
    "204 with a body": Case(b"HTTP/1.1 204 OK\r\n\r\nok", b"", reusable=False, status=204),
    "304": Case(b"HTTP/1.1 304 OK\r\nContent-Length: 2\r\n\r\n", b"", status=304),
    "304 with a body": Case(b"HTTP/1.1 304 OK\r\nContent-Length: 2\r\n\r\nok", b"", reusable=False, status=304),
    "interim": Case(EARLY * 8 + LENGTH + b"ok"),
    "interim, HEAD": Case(EARLY + LENGTH, b"", head=True),
    "100": Case(b"HTTP/1.1 100 Continue\r\n\r\n" + LENGTH + b"ok"),
    "close": Case(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok", reusable=False),
    "HTTP/1.0": Case(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", reusable=False),
    "HTTP/1.0 kept alive": Case(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok"),
    # RFC 9112 section 6.1: an HTTP/1.0 message with a transfer coding is faulty; its connection is closed after it.
    "HTTP/1.0 chunked": Case(
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"ok"),
        reusable=False,
    ),
    "HTTP/0.9": Case(b"HTTP/0.9 200 OK\r\nContent-Length: 2\r\n\r\nok", reusable=False),
    "HTTP/2.0": Case(b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok", reusable=False),
    "no reason": Case(b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", reason=b""),
    "empty reason": Case(b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok", reason=b""),
    "long reason": Case(b"HTTP/1.1 200 All \xe9 well\r\nContent-Length: 2\r\n\r\nok", reason=b"All \xe9 well"),
    "600": Case(b"HTTP/1.1 600 OK\r\nContent-Length: 2\r\n\r\nok", status=600),
    "999": Case(b"HTTP/1.1 999 OK\r\nContent-Length: 2\r\n\r\nok", status=999),
    "upgrade offered": Case(
        b"HTTP/1.1 200 OK\r\nUpgrade: h2c\r\nConnection: upgrade\r\nContent-Length: 2\r\n\r\nok", reusable=True
    ),
    "extra after a length": Case(LENGTH + b"okextra", reusable=False),
    "extra after chunks": Case(CHUNKED + chunked(b"ok") + b"extra", reusable=False),
    "extra after no body": Case(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nextra", b"", reusable=False),
    "another response": Case((LENGTH + b"ok") * 2, reusable=False),
    "another after chunks": Case((CHUNKED + chunked(b"ok")) * 2, reusable=False),
    "extra after close": Case(
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nokextra", reusable=False
    ),
}

VIOLATIONS = {
    "garbage": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "no status line": b"<html>hello</html>",
    "HTTP/2": b"HTTP/2 200 OK\r\n\r\n",
    "HTTP/3.0": b"HTTP/3.0 200 OK\r\n\r\n",
    "status 099": b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
    "status of two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
    "status of four digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
    "switching protocols": b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "switching protocols, no field": b"HTTP/1.1 101 Switching\r\n\r\n" + LENGTH + b"ok",
    "nine interim": EARLY * 9 + LENGTH + b"ok",
    "interim with a body": b"HTTP/1.1 103 Early\r\nContent-Length: 5\r\n\r\nabcde" + LENGTH + b"ok",
    "interim in chunks": b"HTTP/1.1 103 Early\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"ab") + LENGTH + b"ok",
    "both framings": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n" + chunked(b"ok"),
    "both, length first": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "the same length twice": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    "lengths in a list": b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
    "signed length": b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
    "negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
    "empty length": b"HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\nok",
    "enormous length": b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nok",
    "other coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok",
    "other coding, HEAD or not": b"HTTP/1.1 204 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
    "two codings": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n" + chunked(b"ok"),
    "chunked twice": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "identity": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nok",
    "obs-fold": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "bare LF in a field": b"HTTP/1.1 200 OK\r\nX: a\nContent-Length: 2\r\n\r\nok",
    "bare CR in a field": b"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 2\r\n\r\nok",
    "NUL in a field": b"HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 2\r\n\r\nok",
    "blank before the colon": b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok",
    "no field name": b"HTTP/1.1 200 OK\r\n: a\r\n\r\nok",
    "chunk size that is none": CHUNKED + b"zz\r\nok\r\n0\r\n\r\n",
    "chunk size with a prefix": CHUNKED + b"0x2\r\nok\r\n0\r\n\r\n",
    "chunk size with a sign": CHUNKED + b"-2\r\nok\r\n0\r\n\r\n",
    "enormous chunk size": CHUNKED + b"fffffffffffffffff\r\nok\r\n0\r\n\r\n",
    "chunk too long": CHUNKED + b"2\r\nokay\r\n0\r\n\r\n",
    "chunks with bare LF": CHUNKED + b"2\nok\n0\n\n",
}


class OneResponse(Message):
    """A message, with a parser of its own."""

    def __init__(self, head_request: bool, head_limit: int) -> None:
        super().__init__()
        parser = ResponseParser(head_limit, lower_case=False)
        parser.begin(self, head_request)
        self.feed, self.eof, self.reset = parser.feed, parser.eof, parser.reset


def parse(pieces: Iterable[bytes], *, head: bool = False, limit: int = 65536) -> OneResponse:
    """What has been made of the pieces."""
    parser = OneResponse(head_request=head, head_limit=limit)
    feed_all(parser, pieces)
    return parser


def feed_all(parser: OneResponse | ResponseParser, pieces: Iterable[bytes]) -> None:
    """Feeds the pieces as the engines do: all out of one buffer, which the next piece overwrites."""
    buffer = bytearray(65536)
    for piece in pieces:
        buffer[: len(piece)] = piece
        parser.feed(memoryview(buffer)[: len(piece)])
        buffer[: len(piece)] = b"\xff" * len(piece)


def outcome(parser: Message) -> Outcome:
    """What came of it; takes the body."""
    return Outcome(parser.status, parser.reason, parser.fields, parser.take(), parser.complete, parser.reusable)


def cut(data: bytes, at: Iterable[int]) -> Iterator[bytes]:
    """The data in pieces, none of them empty."""
    marks = [0, *sorted({mark for mark in at if 0 < mark < len(data)}), len(data)]
    return (data[start:end] for start, end in pairwise(marks))


def ways_to_cut(data: bytes) -> st.SearchStrategy[list[bytes]]:
    """Any pieces that make up the data."""
    return st.sets(st.integers(1, max(len(data) - 1, 1)), max_size=12).map(lambda at: list(cut(data, at)))


def every_byte(data: bytes) -> list[bytes]:
    """The data byte by byte."""
    return list(cut(data, range(len(data))))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
class TestResponses:
    @settings(max_examples=30, deadline=None)
    @given(data=st.data())
    def test_pieces_make_no_difference(self, case: Case, data: st.DataObject) -> None:
        """However a response is cut into pieces, the same comes of it."""
        expected = outcome(parse([case.data], head=case.head))
        assert expected[:2] == (case.status, case.reason)
        assert expected[3:] == (case.body, case.complete, case.reusable)
        for pieces in (every_byte(case.data), data.draw(ways_to_cut(case.data))):
            assert outcome(parse(pieces, head=case.head)) == expected

    def test_end_at_every_byte(self, case: Case) -> None:
        """Wherever the connection ends, a response is complete only if nothing is missing."""
        missing = [length for length in range(len(case.data)) if not self.ends_well(case, length)]
        assert missing == list(range(len(missing)))
        assert self.ends_well(case, len(case.data))
        whole = case.data.index(b"\r\n\r\n", len(missing) - 4) + 4 if not case.complete else None
        assert whole is None or len(missing) == whole

    def ends_well(self, case: Case, length: int) -> bool:
        """Whether the connection may end after so many bytes."""
        parser = parse(every_byte(case.data[:length]) if length else [], head=case.head)
        started = parser.head_complete
        try:
            parser.eof()
        except ConnectionTerminated:
            assert not started
        except ResponseTruncated:
            assert started
        assert not parser.reusable
        return parser.complete

    def test_reset_at_the_end(self, case: Case) -> None:
        """A reset leaves a response whole that its own framing ends, and no other."""
        parser = parse([case.data], head=case.head)
        parser.reset()
        if case.complete:
            parser.eof()
        else:
            with pytest.raises(ResponseTruncated):
                parser.eof()
        assert parser.complete == case.complete


@st.composite
def responses(draw: st.DrawFn) -> tuple[bytes, Outcome]:
    """A well-formed response, and what it says."""
    token = st.text("abcXYZ-09", min_size=1, max_size=8).map(str.encode)
    value = st.binary(max_size=12).map(lambda raw: bytes(b for b in raw if b > 32 and b != 127))
    fields = draw(st.lists(st.tuples(token.map(b"x-".__add__), value), max_size=5))
    pieces = draw(st.lists(st.binary(min_size=1, max_size=40), max_size=5))
    framing = draw(st.sampled_from(["length", "chunked", "close"]))
    body = b"".join(pieces)
    if framing == "length":
        fields.append((b"content-length", b"%d" % len(body)))
    elif framing == "chunked":
        fields.append((b"transfer-encoding", b"chunked"))
    head = b"".join([b"HTTP/1.1 200 OK\r\n", *(b"%b:%b\r\n" % field for field in fields), b"\r\n"])
    data = EARLY * draw(st.integers(0, 8)) + head + (chunked(*pieces) if framing == "chunked" else body)
    whole = framing != "close"
    return data, Outcome(200, b"OK", fields, body, whole, whole)


@settings(max_examples=100, deadline=None)
@given(response=responses(), data=st.data())
def test_any_response(response: tuple[bytes, Outcome], data: st.DataObject) -> None:
    """Fields and body are what the upstream sent, whatever they are and however they arrive."""
    sent, expected = response
    assert outcome(parse(data.draw(ways_to_cut(sent)))) == expected


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=30), max_size=6), st.sampled_from([LENGTH, CHUNKED, EARLY, b""]))
def test_any_bytes(pieces: list[bytes], start: bytes) -> None:
    """No bytes make the parser fail in another way than by its own errors, or call a body whole that is not."""
    try:
        parser = parse([start, *pieces] if start else pieces)
        parser.eof()
    except (ProtocolViolation, ConnectionTerminated, ResponseTruncated):
        return
    assert parser.complete
    if start == LENGTH:
        assert len(parser.take()) == 2


@pytest.mark.parametrize(
    ("data", "head"),
    [
        pytest.param(data, head, id=f"{'HEAD' if head else 'GET'}, {name}")
        for name, data in VIOLATIONS.items()
        for head in (False, True)
        # A response to HEAD has no chunks that could be malformed.
        if not (head and data.startswith(CHUNKED))
    ],
)
def test_violations(data: bytes, head: bool) -> None:
    """What is no well-formed response is refused, however it arrives, and is never complete."""
    for pieces in ([data], every_byte(data), list(cut(data, [len(data) // 2]))):
        parser = OneResponse(head_request=head, head_limit=65536)
        with pytest.raises(ProtocolViolation):
            feed_all(parser, pieces)
        assert not parser.complete


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX: %b\r\n\r\nok" % (b"y" * 3000),
    ],
    ids=["upgrade", "coding", "oversize"],
)
def test_refused_head_is_no_head(data: bytes) -> None:
    """A head that is refused does not count as one, so that a clean error can be answered instead."""
    parser = OneResponse(head_request=False, head_limit=2000)
    with pytest.raises(ProtocolViolation):
        parser.feed(data)
    assert not parser.head_complete
    assert not parser.take()


class TestHeadLimit:
    @staticmethod
    def of_size(size: int, before: bytes = b"") -> bytes:
        """A response whose head, together with what is before it, has so many bytes."""
        start = before + b"HTTP/1.1 200 Fine\r\nContent-Length: 2\r\nX-A: 1\r\nX-B:  2 \r\nX: "
        return start + b"y" * (size - len(start) - 4) + b"\r\n\r\nok"

    @pytest.mark.parametrize("before", [b"", EARLY, EARLY * 8], ids=["plain", "interim", "many interim"])
    @settings(max_examples=50, deadline=None)
    @given(data=st.data())
    def test_exact(self, before: bytes, data: st.DataObject) -> None:
        """A head of exactly the limit passes and one byte more does not, in one piece or in many."""
        for size in (400, 401):
            response = self.of_size(size, before)
            pieces = data.draw(st.just([response]) | st.just(every_byte(response)) | ways_to_cut(response))
            if size == 400:
                assert outcome(parse(pieces, limit=400)).body == b"ok"
            else:
                with pytest.raises(ProtocolViolation):
                    parse(pieces, limit=400)

    def test_body_does_not_count(self) -> None:
        """A body that comes along with the head, however large, is not counted."""
        data = b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n" + b"y" * 60000
        for pieces in ([data], list(cut(data, [30, 50, 1000]))):
            assert len(outcome(parse(pieces, limit=100)).body) == 60000

    @pytest.mark.parametrize("endless", [b"y", b" ", b"X: y\r\n"], ids=["value", "blanks", "fields"])
    def test_endless(self, endless: bytes) -> None:
        """A head without end is refused as soon as it is too large."""
        parser = parse([b"HTTP/1.1 200 OK\r\nA: b\r\nX: "])
        with pytest.raises(ProtocolViolation):
            feed_all(parser, [endless] * (70000 // len(endless)))

    def test_endless_trailers(self) -> None:
        """Trailers have the same limit: nothing an upstream sends is collected without end."""
        parser = parse([CHUNKED + b"0\r\nX: "])
        with pytest.raises(ProtocolViolation):
            feed_all(parser, [b"y" * 4096] * 40)


class TestRequests:
    def test_head(self) -> None:
        """Request line and fields go out byte for byte, in order, with duplicates."""
        fields = [(b"host", b"api.example:8080"), (b"X-A", b"1"), (b"x-a", b""), (b"X-B", b"\xe9 %s")]
        assert encode_head(b"get", b"/a%2Fb/../c?q=%zz", fields) == (
            b"get /a%2Fb/../c?q=%zz HTTP/1.1\r\nhost: api.example:8080\r\nX-A: 1\r\nx-a: \r\nX-B: \xe9 %s\r\n\r\n"
        )

    def test_head_without_fields(self) -> None:
        """A request without fields is a request line and an empty line."""
        assert encode_head(b"GET", b"/", []) == b"GET / HTTP/1.1\r\n\r\n"

    @pytest.mark.parametrize(
        ("data", "chunk"),
        [(b"", b""), (b"a", b"1\r\na\r\n"), (b"y" * 17, b"11\r\n" + b"y" * 17 + b"\r\n")],
        ids=["none", "one", "hexadecimal"],
    )
    def test_chunk(self, data: bytes, chunk: bytes) -> None:
        """A chunk has its size in hexadecimal; no data makes no chunk, which would end the body."""
        assert encode_chunk(data) == chunk

    @settings(deadline=None)
    @given(st.lists(st.binary(max_size=20)))
    def test_chunks_are_a_body(self, pieces: list[bytes]) -> None:
        """What is encoded as chunks reads as the same body."""
        data = CHUNKED + b"".join(map(encode_chunk, pieces)) + LAST_CHUNK
        assert outcome(parse([data])).body == b"".join(pieces)


REUSABLE = sorted(name for name, case in CASES.items() if case.complete and case.reusable)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_one_after_the_other(data: st.DataObject) -> None:
    """A connection's parser makes of each response what a new one would, whatever came before on the connection."""
    parser = ResponseParser(65536, lower_case=False)
    for name in data.draw(st.lists(st.sampled_from(REUSABLE), min_size=1, max_size=5)):
        case = CASES[name]
        message = Message()
        parser.begin(message, case.head)
        feed_all(parser, data.draw(st.just([case.data]) | ways_to_cut(case.data)))
        assert outcome(message) == outcome(parse([case.data], head=case.head))
        assert message.complete

"""Ordinary responses are read line by line: what that accepts, llhttp accepts, too, and the same comes of it.

A head that arrives in two pieces goes to llhttp, whatever it is: the same bytes, cut, show what llhttp makes of them.
"""

from collections.abc import Iterable
from typing import NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy_middleware import _response_fields
from proxy_middleware._fields import Field
from proxy_middleware._response_fields import as_sent, in_lower_case, read_ordinary, read_response
from proxy_middleware.errors import ConnectionTerminated, ProtocolViolation, ResponseTruncated
from proxy_middleware.upstream.http1 import Message, ResponseParser
from tests.wire import chunked

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"o", b"k")
CLOSED = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok"
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"
LIMIT = 2000


class Read(NamedTuple):
    """What came of a response; nothing but `error` where it was refused."""

    error: str
    status: int = 0
    reason: bytes = b""
    fields: tuple[Field, ...] = ()
    kept: tuple[Field, ...] = ()
    body: bytes = b""
    complete: bool = False
    reusable: bool = False


def read(
    pieces: Iterable[bytes],
    *,
    head: bool = False,
    lower_case: bool = False,
    parser: ResponseParser | None = None,
    message: Message | None = None,
) -> Read:
    """What is made of the pieces, and of the connection's end where more should have come."""
    parser, message = parser or ResponseParser(LIMIT, lower_case), message or Message()
    parser.begin(message, head)
    try:
        for piece in pieces:
            parser.feed(memoryview(piece))
        reusable = message.reusable
        if not message.complete:
            parser.eof()
            reusable = False
    except (ProtocolViolation, ConnectionTerminated, ResponseTruncated) as error:
        if not message.head_complete or isinstance(error, ProtocolViolation):
            assert not message.complete
            return Read(type(error).__name__)
        reusable = False
    kept = message.kept if message.kept is not None else sorted_out(message, lower_case)
    error_name = "" if kept is not None else "invalid field"
    body, fields = message.take(), tuple(message.fields)
    return Read(error_name, message.status, message.reason, fields, tuple(kept or ()), body, message.complete, reusable)


def sorted_out(message: Message, lower_case: bool) -> list[Field] | None:
    """The fields that go to the caller, as they are sorted out of any response."""
    bodiless = message.status in (204, 304)
    found = read_response(message.raw, bodiless=bodiless, withhold=False, cache_guard=True, lower_case=lower_case)
    return None if found.invalid else found.kept


def pieces_in_head(data: bytes, at: int) -> list[bytes]:
    """Two pieces, so that the first has a part of the status line only."""
    return [data[: 1 + at % 8], data[1 + at % 8 :]]


def every_byte(data: bytes) -> list[bytes]:
    """The data byte by byte."""
    return [data[at : at + 1] for at in range(len(data))]


STATUS_LINES = st.sampled_from(
    [
        *[b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK", b"HTTP/1.1 404 Not Found", b"HTTP/1.1 599 x", b"HTTP/1.1 200 "],
        *[b"HTTP/1.1 200", b"HTTP/1.1 200\t", b"HTTP/1.1 200  two blanks ", b"HTTP/1.1 200 \xe9\tx", b"HTTP/1.1 200OK"],
        *[
            b"HTTP/1.1 204 No Content",
            b"HTTP/1.1 304 Not Modified",
            b"HTTP/1.1 100 Continue",
            b"HTTP/1.1 101 Switching",
        ],
        *[b"HTTP/1.1 099 x", b"HTTP/1.1 600 x", b"HTTP/1.1 2000 x", b"HTTP/1.1  200 OK", b"HTTP/1.1\t200 OK"],
        *[b"HTTP/1.0 200 OK", b"HTTP/1.10 200 OK", b"HTTP/2.0 200 OK", b"http/1.1 200 OK", b" HTTP/1.1 200 OK"],
        *[
            b"HTTP/1.1 200 a\rb",
            b"HTTP/1.1 200 a\nb",
            b"HTTP/1.1 200 a\0b",
            b"HTTP/1.1 200 a\x7fb",
            b"\r\nHTTP/1.1 200 OK",
        ],
    ]
)
ORDINARY_LINES = st.sampled_from(
    [
        *[
            b"Server: nginx",
            b"Date:Tue, 24 Nov 2026 12:00:00 GMT",
            b"content-type:  text/html ",
            b'ETag: "a"',
            b"X-Empty:",
        ],
        *[
            b"Connection: keep-alive",
            b"Keep-Alive: timeout=5",
            b"Set-Cookie: a=b",
            b"Cache-Control: no-store",
            b"X_y:\t1\t",
        ],
        *[
            b"X-Accel-Redirect: /internal",
            b"Content_Length: 9",
            b"Proxy-Status: cdn; hit",
            b"Vary: \xe9\xff",
            b"Trailer: x",
        ],
    ]
)
ODD_LINES = st.sampled_from(
    [
        *[
            b"Transfer-Encoding: chunked",
            b"transfer-encoding:CHUNKED",
            b"Transfer-Encoding: gzip",
            b"Transfer_Encoding: x",
        ],
        *[b"Transfer-Encoding : chunked", b"Transfer-Encoding:\x0bchunked", b"Transfer-Encoding:", b"TE: trailers"],
        *[b"Connection: close", b"Connection: x-a, close", b"Upgrade: h2c", b"Connection: upgrade", b"X-A: 1"],
        *[
            b" folded",
            b"\tfolded",
            b": no name",
            b"no colon",
            b"X : blank",
            b"X\t: tab",
            b"X\xe9: 1",
            b"(X): 1",
            b"X-A: a\0b",
        ],
        *[
            b"X-A: a\nb",
            b"X-A: a\rb",
            b"X-A: \x7f",
            b"X-A: \x0b",
            b"X-Long: " + b"y" * 300,
            b"X-Longer: " + b"y" * LIMIT,
        ],
        *[b"Cache-Control: public", b"CDN-Cache-Control: x", b"Proxy-Status: proxy_middleware; error=x", b""],
    ]
)
LENGTHS = st.sampled_from(
    [
        *[
            b"Content-Length: 2",
            b"content-length:2",
            b"CONTENT-LENGTH: \t 2 \t",
            b"Content-Length: 0",
            b"Content-Length: 5",
        ],
        *[
            b"Content-Length: 02",
            b"Content-Length: +5",
            b"Content-Length: 0x5",
            b"Content-Length: -1",
            b"Content-Length:",
        ],
        *[b"Content-Length: 2, 2", b"Content-Length: 2 2", b"Content-Length: 2.0", b"Content-Length: \xb2"],
        *[
            b"Content-Length: 999999999999999999",
            b"Content-Length: 1000000000000000000",
            b"Content-Length: " + b"9" * 20,
        ],
        *[
            b"Content-Length : 2",
            b"Content-Length\t: 2",
            b"Content-Length: 2\r",
            b"Content-Length:\n2",
            b"Content-Length: \x0b2",
        ],
    ]
)
USUAL_LENGTHS = st.sampled_from([b"Content-Length: 2", b"content-length:0", b"Content-Length: 5"])
BODIES = st.sampled_from(
    [b"", b"o", b"ok", b"ok\r\n", b"12345", b"123456", b"okHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]
)


@st.composite
def ordinary(draw: st.DrawFn) -> bytes:
    """A response that is ordinary, with a body that is right, too short or too long."""
    lines = [*draw(st.lists(ORDINARY_LINES, max_size=5)), draw(USUAL_LENGTHS)]
    return b"\r\n".join([b"HTTP/1.1 200 OK", *draw(st.permutations(lines)), b"", draw(BODIES)])


@st.composite
def nearly_ordinary(draw: st.DrawFn) -> bytes:
    """A response of which any line may be odd, missing or there twice."""
    lines = draw(st.lists(ORDINARY_LINES | ODD_LINES, max_size=4)) + draw(st.lists(LENGTHS, max_size=2))
    return b"\r\n".join([draw(STATUS_LINES), *draw(st.permutations(lines)), b"", draw(BODIES)])


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """An ordinary response with a few bytes changed, put in or taken out."""
    data = draw(ordinary())
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        put_in = draw(
            st.sampled_from([b"", b"\r", b"\n", b"\0", b" ", b"\t", b":", b"\x85", b"\r\n"]) | st.binary(max_size=2)
        )
        data = data[:start] + put_in + data[start + draw(st.integers(0, 2)) :]
    return data


RESPONSES = ordinary() | nearly_ordinary() | mutated()


def alike(one: Read, other: Read) -> bool:
    """Whether the same came of it, but for `reusable`, which only the short way denies after blank lines."""
    return one._replace(reusable=False) == other._replace(reusable=False)


@settings(max_examples=250, deadline=None)
@example(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok", 3, False)
@example(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\r", 0, False)
@example(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: a\r\n Content-Length: 3\r\n\r\nok", 3, False)
@given(RESPONSES, st.integers(0, 7), st.booleans())
def test_llhttp_agrees(data: bytes, at: int, lower_case: bool) -> None:
    """Status, reason, fields, body and end are the same in both ways, and what one refuses is refused in the other."""
    message = Message()
    whole = read([data], lower_case=lower_case, message=message)
    cut = read(pieces_in_head(data, at), lower_case=lower_case)
    assert alike(whole, cut)
    if message.kept is not None:
        # llhttp takes blank lines between responses for nothing.
        assert whole.reusable == cut.reusable or (cut.reusable and data.endswith((b"\r", b"\n")))


@settings(max_examples=100, deadline=None)
@given(ordinary(), st.booleans())
def test_ordinary_responses_are_read_so(data: bytes, lower_case: bool) -> None:
    """An ordinary response takes the short way, and byte by byte the same comes of it."""
    message = Message()
    whole = read([data], lower_case=lower_case, message=message)
    assert message.kept is not None
    assert alike(whole, read(every_byte(data), lower_case=lower_case))


@settings(max_examples=100, deadline=None)
@given(RESPONSES, st.booleans())
def test_sorted_result(data: bytes, lower_case: bool) -> None:
    """The fields that the short way keeps are those that are sorted out of any response."""
    message = Message()
    read([data], lower_case=lower_case, message=message)
    if message.kept is not None:
        found = read_response(message.raw, bodiless=False, withhold=False, cache_guard=True, lower_case=lower_case)
        assert (message.kept, True, False) == (found.kept, found.has_length, found.invalid)


@settings(max_examples=100, deadline=None)
@given(RESPONSES, st.integers(0, 7))
def test_head_requests(data: bytes, at: int) -> None:
    """A response to HEAD never takes the short way, and has no body, however it arrives."""
    message = Message()
    whole = read([data], head=True, message=message)
    assert alike(whole, read(pieces_in_head(data, at), head=True))
    assert message.kept is None
    assert not whole.body


FOLLOWING = st.lists(st.tuples(ordinary() | st.sampled_from([CHUNKED, CLOSED, NO_CONTENT]), st.booleans()), max_size=5)


@settings(max_examples=100, deadline=None)
@given(FOLLOWING, RESPONSES)
def test_nothing_is_left_behind(before: list[tuple[bytes, bool]], last: bytes) -> None:
    """Of each response on a connection the same comes as on a new one, whichever way those before it took."""
    parser = ResponseParser(LIMIT, lower_case=False)
    for data, cut in [*before, (last, False)]:
        pieces = pieces_in_head(data, 0) if cut else [data]
        found = read(pieces, parser=parser)
        assert found == read(pieces)
        if not found.reusable:
            return


@pytest.mark.parametrize("order", [(0, 1, 0), (1, 0, 1), (0, 0, 1), (0, 2, 0), (1, 0, 2)], ids=str)
def test_one_way_after_the_other(order: tuple[int, ...]) -> None:
    """On one connection, the short way may follow llhttp and llhttp the short way."""
    parser = ResponseParser(LIMIT, lower_case=False)
    short = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    for kind in order:
        found = read([(short, CHUNKED, NO_CONTENT)[kind]], parser=parser)
        assert (found.error, found.complete, found.reusable) == ("", True, True)
        assert found.body == (b"ok", b"ok", b"")[kind]


@pytest.mark.parametrize(
    "rest",
    [b"2", b"2;a=b", b"ok", b"0\r\n\r\n", b"\r\n2"],
)
def test_bytes_after_a_head_without_body(rest: bytes) -> None:
    """What follows where no body may come makes the connection useless, even a chunk size that is not finished."""
    for head, status in ((True, b"200 OK"), (True, b"404 Not Found"), (False, b"304 Not Modified")):
        data = b"HTTP/1.1 %b\r\nTransfer-Encoding: chunked\r\n\r\n%b" % (status, rest)
        assert not read([data], head=head).reusable


@pytest.mark.parametrize("value", [b"chunked\t", b"chunked \t", b"chunked\t "])
def test_tab_after_chunked(value: bytes) -> None:
    """A coding that llhttp does not read as `chunked` is refused, before any of the body is passed on."""
    data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: %b\r\n\r\n2\r\nok\r\n0\r\n\r\n" % value
    for pieces in ([data], every_byte(data)):
        assert read(pieces).error == "ProtocolViolation"


def test_switched_protocols_after_the_end() -> None:
    """A whole response stays one, however it arrives, if what follows it is an unasked 101."""
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    after = b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"
    for pieces in ([data + after], [data, after], pieces_in_head(data + after, 0), every_byte(data + after)):
        found = read(pieces)
        assert (found.error, found.body, found.complete, found.reusable) == ("", b"ok", True, False)


# The table of lines.

UNUSUAL = [b"Set-Cookie: session=1", b"X-Token: s3cret", b"Authorization: Bearer x", b'ETag: "a"', b"Location: /?key=1"]


@pytest.mark.parametrize("table", [as_sent, in_lower_case], ids=["as sent", "lower case"])
class TestLines:
    @staticmethod
    def known(table: object) -> dict[bytes, _response_fields.Line]:
        """What the table remembers."""
        lines = getattr(table, "__self__", None)
        assert isinstance(lines, dict)
        return lines

    def test_bounded(self, table: object) -> None:
        """However many lines an upstream thinks up, no more than a bound are remembered, and none that is long."""
        lines = self.known(table)
        for number in range(5000):
            assert lines[b"Server: %d" % number][1][1] == b"%d" % number
            assert len(lines) <= 2048
        long = b"Server: " + b"y" * 300
        assert lines[long][1][1] == b"y" * 300
        assert long not in lines

    @pytest.mark.parametrize("line", [*UNUSUAL, *[line.upper() for line in UNUSUAL], b"no line", b"X\r\n: a", b": a"])
    def test_only_usual_names(self, table: object, line: bytes) -> None:
        """No line is kept whose name is not a usual one: cookies, tokens and what an upstream makes up."""
        lines = self.known(table)
        assert lines[line] == lines[line]
        assert line not in lines

    @settings(max_examples=100, deadline=None)
    @given(data=st.data())
    def test_forgetting_changes_nothing(self, table: object, data: st.DataObject) -> None:
        """A line is judged the same whether it has been seen before, was forgotten, or is new."""
        lines = self.known(table)
        raw = data.draw(ORDINARY_LINES | ODD_LINES | LENGTHS | st.binary(max_size=20))
        first, second = lines[raw], lines[raw]
        lines.clear()
        assert first == second == lines[raw]
        assert all(b"cookie" not in known.lower() for known in lines)


@settings(max_examples=100, deadline=None)
@given(st.lists(ORDINARY_LINES | ODD_LINES | LENGTHS, max_size=5), st.booleans())
def test_one_length_and_no_other_framing(lines: list[bytes], lower_case: bool) -> None:
    """Lines are ordinary only with exactly one Content-Length in plain digits, and none that frames, too."""
    found = read_ordinary(lines, lower_case)
    if found is not None:
        named = [line.partition(b":") for line in lines]
        (digits,) = [value.strip(b" \t") for name, _, value in named if name.lower() == b"content-length"]
        assert digits.isdigit()
        assert found[1] == int(digits)
        assert not any(name.strip(b" \t").lower() == b"transfer-encoding" for name, _, _ in named)

"""What an upstream sends, through the parser of a connection's responses.

An input is all that arrives on one connection; a GS character separates what answers one request from what answers the
next. Its checksum decides where the head is cut and whether the first request was a HEAD.
"""

import re
from typing import NamedTuple
from zlib import crc32

from proxy_middleware._fields import Field
from proxy_middleware._response_fields import read_response
from proxy_middleware.errors import ConnectionTerminated, ProtocolViolation, ResponseTruncated
from proxy_middleware.upstream.http1 import Message, ResponseParser
from tests.fuzz import oracle

NEXT = b"\x1d"
HEAD_LIMIT = 1000
_BREAKS = re.compile(rb"[\r\n\0]")


class Arrived(NamedTuple):
    """What came of one response that was not refused."""

    status: int
    reason: bytes
    fields: list[Field]
    kept: list[Field]
    body: bytes
    ended: str
    reusable: bool


def check(data: bytes) -> str:
    """The responses of one connection: read one after the other, alone and cut inside the head, and as the RFC says."""
    mark = crc32(data)
    head, lower_case = not mark & 15, bool(mark & 16)
    parser = ResponseParser(HEAD_LIMIT, lower_case)
    outcome = ""
    for part in data.split(NEXT, 2):
        message = Message()
        found = _read(parser, message, (part,), head, lower_case)
        ordinary = message.kept is not None
        reusable = found is not None and found.reusable
        if ordinary or not mark & 0x1E0:
            # The short way is for heads in one piece only, so that the pieces go the long way.
            at, then = 1 + (mark >> 9) % 40, (mark >> 9) % (len(part) + 40)
            again = _read_alone((part[:at], part[at:then], part[max(at, then) :]), head, lower_case)
            assert _alike(found, again), f"in one piece {found}, cut at {at} and {then} {again}"
            reusable = reusable or (again is not None and again.reusable)
        if found is not None and found.ended != "no head":
            _judge(part, head, found, reusable)
        outcome = _summary(found, ordinary, head)
        if found is None or not found.reusable:
            break
        head = False
    parser.close()
    return outcome


def _read_alone(pieces: tuple[bytes, ...], head: bool, lower_case: bool) -> Arrived | None:
    parser = ResponseParser(HEAD_LIMIT, lower_case)
    found = _read(parser, Message(), pieces, head, lower_case)
    parser.close()
    return found


def _read(
    parser: ResponseParser, message: Message, pieces: tuple[bytes, ...], head: bool, lower_case: bool
) -> Arrived | None:
    """What came of the response; None where it is refused."""
    parser.begin(message, head)
    try:
        for piece in pieces:
            if piece:
                parser.feed(memoryview(piece))
    except ProtocolViolation:
        assert not message.complete
        return None
    ended, reusable = "whole", message.reusable
    if not message.complete:
        ended, reusable = _end(parser), False
        if ended == "no head":
            assert not message.chunks
            return Arrived(0, b"", [], [], b"", ended, False)
    kept = message.kept
    if kept is None:
        sorted_out = read_response(
            message.raw,
            bodiless=message.status in (204, 304),
            withhold=False,
            cache_guard=True,
            lower_case=lower_case,
        )
        if sorted_out.invalid:
            return None
        kept = sorted_out.kept
    return Arrived(message.status, message.reason, message.fields, kept, message.take(), ended, reusable)


def _end(parser: ResponseParser) -> str:
    try:
        parser.eof()
    except ConnectionTerminated:
        return "no head"
    except ResponseTruncated:
        return "truncated"
    return "closed"


def _alike(found: Arrived | None, other: Arrived | None) -> bool:
    """Whether the same came of it. `reusable` is judged alone: llhttp heeds `Proxy-Connection`, skips blank lines."""
    return (found and found[:-1]) == (other and other[:-1])


def _summary(found: Arrived | None, ordinary: bool, head: bool) -> str:
    if found is None:
        return "refused"
    way = "ordinary" if ordinary else "HEAD" if head else "llhttp"
    return f"{way}, {found.status // 100}xx, {found.ended}{', reusable' if found.reusable else ''}"


def _judge(data: bytes, head_request: bool, found: Arrived, reusable: bool) -> None:
    """Holds what was accepted against a strict reading of the same bytes."""
    head = oracle.read_response_head(data)
    assert found.status == head.status
    assert 200 <= found.status <= 999
    assert found.fields == head.fields
    assert not _BREAKS.search(b" ".join(map(b":".join, found.kept))), "a field could be broken in two"
    assert b"\n" not in found.reason
    assert b"\r" not in found.reason
    _judge_body(head, head_request, found, reusable)


def _judge_body(head: oracle.Head, head_request: bool, found: Arrived, reusable: bool) -> None:
    """How a body ends (RFC 9112 section 6.3)."""
    lengths, codings = oracle.values(head.fields, b"content-length"), oracle.values(head.fields, b"transfer-encoding")
    left: bytes | None
    if head_request or head.status in (204, 304):
        body, left = b"", head.rest
    elif codings:
        assert not lengths
        assert [coding.lower() for coding in codings] == [b"chunked"]
        body, left = oracle.dechunk(head.rest)
    elif lengths:
        (digits,) = lengths
        assert digits.isdigit()
        length = int(digits)
        body, left = head.rest[:length], head.rest[length:] if len(head.rest) >= length else None
    else:
        assert found.ended == "closed"
        assert not reusable
        assert found.body == head.rest
        return
    assert found.body == body
    assert found.ended == ("truncated" if left is None else "whole")
    # llhttp takes blank lines between responses for nothing.
    assert not (reusable and left and left.strip(b"\r\n")), (
        "bytes that nobody asked for, on a connection to be used again"
    )

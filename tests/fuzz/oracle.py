"""What the RFCs say, written a second time, strictly and without anything of the package."""

import re
from typing import NamedTuple

Field = tuple[bytes, bytes]

_TOKEN = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_FIELD_VALUE = re.compile(rb"[^\x00-\x08\x0a-\x1f\x7f]*")
_STATUS_LINE = re.compile(rb"HTTP/([0-9])\.([0-9]) ([0-9]{3})(?: (.*))?", re.DOTALL)
_REQUEST_LINE = re.compile(rb"([A-Za-z0-9!#$%&'*+.^_`|~-]+) (/[!-~]*) HTTP/1\.1")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_CHUNK_SIZE = re.compile(rb"0*[0-9A-Fa-f]{1,16}(?=[ \t]*(?:;|\Z))")


class Head(NamedTuple):
    """A status line, the fields, and what follows them."""

    version: tuple[int, int]
    status: int
    fields: list[Field]
    rest: bytes


def read_fields(lines: list[bytes]) -> list[Field]:
    """Field lines taken apart (RFC 9112 section 5).

    Raises:
        ValueError: One is malformed.
    """
    fields = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not _TOKEN.fullmatch(name) or b"\n" in value or b"\r" in value or b"\0" in value:
            raise ValueError(f"malformed field line {line!r}")
        fields.append((name, value.strip(b" \t")))
    return fields


def read_response_head(data: bytes) -> Head:
    """The final head, behind all interim ones (RFC 9110 section 15.2).

    Raises:
        ValueError: There is none.
    """
    while True:
        head, end, rest = data.lstrip(b"\r\n").partition(b"\r\n\r\n")
        status_line, *lines = head.split(b"\r\n")
        found = _STATUS_LINE.fullmatch(status_line)
        if not end or not found:
            raise ValueError("no response head")
        status = int(found[3])
        if status == 101:
            raise ValueError("protocols are switched, and nobody asked for it")
        if status >= 200:
            return Head((int(found[1]), int(found[2])), status, read_fields(lines), rest)
        data = rest


def values(fields: list[Field], name: bytes) -> list[bytes]:
    """The values of all fields of this name."""
    return [value for key, value in fields if key.lower() == name]


def dechunk(data: bytes) -> tuple[bytes, bytes | None]:
    """A chunked body, and what follows it; None where its end is missing (RFC 9112 section 7.1).

    Raises:
        ValueError: It is malformed.
    """
    body = b""
    while True:
        line, end, data = data.partition(b"\r\n")
        if not end:
            return body, None
        found = _CHUNK_SIZE.match(line)
        if found is None:
            raise ValueError(f"malformed chunk {line!r}")
        size = int(found[0], 16)
        if not size:
            return body, _after_trailers(data)
        body, data = body + data[:size], data[size:]
        if data[:2] != b"\r\n"[: len(data)]:
            raise ValueError("a chunk is longer than it says")
        if len(data) < 2:
            return body, None
        data = data[2:]


def _after_trailers(data: bytes) -> bytes | None:
    while True:
        line, end, data = data.partition(b"\r\n")
        if not end:
            return None
        if not line:
            return data


def request_framing(fields: list[Field]) -> tuple[int | None, bool] | None:
    """Length and whether it is chunked; None where it is to be refused (RFC 9112 sections 5.1, 5.5 and 6.3)."""
    for name, value in fields:
        if not _TOKEN.fullmatch(name) or not _FIELD_VALUE.fullmatch(value):
            return None
    lengths, codings = values(fields, b"content-length"), values(fields, b"transfer-encoding")
    if len(lengths) + len(codings) > 1:
        return None
    if lengths:
        return (int(lengths[0]), False) if _LENGTH.fullmatch(lengths[0]) else None
    if codings:
        return (None, True) if codings[0].strip(b" \t").lower() == b"chunked" else None
    return None, False


def read_request_head(data: bytes) -> tuple[bytes, bytes, list[Field]]:
    """Method, target and fields of a request with nothing behind its head.

    Raises:
        ValueError: It is malformed.
    """
    head, end, rest = data.partition(b"\r\n\r\n")
    request_line, *lines = head.split(b"\r\n")
    found = _REQUEST_LINE.fullmatch(request_line)
    if not end or rest or not found:
        raise ValueError("malformed request head")
    return found[1], found[2], read_fields(lines)

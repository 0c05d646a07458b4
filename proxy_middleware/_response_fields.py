"""The upstream's header fields: which of them go to the caller, and what they say of the response.

Most lines of a response were in the one before it, too: `Content-Type: application/json`. So a line is taken apart and
judged once; where its name is a usual one, every later line that is the same is a single dict access.
"""

import re
from collections.abc import Callable, Sequence

from proxy_middleware._fields import HOP_BY_HOP, Field, NameTable, canonical, connection_options, is_token

# What a line is. Of ordinary responses all lines are of the first three kinds.
PASS, LENGTH, DROP, CODING, CLOSE, OPTIONS, SHARED, CDN, FORGED, INVALID = range(10)
_DROPPED = frozenset({DROP, CODING, CLOSE, OPTIONS, INVALID})

# Fields by which a front server (nginx, lighttpd, Apache, Perlbal, LiteSpeed) is told to serve its internal files.
_FRONT_SERVER = (b"x-accel-", b"x-sendfile", b"x-lighttpd-send-file", b"x-reproxy-", b"x-litespeed-")
# Fields that act on the whole origin they come from, which here is the host application's.
_ORIGIN_WIDE = frozenset(
    b"set-cookie set-cookie2 clear-site-data strict-transport-security alt-svc nel report-to reporting-endpoints "
    b"service-worker-allowed accept-ch refresh origin-agent-cluster".split()
)
_CLASSES = {
    b"content-length": LENGTH,
    b"transfer-encoding": CODING,
    b"upgrade": CODING,
    b"connection": OPTIONS,
    b"cache-control": SHARED,
    b"cdn-cache-control": CDN,
    b"surrogate-control": CDN,
    b"proxy-status": FORGED,
}
# Names whose values are few, and no secrets.
_USUAL = frozenset(
    b"accept-ranges access-control-allow-credentials access-control-allow-headers access-control-allow-methods "
    b"access-control-allow-origin access-control-expose-headers access-control-max-age age allow alt-svc cache-control "
    b"cf-cache-status connection content-encoding content-language content-length content-security-policy content-type "
    b"cross-origin-opener-policy cross-origin-resource-policy date expires keep-alive permissions-policy pragma "
    b"referrer-policy server strict-transport-security transfer-encoding vary via x-content-type-options "
    b"x-dns-prefetch-control x-frame-options x-permitted-cross-domain-policies x-powered-by x-xss-protection".split()
)
_KNOWN_LINES, _KNOWN_SIZE = 2048, 256
_LINE = re.compile(rb"([!#-'*+.^-z|~0-9A-Z-]+):[ \t]*([\t -~\x80-\xff]*)")
_FETCH_METADATA = b"sec-fetch-dest, sec-fetch-mode, sec-fetch-site"
_DIGITS = re.compile(rb"[0-9]{1,18}")


# What is known of a line: its kind, and its field.
Line = tuple[int, Field]


class _Lines(dict[bytes, Line]):
    """Raw line, without CRLF -> Line. Remembers those with usual names, up to a bound that no upstream can exceed."""

    def __init__(self, spell: Callable[[bytes], bytes]) -> None:
        self._spell = spell

    def __missing__(self, raw: bytes) -> Line:
        found = _LINE.fullmatch(raw)
        if found is None:
            return INVALID, (raw, b"")
        name, value = found[1], found[2].rstrip(b" \t")
        line = _judge(_classify(name), value), (self._spell(name), value)
        if len(raw) <= _KNOWN_SIZE and name.lower() in _USUAL:
            if len(self) >= _KNOWN_LINES:
                self.clear()
            self[raw] = line
        return line


# The line of its raw bytes, such as b"Server: x": as the upstream spelled it, and in lower case, as ASGI wants it.
as_sent = _Lines(bytes).__getitem__
in_lower_case = _Lines(bytes.lower).__getitem__


def _class_of(name: bytes) -> int:
    if not is_token(name):
        return INVALID
    lower, alike = name.lower(), canonical(name)
    if lower in _CLASSES:
        return _CLASSES[lower]
    # `Content_Length` is no framing, but must not become one behind a server that reads "_" as "-".
    if alike in HOP_BY_HOP or alike in _CLASSES or alike.startswith(_FRONT_SERVER):
        return DROP
    if alike.endswith(b"-cdn-cache-control"):
        return CDN
    return PASS


_classify = NameTable(_class_of).__getitem__


def _is_origin_wide(name: bytes) -> bool:
    alike = canonical(name)
    return alike in _ORIGIN_WIDE or alike.startswith(b"access-control-")


_acts_on_origin = NameTable(_is_origin_wide).__getitem__


def _judge(kind: int, value: bytes) -> int:
    """The kind of a line whose name has been classified."""
    if kind == LENGTH:
        return LENGTH if _DIGITS.fullmatch(value) else INVALID
    if kind == OPTIONS:
        return {b"keep-alive": DROP, b"close": CLOSE}.get(value.lower(), OPTIONS)
    lower = value.lower()
    if kind == SHARED:
        # RFC 9111 section 3.5: what lets shared caches store the answer to a request with Authorization.
        return SHARED if b"public" in lower or b"s-maxage" in lower or b"must-revalidate" in lower else PASS
    return PASS if kind == FORGED and b"proxy_middleware" not in lower else kind


class ResponseFields:
    """What a pass over the upstream's lines found.

    Attributes:
        kept: The fields that go to the caller, in order.
        has_length: Whether a Content-Length is among them.
        invalid: Whether a line is malformed.
    """

    kept: list[Field]
    has_length = False
    invalid = False


def read_ordinary(raw: Sequence[bytes], lower_case: bool) -> tuple[list[Field], int] | None:
    """The fields that go to a caller from whom nothing is withheld, and the body's length.

    Args:
        raw: The lines.
        lower_case: Whether names are put in lower case.

    Returns:
        None where that is not all there is to it: `read_response` does what is left to do, and other lines than
        `Content-Length` may say where the body ends.
    """
    kept: list[Field] = []
    length = None
    keep = kept.append
    for kind, field in map(in_lower_case if lower_case else as_sent, raw):
        if not kind:
            keep(field)
        elif kind == LENGTH:
            if length is not None:
                return None
            length = int(field[1])
            keep(field)
        elif kind != DROP:
            return None
    return None if length is None else (kept, length)


def read_response(
    raw: Sequence[bytes], *, bodiless: bool, withhold: bool, cache_guard: bool, lower_case: bool = False
) -> ResponseFields:
    """Sorts the upstream's lines.

    Args:
        raw: As the upstream sent them, without CRLF.
        bodiless: The status is 204 or 304, so that no Content-Length goes on (uvicorn and gevent fail on one).
        withhold: Whether fields that act on the host's whole origin are withheld, because a browser may read them, and
            its cache is told to tell fetches from navigations.
        cache_guard: Whether shared caches are told not to store what they otherwise might.
        lower_case: Whether names are put in lower case.
    """
    found = ResponseFields()
    found.kept = kept = []
    nominated: set[bytes] = set()
    shared = False
    for kind, field in map(in_lower_case if lower_case else as_sent, raw):
        if kind == LENGTH and not bodiless:
            found.has_length = True
        elif kind == OPTIONS:
            nominated |= connection_options(field[1])
        elif kind == FORGED:
            field = field[0], _without_our_member(field[1])
        elif kind == INVALID:
            found.invalid = True
        shared |= kind in (SHARED, CDN)
        dropped = kind in _DROPPED or (bodiless and kind == LENGTH) or (withhold and _acts_on_origin(field[0]))
        if not dropped and not (cache_guard and kind == CDN) and (field[1] or kind != FORGED):
            kept.append(field)
    # Content-Length is framing, which no Connection option can take away.
    if nominated and (nominated := nominated - HOP_BY_HOP - {b"close", b"content-length"}):
        found.kept = [field for field in kept if canonical(field[0]) not in nominated]
    if shared and cache_guard:
        found.kept.append((b"cdn-cache-control", b"no-store"))
    if withhold:
        # Else a browser's cache would hand what a page has fetched to a navigation, which nobody would judge then
        # (Fetch Metadata, "Vary").
        found.kept = _varying(found.kept)
    return found


def _varying(kept: list[Field]) -> list[Field]:
    """The fields with one Vary that has ours, too: a host's CORS middleware may keep the first of several only."""
    values = [value for name, value in kept if name.lower() == b"vary"]
    others = [field for field in kept if field[0].lower() != b"vary"]
    return [*others, (b"vary", b", ".join([*values, _FETCH_METADATA]))]


def _without_our_member(value: bytes) -> bytes:
    """A Proxy-Status value without members of our own name, so that only the proxy can set its mark (RFC 9209)."""
    members = value.split(b",")
    # A comma may stand inside a quoted string; a value that plays with quotes is not worth taking apart.
    if b'"' in value:
        return b""
    return b",".join(member for member in members if b"proxy_middleware" not in member.lower()).strip()

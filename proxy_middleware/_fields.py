"""Header fields: which are passed on, which are dropped, and what they say about framing.

A field is one header line, `(name, value)`, as bytes; fields are an ordered sequence of them, never a dict. Names are
looked up in a table that learns: the first sight of a name classifies it, every later one is a single dict access.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from types import MappingProxyType
from typing import TypeVar

from proxy_middleware.errors import InvalidRequest

Field = tuple[bytes, bytes]

PASS, DROP, INVALID, LENGTH, CODING, CONNECTION, COOKIE, BROWSER = range(8)

# RFC 9110 section 5.6.2 and 5.5: what a name and a value may consist of.
_TOKEN = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_VALUE = bytes([0x09, *range(0x20, 0x7F), *range(0x80, 0x100)])

# RFC 9110 section 7.6.1, with the historical ones that real servers send.
HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-connection proxy-authenticate proxy-authorization te trailer transfer-encoding "
    b"upgrade http2-settings".split()
)
# The proxy's own infrastructure: a published list, then what else would speak for the host or reach its neighbours.
_INFRASTRUCTURE = frozenset(
    b"host x-request-id x-real-ip x-forwarded-for x-forwarded-host x-forwarded-port x-forwarded-proto "
    b"x-forwarded-scheme x-scheme x-original-forwarded-for x-different-name x-request-start x-using-nginx-controller "
    b"x-amzn-trace-id forwarded-for-header proxy-protocol real-ip-header real-ip-recursive cdn-loop cf-ipcountry "
    b"cf-ray cf-visitor cf-connecting-ip authorization content-length "
    b"proxy forwarded expect membrane-api-version".split()
)
_REQUEST = {
    b"content-length": LENGTH,
    b"transfer-encoding": CODING,
    b"connection": CONNECTION,
    b"cookie": COOKIE,
    b"referer": BROWSER,
    b"origin": BROWSER,
    b"sec-fetch-site": BROWSER,
    b"sec-fetch-mode": BROWSER,
    b"sec-fetch-dest": BROWSER,
}


_T = TypeVar("_T")


class NameTable(dict[bytes, _T]):
    """Name -> what is to be known of it; remembers what it has seen, up to a bound that no caller can exceed."""

    def __init__(self, learn: Callable[[bytes], _T]) -> None:
        self._learn = learn

    def __missing__(self, name: bytes) -> _T:
        value = self._learn(name)
        if len(self) < 2048 and len(name) <= 64:
            self[name] = value
        return value


# A name as it is compared: lower case, and `_` read as `-`, as CGI-like servers do.
canonical = NameTable(lambda name: name.lower().replace(b"_", b"-")).__getitem__


_value_of = itemgetter(1)


def is_token(name: bytes) -> bool:
    """Whether this may be a field name or a method (RFC 9110 section 5.6.2)."""
    return bool(name) and not name.translate(None, _TOKEN)


def clean_values(fields: Iterable[Field]) -> bool:
    """Whether no value has a control character (RFC 9110 section 5.5)."""
    return not b"".join(map(_value_of, fields)).translate(None, _VALUE)


def _classify_request(name: bytes) -> int:
    if not is_token(name):
        return INVALID
    lower = name.lower()
    if lower in _REQUEST:
        return _REQUEST[lower]
    alike = canonical(name)
    # `Content_Length` is no framing, but must not become one behind a server that reads "_" as "-".
    return DROP if alike in _INFRASTRUCTURE or alike in HOP_BY_HOP or alike == b"cookie" else PASS


_request_table = NameTable(_classify_request)


class RequestFields:
    """What a pass over the caller's fields found.

    Attributes:
        kept: The fields that go upstream, in order.
        length: The declared body length in bytes, or None.
        chunked: Whether the body is chunked.
        cookies: Values of the Cookie fields, which are not among `kept`.
        browser: The browser's marks (`origin`, `sec-fetch-*`, `referer`) by lower-case name.
        special: Whether any of these is there, or a Connection field.
    """

    kept: list[Field]
    special = False
    length: int | None = None
    chunked = False
    cookies: Sequence[bytes] = ()
    browser: Mapping[bytes, bytes] = MappingProxyType({})


def read_request(fields: Sequence[Field]) -> RequestFields:
    """Sorts the caller's fields in one pass.

    Raises:
        InvalidRequest: On a malformed name or value, or framing that could be read in two ways (RFC 9112 section 6.3).
    """
    found = RequestFields()
    found.kept = kept = []
    special: list[tuple[int, bytes, bytes]] = []
    for field in fields:
        action = _request_table[field[0]]
        if action == PASS:
            kept.append(field)
        elif action != DROP:
            special.append((action, *field))
            if action == BROWSER:
                kept.append(field)
    if not clean_values(fields):
        raise InvalidRequest("A header field has a control character")
    if special:
        found.special = True
        _read_special(found, special)
    return found


def _read_special(found: RequestFields, special: list[tuple[int, bytes, bytes]]) -> None:
    nominated: set[bytes] = set()
    for action, name, value in special:
        if action == INVALID:
            raise InvalidRequest("A header field's name is malformed")
        if action == LENGTH:
            if found.length is not None or not value.isdigit() or len(value) > 18:
                raise InvalidRequest("Content-Length is malformed or given twice")
            found.length = int(value)
        elif action == CODING:
            if found.chunked or value.strip(b" \t").lower() != b"chunked":
                raise InvalidRequest("Only the transfer coding `chunked` is understood")
            found.chunked = True
        elif action == CONNECTION:
            nominated |= connection_options(value)
        elif action == COOKIE:
            found.cookies = [*found.cookies, value]
        else:
            found.browser = {**found.browser, name.lower(): value}
    if found.chunked and found.length is not None:
        raise InvalidRequest("Transfer-Encoding and Content-Length exclude each other")
    if nominated - HOP_BY_HOP - {b"close"}:
        found.kept = [field for field in found.kept if canonical(field[0]) not in nominated]
        if b"cookie" in nominated:
            found.cookies = []


def connection_options(value: bytes) -> set[bytes]:
    """The field names that a Connection field nominates as hop-by-hop, canonical (RFC 9110 section 7.6.1)."""
    return {canonical(option.strip(b" \t")) for option in value.split(b",")}

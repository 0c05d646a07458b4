"""What a caller sends: its fields as they are sorted, and the request that goes upstream in the end.

An input is lines with RS between them; US separates a field's name from its value. For `framing`, the first two lines
are method and target. The checksum decides about everything else.
"""

from collections.abc import Sequence
from typing import Any
from zlib import crc32

from proxy_middleware import BrowserPolicy, Connection, Credential, Limits, ProxyError, ProxyRequest, Replay, Timeouts
from proxy_middleware._exchange import Rules, exchange
from proxy_middleware._fields import Field, read_request
from proxy_middleware._steps import Authenticate, Forward, Obtain, Obtained, Probe, Resolve
from proxy_middleware.errors import InvalidRequest
from proxy_middleware.upstream.http1 import encode_head
from tests.fuzz import oracle
from tests.test_fields import DROPPED

LINE, COLON = b"\x1e", b"\x1f"
_NEVER_SENT = frozenset(
    name.replace("_", "-").encode() for name in (*DROPPED, "connection", "content-length", "cookie")
)
_NEVER_SENT |= {b"transfer-encoding"}
_RULES = Rules(Limits(), Timeouts(), BrowserPolicy(forward_cookies=True), Replay(), True, 599, True)
_CONNECTIONS = [
    Connection("a", "https://api.example.com"),
    Connection("b", "http://[2001:db8::1]:8080/v1", allowed_origins=["*"], headers={"X-Added": "1", "Accept": "*/*"}),
]
_CREDENTIALS = [
    Credential.bearer("credential"),
    Credential.combine(Credential.query("key", "credential"), Credential.cookie("key", "credential")),
]


class _Body:
    def expect(self, length: int | None) -> None:
        self.length = length


def check_fields(data: bytes) -> str:
    """The caller's fields: refused where they could be read in two ways, else sorted as the RFCs and the list say."""
    fields = _fields(data.split(LINE))
    framing = oracle.request_framing(fields)
    try:
        found = read_request(fields)
    except InvalidRequest:
        assert framing is None, f"refused, although it says {framing}"
        return "refused"
    assert framing == (found.length, found.chunked), f"{framing} read as {found.length}, {found.chunked}"
    kept, undecided = _kept(fields)
    assert [field for field in found.kept if field[0].lower() not in undecided] == kept
    return "length" if found.length is not None else "chunked" if found.chunked else "no framing"


def check_framing(data: bytes) -> str:
    """The request that goes upstream, read again by somebody else: one Host, one framing, nothing of the caller's."""
    mark = crc32(data)
    method, target, *lines = [*data.split(LINE), b""][:40]
    fields, version = _fields(lines), ("1.1", "1.1", "2", "1.0")[mark & 3]
    connection, credential = _CONNECTIONS[mark >> 2 & 1], _CREDENTIALS[mark >> 3 & 1]
    has_body = bool(mark >> 4 & 1)
    request = ProxyRequest(method.decode("latin-1"), connection.id, target, fields)
    try:
        forward = _forwarded(request, version, connection, credential, has_body)
    except ProxyError as error:
        return type(error).__name__
    sent_method, sent_target, sent = oracle.read_request_head(
        encode_head(forward.method, forward.target, forward.fields)
    )
    assert (sent_method, sent_target) == (method, forward.target)
    assert sent == [(name, value.strip(b" \t")) for name, value in forward.fields]
    _judge(sent, forward, fields, has_body and version == "2")
    return f"HTTP/{version} sent on, {'chunked' if forward.chunked else 'length' if forward.body else 'no body'}"


def _fields(lines: Sequence[bytes]) -> list[Field]:
    return [(name, value) for name, _, value in (line.partition(COLON) for line in lines if line)]


def _kept(fields: Sequence[Field]) -> tuple[list[Field], frozenset[bytes]]:
    """The fields that are passed on, but for a field called `close`, which is an option and no field's name."""
    nominated = {
        option.strip(b" \t").lower().replace(b"_", b"-")
        for name, value in fields
        if name.lower() == b"connection"
        for option in value.split(b",")
    }
    gone = _NEVER_SENT | nominated | {b"close"}
    return [field for field in fields if field[0].lower().replace(b"_", b"-") not in gone], frozenset({b"close"})


def _forwarded(
    request: ProxyRequest, version: str, connection: Connection, credential: Credential, has_body: bool
) -> Forward:
    """What the core wants to have sent."""
    core = exchange(request, version, _Body(), _RULES)
    step: Any = next(core)
    while not isinstance(step, Forward):
        match step:
            case Authenticate():
                step = core.send("caller")
            case Resolve():
                step = core.send(connection)
            case Obtain():
                step = core.send(Obtained(credential))
            case Probe():
                step = core.send(has_body)
            case _:
                raise AssertionError(f"asked for {step!r}")
    core.close()
    return step


def _judge(sent: list[Field], forward: Forward, asked: list[Field], probed: bool) -> None:
    """Host, framing and credential of what was sent."""
    assert sent[0] == (b"host", forward.origin.authority)
    names = [name.lower().replace(b"_", b"-") for name, _ in sent]
    assert names.count(b"host") == 1
    assert b"connection" not in names
    framing = oracle.request_framing(asked)
    assert framing is not None, "framing that can be read in two ways"
    length, chunked = framing
    assert oracle.request_framing(sent) == (length, chunked or (probed and length is None))
    assert names.count(b"content-length") + names.count(b"transfer-encoding") <= 1
    assert (forward.body is not None) == bool(forward.chunked or length)
    own = [value for name, value in sent if name.lower().replace(b"_", b"-") == b"authorization"]
    assert own == ([b"Bearer credential"] if b"key=credential" not in forward.target else [])


FIELD_SEEDS = [
    LINE.join(line.replace(b": ", COLON) for line in lines)
    for lines in (
        [b"accept: */*", b"user-agent: x", b"content-length: 5", b"content-type: application/json"],
        [b"accept: */*", b"transfer-encoding: chunked", b"x-a: 1", b"x-a: 2"],
        [b"host: a", b"connection: x-a, close", b"x-a: 1", b"cookie: a=b", b"authorization: Bearer mine"],
        [b"origin: https://a.example", b"sec-fetch-site: same-origin", b"sec-fetch-dest: empty", b"x-forwarded-for: 1"],
        [b"content-length: 0", b"expect: 100-continue", b"te: trailers", b"upgrade: h2c", b"Accept_Encoding: br"],
    )
]
FRAMING_SEEDS = [
    method + LINE + target + LINE + fields
    for method, target in ((b"GET", b"/v1/users?page=2"), (b"POST", b""), (b"patch", b"/https://other.example/a%2Fb"))
    for fields in FIELD_SEEDS
]
WORDS = [
    *[
        LINE,
        COLON,
        LINE + COLON,
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b"\t",
        b" ",
        b",",
        b"_",
        b"-",
        b"\x7f",
        b"\xe9",
        b"?",
        b"#",
    ],
    *[b"content-length\x1f5", b"Content-Length\x1f6", b"content_length\x1f7", b"content-length \x1f8", b"\x1fvalue"],
    *[b"content-length\x1f+5", b"content-length\x1f0x5", b"content-length\x1f5, 5", b"content-length\x1f 5", b"05"],
    *[b"content-length\x1f1234567890123456789", b"content-length\x1f", b"content-length\x1f\xb2", b"\r\nhost: evil"],
    *[b"transfer-encoding\x1fchunked", b"Transfer-Encoding\x1fCHUNKED", b"transfer_encoding\x1fchunked"],
    *[b"transfer-encoding\x1fgzip, chunked", b"transfer-encoding\x1fchunked, chunked", b"transfer-encoding\x1f"],
    *[b"transfer-encoding\x1f\x0bchunked", b"transfer-encoding\x1fidentity", b"transfer-encoding\x1f chunked\t"],
    *[
        b"connection\x1fcontent-length",
        b"connection\x1fx-a",
        b"Connection\x1fX_A, Close",
        b"connection\x1ftransfer-encoding",
    ],
    *[b"connection\x1fhost", b"connection\x1fauthorization", b"close\x1f1", b"connection\x1fcookie", b"x_a\x1f1"],
    *[b"host\x1fevil", b"HOST\x1fevil", b"authorization\x1fBearer mine", b"AUTHORIZATION\x1fx", b"cookie\x1fkey=mine"],
    *[
        b"x-real-ip\x1f1",
        b"X_Forwarded_For\x1f1",
        b"proxy\x1fx",
        b"forwarded\x1fx",
        b"keep-alive\x1f1",
        b"accept\x1f*/*",
    ],
    *[
        b"HEAD",
        b"OPTIONS",
        b"TRACE",
        b"CONNECT",
        b"/..",
        b"/%2e%2e/",
        b"/https://evil.example/",
        b"?key=mine",
        b"&Key=2",
    ],
    *[b" HTTP/1.1\r\n", b"GET /x HTTP/1.1\r\n\r\n", b"%0d%0a", b"a" * 100],
]

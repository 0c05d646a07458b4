"""Header fields: what passes, what is dropped, and what they say about framing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_middleware._fields import (
    Field,
    RequestFields,
    canonical,
    clean_values,
    connection_options,
    is_token,
    read_request,
)
from proxy_middleware._response_fields import read_response
from proxy_middleware.errors import InvalidRequest
from tests.tables import words

# The published list, then what else is hop-by-hop or would speak for the host.
DROPPED = words(
    """
    host x-request-id x-real-ip x-forwarded-for x-forwarded-host x-forwarded-port x-forwarded-proto x-forwarded-scheme
    x-scheme x-original-forwarded-for x-different-name x-request-start x-using-nginx-controller x-amzn-trace-id
    forwarded-for-header proxy-protocol real_ip_header real_ip_recursive cdn-loop cf-ipcountry cf-ray cf-visitor
    cf-connecting-ip authorization
    keep-alive proxy-connection proxy-authenticate proxy-authorization te trailer upgrade http2-settings
    proxy forwarded expect membrane-api-version cookie
    """
)
ORIGIN_WIDE = words(
    """
    set-cookie clear-site-data strict-transport-security alt-svc nel report-to reporting-endpoints
    service-worker-allowed accept-ch refresh origin-agent-cluster access-control-allow-origin access-control-max-age
    """
)
FRONT_SERVER = words(
    """
    X-Accel-Redirect x-accel-buffering X_Accel_Limit_Rate X-Sendfile x-sendfile2 X-LIGHTTPD-send-file X-Reproxy-URL
    X-Litespeed-Location X-LiteSpeed-Cache-Control
    """
)

# So that a browser's cache tells what a page has fetched from a navigation.
VARY = (b"vary", b"sec-fetch-dest, sec-fetch-mode, sec-fetch-site")

TOKENS = st.text(st.sampled_from("abcXYZ019-_.!~"), min_size=1, max_size=12).map(str.encode)
VALUES = st.binary(max_size=20).filter(lambda value: clean_values([(b"", value)]))
HOSTILE_NAMES = st.sampled_from(
    [b"Content-Length", b"transfer-encoding", b"Connection", b"cookie", b"Host", b"Transfer_Encoding", b"X-A", b"a b"]
)
HOSTILE_VALUES = st.sampled_from([b"0", b"5", b"+5", b"", b"chunked", b"gzip, chunked", b"x-a, content-length", b"\r"])


def spellings(name: str) -> list[bytes]:
    """A name as servers and attackers may spell it."""
    return [variant.encode() for variant in (name, name.upper(), name.title(), name.replace("-", "_"))]


def passed(*fields: Field) -> list[Field]:
    """The request fields that go upstream."""
    return read_request(fields).kept


def relayed(*fields: Field, bodiless: bool = False, withhold: bool = False, cache_guard: bool = True) -> list[Field]:
    """The response fields that go to the caller."""
    lines = [b"%b: %b" % field for field in fields]
    found = read_response(lines, bodiless=bodiless, withhold=withhold, cache_guard=cache_guard)
    assert not found.invalid
    return found.kept


# Names and values


@pytest.mark.parametrize("name", [b"a", b"X-Y_z", b"!#$%&'*+-.^_`|~09"])
def test_tokens(name: bytes) -> None:
    """A field name is a token of RFC 9110."""
    assert is_token(name)


@pytest.mark.parametrize("name", [b"", b"a b", b"a:", b"a\r", b"a\n", b"\x00", b"a\x7f", b"\xe9", b"a/b", b"(a)", b'"'])
def test_malformed_names(name: bytes) -> None:
    """A name with anything else is malformed: a 400 in a request, an invalid response in a response."""
    assert not is_token(name)
    with pytest.raises(InvalidRequest):
        read_request([(b"accept", b"*/*"), (name, b"x")])
    # On a line, the first colon ends the name.
    assert name == b"a:" or read_response([name + b": x"], bodiless=False, withhold=False, cache_guard=True).invalid


@pytest.mark.parametrize("byte", [*range(9), *range(10, 0x20), 0x7F])
def test_control_characters_in_values(byte: int) -> None:
    """A control character in any value, even of a dropped field, is a 400."""
    value = b"a" + bytes([byte])
    for name in (b"x-a", b"cookie", b"x-real-ip", b"origin"):
        with pytest.raises(InvalidRequest):
            read_request([(name, value)])


def test_values_may_hold_tabs_and_high_bytes() -> None:
    """Tabs and bytes above 0x7f are allowed in values, and stay as they are."""
    field = (b"x-a", b"a\t \xe9\xff\x80")
    assert passed(field) == relayed(field) == [field]


def test_canonical_names() -> None:
    """Names are compared in lower case, with an underscore read as a hyphen."""
    assert {canonical(name) for name in (b"X-Real-IP", b"x_real_ip", b"X-REAL_ip")} == {b"x-real-ip"}


def test_long_and_many_names_are_told_apart() -> None:
    """However many names have been seen, and however long they are, each is still judged by itself."""
    for number in range(5000):
        assert passed((b"x-number-%d" % number, b"1"))
    long = b"x-" + b"a" * 5000
    assert passed((long, b"1"), (b"X-Forwarded-For", b"1"), (b"x_forwarded_for", b"2")) == [(long, b"1")]


# Request fields


@pytest.mark.parametrize("name", DROPPED)
def test_infrastructure_fields_are_dropped(name: str) -> None:
    """The proxy's infrastructure, hop-by-hop fields and the host's own session never go upstream, however spelled."""
    assert passed(*((spelled, b"x") for spelled in spellings(name)), (b"accept", b"*/*")) == [(b"accept", b"*/*")]


@pytest.mark.parametrize("name", ["content-length", "transfer-encoding", "connection"])
def test_framing_is_never_copied(name: str) -> None:
    """Fields that frame the message or command the connection are consumed, and look-alikes dropped."""
    value = b"chunked" if name == "transfer-encoding" else b"0"
    assert passed((name.upper().encode(), value)) == []
    assert passed((name.replace("-", "_").encode(), b"anything")) == []


def test_everything_else_passes_in_order() -> None:
    """Other fields pass as they came: order, duplicates, case, underscores and empty values."""
    fields = [
        (b"Accept", b"*/*"),
        (b"X-Dup", b"1"),
        (b"accept-encoding", b"gzip"),
        (b"X-Dup", b"2"),
        (b"x_custom", b""),
        (b"user-agent", b"agent"),
        (b"via", b"1.1 other"),
        (b"content-type", b"application/json"),
        (b"x-dup", b"1"),
    ]
    given = list(fields)
    assert read_request(given).kept == fields
    assert given == fields


def test_nominated_fields_are_dropped() -> None:
    """Every field named in any Connection field is dropped, whatever the case and blanks, before or after it."""
    fields = [
        (b"x-before", b"1"),
        (b"Connection", b"close, X-Before ,\tx_after"),
        (b"connection", b"X-Second"),
        (b"X-After", b"1"),
        (b"x-second", b"1"),
        (b"x-stays", b"1"),
    ]
    assert passed(*fields) == [(b"x-stays", b"1")]


def test_nominated_cookies_are_dropped() -> None:
    """A Connection field that names Cookie takes the cookies away, too."""
    assert read_request([(b"cookie", b"a=b"), (b"connection", b"Cookie")]).cookies == []


def test_connection_options() -> None:
    """Options are a comma-separated list without regard to case and blanks."""
    assert connection_options(b"Keep-Alive,\tX_A , close") == {b"keep-alive", b"x-a", b"close"}


def test_ordinary_connection_options_change_nothing() -> None:
    """`close`, `keep-alive` and `upgrade` nominate nothing that would have passed."""
    assert passed((b"connection", b"keep-alive, Upgrade, close"), (b"x-a", b"1")) == [(b"x-a", b"1")]


def test_cookies_are_set_aside() -> None:
    """Cookie fields are kept apart, each by itself."""
    found = read_request([(b"Cookie", b"a=b"), (b"x-a", b"1"), (b"cookie", b"c=d")])
    assert found.cookies == [b"a=b", b"c=d"]
    assert found.kept == [(b"x-a", b"1")]


def test_browser_marks_are_noted_and_pass() -> None:
    """The fields by which a browser is known are noted by their lower-case names, and go upstream."""
    fields = [
        (b"Origin", b"https://a.example"),
        (b"Sec-Fetch-Site", b"cross-site"),
        (b"sec-fetch-mode", b"cors"),
        (b"Sec-Fetch-Dest", b"empty"),
        (b"Referer", b"https://a.example/"),
    ]
    found = read_request(fields)
    assert found.kept == fields
    assert found.browser == {name.lower(): value for name, value in fields}


# Framing


@pytest.mark.parametrize(("value", "length"), [(b"0", 0), (b"5", 5), (b"007", 7), (b"9" * 18, 10**18 - 1)])
def test_content_length(value: bytes, length: int) -> None:
    """A length is made of digits."""
    found = read_request([(b"Content-Length", value)])
    assert (found.length, found.chunked) == (length, False)


@pytest.mark.parametrize(
    "value",
    [b"", b"+5", b"-1", b"5 ", b" 5", b"1_0", b"0x5", b"5, 5", b"5,5", b"5;", "\u0665".encode(), b"\xb2", b"9" * 19],
)
def test_malformed_content_length(value: bytes) -> None:
    """What int() or a lenient server would read as a length is a 400."""
    with pytest.raises(InvalidRequest):
        read_request([(b"content-length", value)])


@pytest.mark.parametrize("value", [b"chunked", b"Chunked", b" chunked\t"])
def test_chunked(value: bytes) -> None:
    """Only the transfer coding `chunked` is understood, in any case."""
    found = read_request([(b"Transfer-Encoding", value)])
    assert (found.length, found.chunked) == (None, True)


@pytest.mark.parametrize("value", [b"", b"gzip", b"gzip, chunked", b"chunked, chunked", b"identity", b"xchunked"])
def test_other_transfer_codings(value: bytes) -> None:
    """Any other transfer coding is a 400."""
    with pytest.raises(InvalidRequest):
        read_request([(b"transfer-encoding", value)])


@pytest.mark.parametrize(
    "fields",
    [
        [(b"content-length", b"5"), (b"Content-Length", b"5")],
        [(b"content-length", b"5"), (b"content-length", b"3")],
        [(b"transfer-encoding", b"chunked"), (b"Transfer-Encoding", b"chunked")],
        [(b"content-length", b"5"), (b"transfer-encoding", b"chunked")],
        [(b"Transfer-Encoding", b"chunked"), (b"x-a", b"1"), (b"Content-Length", b"0")],
    ],
)
def test_framing_given_twice(fields: list[Field]) -> None:
    """Framing that could be read in two ways is a 400."""
    with pytest.raises(InvalidRequest):
        read_request(fields)


def test_no_framing() -> None:
    """Without framing fields there is neither a length nor chunks."""
    found = read_request([])
    assert (found.length, found.chunked, found.kept) == (None, False, [])


@given(st.lists(st.tuples(TOKENS | HOSTILE_NAMES, VALUES | HOSTILE_VALUES), max_size=8))
def test_framing_is_decided_or_refused(fields: list[Field]) -> None:
    """Whatever fields come: framing is plain and single, nothing kept frames, names the host or has a control."""
    try:
        found = read_request(fields)
    except InvalidRequest:
        return
    assert_no_authority(found)
    lengths = [value for name, value in fields if name.lower() == b"content-length"]
    codings = [value for name, value in fields if name.lower() == b"transfer-encoding"]
    assert len(lengths) + len(codings) <= 1
    assert found.length == (int(lengths[0]) if lengths else None)
    assert found.chunked is bool(codings)


def assert_no_authority(found: RequestFields) -> None:
    """Nothing that is kept is the proxy's to say."""
    kept = {canonical(name) for name, _ in found.kept}
    assert kept.isdisjoint({name.replace("_", "-").encode() for name in DROPPED})
    assert kept.isdisjoint({b"content-length", b"transfer-encoding", b"connection"})
    assert all(is_token(name) for name, _ in found.kept)
    assert clean_values(found.kept)


@given(st.lists(st.tuples(TOKENS.map(lambda token: b"x-" + token), VALUES), max_size=8), st.lists(TOKENS, max_size=3))
def test_unknown_fields_pass_unless_nominated(fields: list[Field], tokens: list[bytes]) -> None:
    """Fields that the proxy does not know pass in order, but for those that Connection names."""
    options = [b"X-" + token.upper() for token in tokens]
    nominated = {canonical(option) for option in options}
    found = read_request([(b"connection", b", ".join(options)), *fields]) if options else read_request(fields)
    known = {b"x-scheme"}
    assert found.kept == [field for field in fields if canonical(field[0]) not in nominated | known]


# Response fields


def test_response_fields_pass_in_order() -> None:
    """The upstream's fields pass as they came, those about its server and its session, too."""
    fields = [
        (b"Server", b"nginx"),
        (b"Date", b"now"),
        (b"Set-Cookie", b"a=b"),
        (b"set-cookie", b"c=d"),
        (b"Content-Length", b"5"),
        (b"Content-Encoding", b"gzip"),
        (b"Location", b"https://api.example.com/next"),
        (b"WWW-Authenticate", b"Bearer"),
        (b"Access-Control-Allow-Origin", b"*"),
        (b"Retry-After", b"1"),
        (b"x_odd", b""),
    ]
    assert relayed(*fields) == fields


@pytest.mark.parametrize(
    "name", words("connection keep-alive proxy-connection proxy-authenticate te trailer transfer-encoding upgrade")
)
def test_hop_by_hop_response_fields_go(name: str) -> None:
    """Hop-by-hop fields of the response end here."""
    assert relayed(*((spelled, b"x") for spelled in spellings(name)), (b"x-a", b"1")) == [(b"x-a", b"1")]


@pytest.mark.parametrize("name", FRONT_SERVER)
def test_commands_to_front_servers_go(name: str) -> None:
    """Fields by which an upstream could make the front server serve its internal files are never relayed."""
    assert relayed((name.encode(), b"/protected"), (b"x-acceleration", b"1")) == [(b"x-acceleration", b"1")]


def test_nominated_response_fields_go() -> None:
    """Fields that the upstream's Connection names go, but it cannot take the Content-Length away."""
    fields = [(b"X-Hop", b"1"), (b"content-length", b"5"), (b"connection", b"x-hop, Content-Length, close")]
    assert relayed(*fields) == [(b"content-length", b"5")]


def test_bodiless_responses_have_no_length() -> None:
    """204 and 304 lose their Content-Length, other fields stay."""
    assert relayed((b"Content-Length", b"0"), (b"etag", b'"a"'), bodiless=True) == [(b"etag", b'"a"')]


@pytest.mark.parametrize("name", ORIGIN_WIDE)
def test_origin_wide_fields_are_withheld_from_browsers(name: str) -> None:
    """Fields that act on the host's whole origin are kept from browsers, and only from them."""
    fields = [(spelled, b"x") for spelled in spellings(name)]
    assert relayed(*fields, (b"x-a", b"1"), withhold=True) == [(b"x-a", b"1"), VARY]
    assert relayed(*fields) == fields


@pytest.mark.parametrize(
    "value", [b"public", b"Public, max-age=60", b"max-age=0, s-maxage=10", b"S-MaxAge=1", b"max-age=0, Must-Revalidate"]
)
def test_shared_caches_are_told_not_to_store(value: bytes) -> None:
    """What shared caches may store gets CDN-Cache-Control: no-store, and keeps its own Cache-Control."""
    field = (b"Cache-Control", value)
    assert relayed(field) == [field, (b"cdn-cache-control", b"no-store")]
    assert relayed(field, cache_guard=False) == [field]


@pytest.mark.parametrize("value", [b"private", b"no-store", b"max-age=60", b"no-cache"])
def test_private_responses_get_no_directive(value: bytes) -> None:
    """Nothing is added to what shared caches do not store."""
    assert relayed((b"cache-control", value)) == [(b"cache-control", value)]


@pytest.mark.parametrize("name", [b"CDN-Cache-Control", b"Surrogate-Control", b"Cloudflare-CDN-Cache-Control"])
def test_cdn_directives_of_the_upstream_are_replaced(name: bytes) -> None:
    """The upstream's own directives to CDNs give way to no-store, unless the guard is off."""
    assert relayed((name, b"max-age=60")) == [(b"cdn-cache-control", b"no-store")]
    assert relayed((name, b"max-age=60"), cache_guard=False) == [(name, b"max-age=60")]


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (b"other; error=dns_error", b"other; error=dns_error"),
        (b"proxy_middleware; error=dns_error", None),
        (b"Proxy_Middleware;error=x", None),
        (b"a; error=x, proxy_middleware; error=y", b"a; error=x"),
        (b'a; details="x, proxy_middleware; error=y"', None),
        (b'"proxy_middleware"; error=y', None),
    ],
)
def test_our_mark_cannot_be_forged(value: bytes, kept: bytes | None) -> None:
    """A Proxy-Status member of the proxy's own name that comes from the upstream is dropped, others stay."""
    assert relayed((b"Proxy-Status", value)) == ([] if kept is None else [(b"Proxy-Status", kept)])
    assert relayed((b"proxy_status", value)) == []


@given(st.lists(st.tuples(TOKENS | HOSTILE_NAMES, VALUES | HOSTILE_VALUES), max_size=8), st.booleans(), st.booleans())
def test_relayed_fields_are_the_upstreams_in_order(fields: list[Field], bodiless: bool, withhold: bool) -> None:
    """What is relayed is a subsequence of what came, free of framing but a length, or the response is invalid."""
    lines = [b"%b: %b" % field for field in fields]
    found = read_response(lines, bodiless=bodiless, withhold=withhold, cache_guard=True)
    fields = [(name, value.strip(b" \t")) for name, value in fields]
    lengths = [value for name, value in fields if name.lower() == b"content-length"]
    malformed = [name for name, _ in fields if not is_token(name)] + [v for v in lengths if not v.isdigit()]
    assert found.invalid is (bool(malformed) or not clean_values(fields))
    rest = iter([*fields, VARY])
    assert all(field in rest for field in found.kept)
    assert {canonical(name) for name, _ in found.kept}.isdisjoint({b"transfer-encoding", b"connection"})

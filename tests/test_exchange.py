"""The core's decisions about a request and its response; those about refreshing are in `test_exchange_refresh.py`."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_middleware import (
    AccessDenied,
    AmbiguousSelector,
    BrowserPolicy,
    Connection,
    ConnectionNotFound,
    Credential,
    Limits,
    ProxyError,
    ProxyRequest,
    Timeouts,
)
from proxy_middleware._fields import Field
from proxy_middleware._steps import Authenticate, Obtain, Resolve
from proxy_middleware.errors import (
    AddressRefused,
    ConnectFailed,
    CredentialUnavailable,
    InvalidRequest,
    InvalidTarget,
    MethodRefused,
    NotAuthenticated,
    PayloadTooLarge,
)
from tests.script import HOST, OLD, Body, Script, play, request

BEARER = (b"authorization", b"Bearer old")
LENGTH_5 = (b"content-length", b"5")
CHUNKED = (b"transfer-encoding", b"chunked")


def connection(base_url: str = "https://api.example.com", **arguments: Any) -> Connection:
    """A connection with these arguments."""
    return Connection("c", base_url, **arguments)


# The ordinary course


def test_order_of_steps() -> None:
    """Who, which connection, which credential, and only then the upstream is asked."""
    script = Script()
    given = request()
    relay = play(script, given)
    assert script.kinds == ["Authenticate", "Resolve", "Obtain", "Forward"]
    assert script.steps[:3] == [Authenticate(given), Resolve("c", given), Obtain(script.connection)]
    assert relay.response is script.responses[0]


def test_resolver_sees_the_caller() -> None:
    """What the authenticator returned is the request's caller when the resolver is asked."""
    script = Script(caller={"name": "alice"})
    given = request()
    play(script, given)
    assert given.caller == {"name": "alice"}
    assert given.header("authorization") == "Bearer caller"


@pytest.mark.parametrize("caller", [0, "", False, ()])
def test_false_callers_are_callers(caller: object) -> None:
    """Anything but None is a caller."""
    assert play(Script(caller=caller), request())


@pytest.mark.parametrize(
    ("script", "error", "last"),
    [
        (Script(caller=None), NotAuthenticated(), "Authenticate"),
        (Script(caller=AccessDenied()), AccessDenied(), "Authenticate"),
        (Script(connection=ConnectionNotFound()), ConnectionNotFound(), "Resolve"),
        (Script(connection=AmbiguousSelector()), AmbiguousSelector(), "Resolve"),
        (Script(connection=AccessDenied()), AccessDenied(), "Resolve"),
        (Script(credential=CredentialUnavailable()), CredentialUnavailable(), "Obtain"),
        (Script(responses=[ConnectFailed()]), ConnectFailed(), "Forward"),
        (Script(responses=[AddressRefused()]), AddressRefused(), "Forward"),
    ],
)
def test_first_error_is_the_answer(script: Script, error: ProxyError, last: str) -> None:
    """The first step that fails is the last that is taken, and its error is the answer."""
    with pytest.raises(type(error)):
        play(script, request())
    assert script.kinds[-1] == last


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (request("TRACE"), MethodRefused),
        (request("track"), MethodRefused),
        (request("Connect"), MethodRefused),
        (request("GE T"), InvalidRequest),
        (request(""), InvalidRequest),
        (request("GÉT"), InvalidRequest),
        (request("GET\n"), InvalidRequest),
        (request("GET", b"/", (b"x-a", b"\x00")), InvalidRequest),
        (request("GET", b"/", (b"x a", b"")), InvalidRequest),
        (request("GET", b"/", LENGTH_5, CHUNKED), InvalidRequest),
        (request("GET", b"/", (b"sec-fetch-site", b"cross-site")), AccessDenied),
    ],
)
def test_malformed_requests_reach_nobody(given: ProxyRequest, error: type[ProxyError]) -> None:
    """What is malformed or refused in any case is answered before a plugin is asked."""
    script = Script()
    with pytest.raises(error):
        play(script, given)
    assert script.steps == []


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS", "QUERY", "get", "M-SEARCH"])
def test_methods_pass_as_they_were_spelled(method: str) -> None:
    """Every other method passes, in its own spelling."""
    script = Script()
    play(script, request(method))
    assert script.sent[0].method == method.encode()


# The upstream request


def test_fields_of_the_upstream_request() -> None:
    """Host first, then the caller's fields in order, the connection's, the credential; nothing else is added."""
    script = Script(connection=connection(headers={"x-version": "2", "Accept": "text/csv", "X_A": "0"}))
    play(script, request("GET", b"/x", (b"accept", b"*/*"), (b"cookie", b"a=b"), (b"x-a", b"1"), (b"x-a", b"2")))
    assert script.sent[0].fields == [
        HOST,
        (b"accept", b"*/*"),
        (b"x-a", b"1"),
        (b"x-a", b"2"),
        (b"x-version", b"2"),
        BEARER,
    ]


def test_credential_beats_the_connections_headers() -> None:
    """Where a connection's header and the credential have one name, the credential counts."""
    script = Script(connection=connection(headers={"Authorization": "static", "x-b": "1"}))
    play(script, request())
    assert script.sent[0].fields == [HOST, (b"x-b", b"1"), BEARER]


def test_connection_header_cannot_be_nominated_away() -> None:
    """A caller's Connection field takes away the caller's own fields only."""
    script = Script(connection=connection(headers={"x-version": "2"}))
    play(script, request("GET", b"/", (b"connection", b"authorization, x-version, host")))
    assert script.sent[0].fields == [HOST, (b"x-version", b"2"), BEARER]


@pytest.mark.parametrize(
    ("base_url", "target", "origin", "path", "host"),
    [
        ("https://api.example.com", b"", "https://api.example.com", b"/", b"api.example.com"),
        ("https://api.example.com/v1/", b"", "https://api.example.com", b"/v1", b"api.example.com"),
        (
            "https://api.example.com/v1",
            b"/a%2Fb//c/?x=%2F&y",
            "https://api.example.com",
            b"/v1/a%2Fb//c/?x=%2F&y",
            None,
        ),
        ("https://api.example.com/v1", b"?x", "https://api.example.com", b"/v1?x", None),
        ("https://api.example.com/v1", b"/y?", "https://api.example.com", b"/v1/y?", None),
        ("http://127.0.0.1:8080/v1", b"/x", "http://127.0.0.1:8080", b"/v1/x", b"127.0.0.1:8080"),
        ("https://api.example.com/v1", b"/https://api.example.com/v2?x", "https://api.example.com", b"/v2?x", None),
    ],
)
def test_where_a_request_goes(base_url: str, target: bytes, origin: str, path: bytes, host: bytes | None) -> None:
    """Origin, request target and Host field follow from base URL and target."""
    script = Script(connection=connection(base_url))
    play(script, request("GET", target))
    (sent,) = script.sent
    assert (str(sent.origin), sent.target) == (origin, path)
    assert sent.fields[0] == (b"host", host or b"api.example.com")


@pytest.mark.parametrize(
    "target", [b"/../x", b"/a/%2e%2e/b", b"/a b", b"/\x00", b"/https://", b"/https://u@api.example.com/", b"/?\xff"]
)
def test_malformed_targets(target: bytes) -> None:
    """A malformed target never gets as far as the credential."""
    script = Script()
    with pytest.raises(InvalidTarget):
        play(script, request("GET", target))
    assert script.kinds == ["Authenticate", "Resolve"]


def test_timeouts_of_the_connection() -> None:
    """A connection's time-outs replace the middleware's."""
    patient, common = Timeouts(head=600), Timeouts(head=1)
    for own, used in ((patient, patient), (None, common)):
        script = Script(connection=connection(timeouts=own))
        play(script, request(), timeouts=common)
        assert script.sent[0].timeouts == used


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
def test_idempotent_requests_may_be_sent_again(method: str) -> None:
    """The engine may send an idempotent request again, and keeps its body for that."""
    script = Script()
    play(script, request(method, b"/", LENGTH_5), body=Body(b"12345"))
    assert (script.sent[0].retry, script.sent[0].keep, script.sent[0].again) == (True, True, False)


@pytest.mark.parametrize("method", ["POST", "PATCH", "QUERY", "get"])
def test_other_requests_are_sent_once(method: str) -> None:
    """The engine never sends anything else twice, and keeps nothing."""
    script = Script()
    play(script, request(method, b"/", LENGTH_5), body=Body(b"12345"))
    assert (script.sent[0].retry, script.sent[0].keep) == (False, False)


# Restrictions of the connection


@pytest.mark.parametrize(("method", "allowed"), [("GET", True), ("POST", False), ("get", False), ("HEAD", False)])
def test_methods(method: str, allowed: bool) -> None:
    """Only the connection's methods may be called, spelled as they are."""
    assert_allowed(connection(methods=["GET", "PUT"]), request(method), allowed)


@pytest.mark.parametrize(
    ("target", "allowed"),
    [
        (b"/crm/owners", True),
        (b"/crm/own%65rs?x=/../y", True),
        (b"/crm/owners/1", False),
        (b"/admin", False),
        (b"", False),
        (b"/crm%2Fowners", False),
        (b"/https://api.example.com/v1/crm/owners", True),
        (b"/https://api.example.com/crm/owners", False),
        (b"/https://files.example.com/v1/crm/owners", False),
    ],
)
def test_paths(target: bytes, allowed: bool) -> None:
    """Only the connection's paths may be called; a full URL outside of the base URL never matches."""
    restricted = connection(
        "https://api.example.com/v1", paths=["/crm/*"], allowed_origins=["https://files.example.com"]
    )
    assert_allowed(restricted, request("GET", target), allowed)


def test_empty_restrictions_allow_nothing() -> None:
    """No methods or no paths is not the same as any."""
    assert_allowed(connection(methods=[]), request(), False)
    assert_allowed(connection(paths=[]), request(), False)


@pytest.mark.parametrize(
    ("target", "allowed"),
    [
        (b"/https://files.example.com/x", True),
        (b"/HTTPS:/FILES.example.com:443/x", True),
        (b"/https://cdn.example.org/x", True),
        (b"/https://example.org/x", False),
        (b"/http://files.example.com/x", False),
        (b"/https://files.example.com:8443/x", False),
        (b"/https://api.example.com:444/x", False),
        (b"/http://api.example.com/x", False),
    ],
)
def test_allowed_origins(target: bytes, allowed: bool) -> None:
    """A full URL names the base URL's origin or an allowed one."""
    origins = ["https://files.example.com", "https://*.example.org"]
    assert_allowed(connection(allowed_origins=origins), request("GET", target), allowed)


def assert_allowed(restricted: Connection, given: ProxyRequest, allowed: bool) -> None:
    """The request passes; or it is a 403 for which no credential is obtained."""
    script = Script(connection=restricted)
    if allowed:
        play(script, given)
        assert len(script.sent) == 1
    else:
        with pytest.raises(AccessDenied):
            play(script, given)
        assert script.kinds == ["Authenticate", "Resolve"]


# Cookies


@pytest.mark.parametrize(
    ("forward", "credential", "cookies"),
    [
        (False, OLD, []),
        (True, OLD, [b"a=b; sid=evil; c=d"]),
        (False, Credential.cookie("sid", "s"), [b"sid=s"]),
        (True, Credential.cookie("sid", "s"), [b"a=b; c=d; sid=s"]),
    ],
)
def test_cookies(forward: bool, credential: Credential, cookies: list[bytes]) -> None:
    """The host's cookies go upstream only where the policy says so; an injected one always does."""
    script = Script(credential=credential)
    given = request("GET", b"/", (b"cookie", b"a=b"), (b"cookie", b"sid=evil; c=d"))
    play(script, given, browser=BrowserPolicy(forward_cookies=forward))
    assert [value for name, value in script.sent[0].fields if name == b"cookie"] == cookies


# Framing


@pytest.mark.parametrize(
    ("fields", "version", "content", "expected", "framing", "has_body"),
    [
        ([], "1.1", b"", 0, [], False),
        ([], "1.0", b"", 0, [], False),
        ([LENGTH_5], "1.1", b"12345", 5, [LENGTH_5], True),
        ([(b"Content-Length", b"005")], "1.0", b"12345", 5, [LENGTH_5], True),
        ([(b"content-length", b"0")], "1.1", b"", 0, [(b"content-length", b"0")], False),
        ([CHUNKED], "1.1", b"12345", None, [CHUNKED], True),
        ([], "2", b"12345", None, [CHUNKED], True),
        ([], "2", b"", None, [], False),
        ([LENGTH_5], "2", b"12345", 5, [LENGTH_5], True),
        ([], "3", b"12345", None, [CHUNKED], True),
    ],
)
def test_framing(
    fields: list[Field], version: str, content: bytes, expected: int | None, framing: list[Field], has_body: bool
) -> None:
    """A known length is sent, an unknown one is chunked, and no body stays none, in every version of HTTP."""
    script, body = Script(), Body(content)
    play(script, request("POST", b"/", *fields), body=body, version=version)
    (sent,) = script.sent
    assert body.expected == expected
    assert [pair for pair in sent.fields if pair[0] in (b"content-length", b"transfer-encoding")] == framing
    assert (sent.body is body, sent.chunked) == (has_body, CHUNKED in framing)
    assert sent.handle is body
    assert ("Probe" in script.kinds) is (version >= "2" and not fields)


HOSTILE = st.tuples(
    st.sampled_from(
        [b"Content-Length", b"Transfer-Encoding", b"content_length", b"Connection", b"Host", b"Authorization"]
    ),
    st.sampled_from([b"0", b"5", b"5, 5", b"chunked", b"identity", b"authorization, host, content-length"]),
)


@given(st.lists(HOSTILE, max_size=4), st.sampled_from(["1.0", "1.1", "2"]), st.booleans())
def test_whatever_the_caller_says_the_proxy_frames(fields: list[Field], version: str, has_body: bool) -> None:
    """Whatever fields come: one Host, first, one credential, and one framing, which is the proxy's own, or a 400."""
    script = Script()
    try:
        play(script, request("POST", b"/", *fields), body=Body(b"12345" * has_body), version=version)
    except InvalidRequest:
        return
    (sent,) = script.sent
    names = [name.lower().replace(b"_", b"-") for name, _ in sent.fields]
    framing = [pair for pair in sent.fields if pair[0] in (b"content-length", b"transfer-encoding")]
    assert sent.fields[0] == HOST
    assert names.count(b"host") == names.count(b"authorization") == 1
    assert BEARER in sent.fields
    assert names.count(b"content-length") + names.count(b"transfer-encoding") == len(framing) <= 1
    assert sent.chunked is (framing == [CHUNKED])
    assert b"connection" not in names


@pytest.mark.parametrize("version", ["1.0", "1"])
def test_http_1_0_has_no_chunks(version: str) -> None:
    """HTTP/1.0, which Granian calls `1`, has no transfer codings."""
    with pytest.raises(InvalidRequest):
        play(Script(), request("POST", b"/", CHUNKED), version=version)


def test_body_limit() -> None:
    """A declared length over the limit is a 413 before a credential is obtained; the limit itself passes."""
    script = Script()
    with pytest.raises(PayloadTooLarge):
        play(script, request("POST", b"/", LENGTH_5), limits=Limits(request_body=4))
    assert script.kinds == ["Authenticate", "Resolve"]
    assert play(Script(), request("POST", b"/", LENGTH_5), limits=Limits(request_body=5))

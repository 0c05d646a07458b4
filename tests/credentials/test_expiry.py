"""Which responses are an expiry."""

import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from proxy_middleware import Connection, ResponseHead
from proxy_middleware._exchange import is_expiry
from proxy_middleware.credentials.expiry import AWS, GOOGLE_AI, SLACK, ExpiryRule, expired_when
from proxy_middleware.protocols import is_nonblocking

CONNECTION = Connection("c", "https://api.example.com")
SCOPE = ("WWW-Authenticate", 'Bearer realm="x", error="insufficient_scope", scope="write"')
JSON = ("content-type", "application/json; charset=utf-8")
EXPIRED = {"error": "token_expired"}


def head(status: int = 401, *fields: tuple[str, str], body: bytes | None = None) -> ResponseHead:
    """A response."""
    return ResponseHead(status, [(name.encode(), value.encode()) for name, value in fields], body)


def says(rule: ExpiryRule, response: ResponseHead) -> bool:
    """What the rule says of a response whose body is there where the rule asks for it, and only there."""
    asked = rule.needs_body(response)
    assert not rule(CONNECTION, ResponseHead(response.status, response.fields)) or not asked
    return rule(CONNECTION, response if asked else ResponseHead(response.status, response.fields))


@pytest.mark.parametrize("says", [is_expiry, lambda response: expired_when()(CONNECTION, response)])
@pytest.mark.parametrize(
    ("response", "expired"),
    [
        (head(401), True),
        (head(401, ("www-authenticate", 'Bearer error="invalid_token"')), True),
        (head(401, ("www-authenticate", "Basic"), SCOPE), False),
        (head(401, ("www-authenticate", "Bearer error = INSUFFICIENT_SCOPE")), False),
        (head(401, ("www-authenticate", 'Bearer realm="insufficient_scope"')), True),
        (head(403), False),
        (head(403, SCOPE), False),
        (head(200), False),
    ],
)
def test_usual_expiry(says: Callable[[ResponseHead], bool], response: ResponseHead, expired: bool) -> None:
    """A 401 is an expiry, unless the token's scope is what is wanting (RFC 6750 section 3.1)."""
    assert says(response) is expired


def test_statuses() -> None:
    """A rule may name another status, or several."""
    assert [says(expired_when(status=403), head(status)) for status in (401, 403)] == [False, True]
    assert [says(expired_when(status=(401, 498)), head(status)) for status in (401, 403, 498)] == [True, False, True]


@pytest.mark.parametrize("rule", [expired_when(status=403), expired_when(status=403, text="scope"), AWS])
def test_scope_is_never_an_expiry(rule: ExpiryRule) -> None:
    """No rule takes a want of scope for an expiry, nor asks for a body then."""
    response = head(403, SCOPE, body=b"ExpiredToken scope")
    assert not rule.needs_body(response)
    assert not rule(CONNECTION, response)


@pytest.mark.parametrize(
    ("value", "expired"),
    [("Bearer error='Invalid_Token'", True), ("Bearer error='invalid_request'", False), ("", False)],
)
def test_fields(value: str, expired: bool) -> None:
    """A field's value has to hold one of the texts, whatever the case."""
    rule = expired_when(status=400, headers={"WWW-Authenticate": ["invalid_token", "expired"]})
    response = head(400, ("www-authenticate", value))
    assert not rule.needs_body(response)
    assert says(rule, response) is expired


# Bodies


@pytest.mark.parametrize(
    ("members", "document", "expired"),
    [
        ({"error": "token_expired"}, EXPIRED, True),
        ({"error": ["invalid_auth", "token_expired"]}, EXPIRED, True),
        ({"error": "invalid_auth"}, EXPIRED, False),
        ({"error": "token_expired", "ok": False}, EXPIRED, False),
        ({"error": "token_expired", "ok": False}, EXPIRED | {"ok": False}, True),
        ({"error.code": 190}, {"error": {"code": 190}}, True),
        ({"error.code": 190}, {"error": {"code": "190"}}, False),
        ({"error.code": 190}, {"error": "code"}, False),
        ({"error.code": 190}, {"error.code": 190}, False),
        ({"ok": False}, {"ok": 0}, False),
        ({"code": 1}, {"code": True}, False),
        ({"token": None}, {"token": None}, True),
        ({"token": None}, {}, False),
        ({"errorCode": "INVALID_SESSION_ID"}, [{"errorCode": "OTHER"}, {"errorCode": "INVALID_SESSION_ID"}], True),
        ({"errors.reason": "authError"}, {"errors": [{"reason": "other"}, {"reason": "authError"}]}, True),
        ({"errors": "expired"}, {"errors": ["other", "expired"]}, True),
        ({"errors": "expired"}, {"errors": [], "other": "expired"}, False),
        ({"error": "token_expired"}, "token_expired", False),
    ],
)
def test_members(members: Any, document: Any, expired: bool) -> None:
    """Every member has to have its value; paths lead through objects, and through each item of a list."""
    response = head(200, JSON, body=json.dumps(document).encode())
    assert says(expired_when(status=200, json=members), response) is expired


@pytest.mark.parametrize("body", [b"", b'{"error": "token_exp', b"[" * 60_000, b"\xff", b"<html>", b"1" * 5000, None])
def test_bodies_that_are_no_document(body: bytes | None) -> None:
    """What is no JSON, or cut off, or not there, is no expiry."""
    rule = expired_when(status=200, json={"error": "token_expired"})
    assert not rule(CONNECTION, head(200, JSON, body=body))


@pytest.mark.parametrize(
    ("media_type", "asks"),
    [
        ("application/json", True),
        ("Application/JSON;charset=utf-8", True),
        ("application/problem+json", True),
        ("application/vnd.api+json", True),
        ("application/x-amz-json-1.0", True),
        ("text/javascript", True),
        ("", True),
        ("text/event-stream", False),
        ("application/x-ndjson", False),
        ("application/json-seq", False),
        ("application/stream+json", False),
        ("application/octet-stream", False),
        ("text/html", False),
    ],
)
def test_which_bodies_are_asked_for(media_type: str, asks: bool) -> None:
    """Only JSON documents are asked for: a stream, or a download, is not held back."""
    rule = expired_when(status=200, json=EXPIRED)
    response = head(200, ("Content-Type", media_type), body=json.dumps(EXPIRED).encode())
    assert rule.needs_body(response) is asks
    assert rule(CONNECTION, response) is asks


def test_other_statuses_are_not_held_back() -> None:
    """The body is asked for only where status and fields fit."""
    rule = expired_when(status=400, json=EXPIRED, headers={"x-error": "auth"})
    assert rule.needs_body(head(400, JSON, ("X-Error", "Auth")))
    assert not rule.needs_body(head(400, JSON))
    assert not rule.needs_body(head(200, JSON, ("X-Error", "Auth")))


def test_text() -> None:
    """A text is looked for in what there is of the body, of whatever type but an event stream."""
    rule = expired_when(status=400, text=["ExpiredToken", "TokenExpirado"])
    assert says(rule, head(400, ("content-type", "application/xml"), body=b"<Code>ExpiredToken</Code>"))
    assert says(rule, head(400, body=b"cut <Code>ExpiredToken</Co"))
    assert not says(rule, head(400, body=b"expiredtoken"))
    assert not rule.needs_body(head(400, ("content-type", "text/event-stream")))


@pytest.mark.parametrize(
    ("coding", "pack"), [("gzip", gzip.compress), ("X-GZIP", gzip.compress), ("deflate", zlib.compress)]
)
def test_packed_bodies(coding: str, pack: Callable[[bytes], bytes]) -> None:
    """A gzip or deflate body is looked into; text also where it is cut."""
    fields = (JSON, ("Content-Encoding", coding))
    packed = pack(json.dumps(EXPIRED | {"padding": "x" * 100}).encode())
    assert says(expired_when(status=400, json=EXPIRED), head(400, *fields, body=packed))
    assert says(expired_when(status=400, text="token_expired"), head(400, *fields, body=packed[:-9]))
    assert not says(expired_when(status=400, json=EXPIRED), head(400, *fields, body=b"not packed"))


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, br"])
def test_other_codings(coding: str) -> None:
    """A body in another coding is not asked for, and no expiry."""
    rule = expired_when(status=400, text="token")
    assert not rule.needs_body(head(400, ("content-encoding", coding)))
    assert not rule(CONNECTION, head(400, ("content-encoding", coding), body=b"token"))


def test_little_is_unpacked() -> None:
    """A short body that unpacks to a very long one is looked into at its beginning only."""
    packed = gzip.compress(b" " * 5_000_000 + b"token")
    assert len(packed) < 64 * 1024
    rule = expired_when(status=400, text="token")
    assert not says(rule, head(400, ("content-encoding", "gzip"), body=packed))


# Several rules


def test_either_rule() -> None:
    """Of several rules one has to hold; the body is not asked for where the head says it all."""
    rule = expired_when() | expired_when(status=(200, 401), json=EXPIRED) | expired_when(status=400, text="old")
    assert rule(CONNECTION, head(401, JSON))
    assert not rule.needs_body(head(401, JSON))
    assert says(rule, head(200, JSON, body=b'{"error": "token_expired"}'))
    assert says(rule, head(400, JSON, body=b'{"old": 1}'))
    assert not says(rule, head(400, JSON, body=b"{}"))


def test_only_rules_are_combined() -> None:
    """A rule and something else is a TypeError."""
    with pytest.raises(TypeError, match="unsupported operand"):
        expired_when() | 401  # type: ignore[operator]


def test_rules_do_not_block() -> None:
    """The ASGI door may ask a rule on the event loop."""
    assert is_nonblocking(expired_when())


@pytest.mark.parametrize(
    ("rule", "response", "expired"),
    [
        (SLACK, head(200, JSON, body=b'{"ok":false,"error":"token_expired"}'), True),
        (SLACK, head(200, JSON, body=b'{"ok":false,"error":"channel_not_found"}'), False),
        (SLACK, head(200, JSON, body=b'{"ok":true,"error":"token_expired"}'), False),
        (SLACK, head(401), True),
        (AWS, head(400, body=b"<Error><Code>ExpiredToken</Code></Error>"), True),
        (AWS, head(403, body=b"<Response><Errors><Code>ExpiredToken</Code></Errors></Response>"), True),
        (AWS, head(400, body=b'{"__type":"com.amazon.coral.service#ExpiredTokenException"}'), True),
        (AWS, head(403, ("x-amzn-ErrorType", "ExpiredTokenException:http://x/"), body=b"{}"), True),
        (AWS, head(403, body=b"<Error><Code>AccessDenied</Code></Error>"), False),
        (GOOGLE_AI, head(400, JSON, body=b'{"error":{"details":[{},{"reason":"API_KEY_INVALID"}]}}'), True),
        (GOOGLE_AI, head(400, JSON, body=b'{"error":{"status":"INVALID_ARGUMENT","details":[]}}'), False),
    ],
)
def test_presets(rule: ExpiryRule, response: ResponseHead, expired: bool) -> None:
    """What some well-known APIs answer."""
    assert says(rule, response) is expired


@pytest.mark.parametrize(
    "arguments", [{"status": 99}, {"status": ()}, {"status": "401"}, {"json": {"error": []}}, {"headers": {"x": ()}}]
)
def test_bad_arguments(arguments: Any) -> None:
    """What could never hold is a ValueError."""
    with pytest.raises(ValueError, match="expired_when"):
        expired_when(**arguments)

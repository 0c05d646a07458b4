"""Every kind of credential, end to end: what stands in for the API verifies each request as the real one does."""

import hashlib
import hmac
import time
from collections.abc import Callable

import pytest

from tests.callers import call
from tests.credentials import verify_oauth1, verify_sigv4
from tests.credentials.proxied import Sent
from tests.host_plugins import UPSTREAM_SECRET
from tests.integration.asking import check_clean
from tests.integration.auth_calls import (
    ACCESS_KEY,
    DOORS,
    ISSUER,
    REGION,
    Host,
    api_calls,
    bearer_api,
    same_but_for_the_token,
    selector_of,
    strict_grants,
    token_calls,
)
from tests.integration.test_refresh_replay import upload
from tests.token_grants import JWT_BEARER
from tests.upstreams import Exchange, ScriptedUpstream, response

each_door = pytest.mark.parametrize("server", DOORS)
Verify = Callable[[Sent], object]


# Tokens.

GRANTS = {
    "oauth2": "refresh_token",
    "client-basic": "client_credentials",
    "client-post": "client_credentials",
    "client-jwt": "client_credentials",
    "jwt-bearer": JWT_BEARER,
}


@each_door
@pytest.mark.parametrize("kind", GRANTS)
def test_tokens(host: Host, kind: str, shared_upstream: ScriptedUpstream) -> None:
    """A token of each grant is obtained, used until it is rejected, and replaced while the caller waits."""
    grants = strict_grants(shared_upstream)
    shared_upstream.script(bearer_api(grants.accepts))
    selector = selector_of(kind)
    if kind == "oauth2":
        host.connect(selector, **grants.connect("basic"))
    calls = 0 if kind == "oauth2" else 1
    for _ in range(2):
        assert host.ask(selector).body == b"welcome"
        assert len(token_calls(shared_upstream)) == calls
    grants.expire_access_tokens()
    answer = host.ask(selector, "PUT", body=b"content")
    assert (answer.status, answer.body) == (200, b"welcome")
    check_clean(answer)
    assert host.ask(selector).body == b"welcome"
    assert grants.state()[GRANTS[kind]] == len(token_calls(shared_upstream)) == calls + 1
    *_, rejected, replayed, _ = api_calls(shared_upstream)
    assert same_but_for_the_token(rejected, replayed)
    assert len(api_calls(shared_upstream)) == 5


@each_door
@pytest.mark.parametrize("kind", ["client-basic", "client-post", "client-jwt", "jwt-bearer"])
def test_what_the_token_endpoint_is_told(host: Host, kind: str, shared_upstream: ScriptedUpstream) -> None:
    """The client says who it is in its one way, and for what it asks."""
    grants = strict_grants(shared_upstream)
    assert host.ask(selector_of(kind)).body == b"ok"
    (form,), (asked,) = grants.forms, token_calls(shared_upstream)
    says_who = asked.header(b"authorization") is not None, "client_secret" in form, "client_assertion" in form
    assert says_who == (kind == "client-basic", kind == "client-post", kind == "client-jwt")
    if kind == "jwt-bearer":
        assert [claims["iss"] for claims in grants.claims] == [ISSUER]
    else:
        assert form["scope"] == "read write"


@each_door
def test_token_about_to_expire(host: Host, shared_upstream: ScriptedUpstream) -> None:
    """A token that is about to expire is refreshed before it is used, so that the API rejects nothing."""
    grants = strict_grants(shared_upstream)
    shared_upstream.script(bearer_api(grants.accepts))
    selector, tokens = selector_of("oauth2"), grants.connect("basic")
    host.connect(selector, **tokens, expires_at=time.time() + 20)
    assert [host.ask(selector).status for _ in range(3)] == [200, 200, 200]
    sent = [seen.header(b"authorization") for seen in api_calls(shared_upstream)]
    assert len(sent) == 3
    assert f"Bearer {tokens['access_token']}".encode() not in sent
    assert len(token_calls(shared_upstream)) == 1


# Signatures.


def verifying(verify: Verify) -> Callable[[Exchange], None]:
    """An API that takes what passes, and says what is wrong with the rest."""

    def script(exchange: Exchange) -> None:
        came, body = exchange.request, exchange.body
        try:
            verify(Sent(came.method, came.target, came.fields, body))
        except AssertionError as error:
            exchange.send(response(403, (), repr(error).encode()))
        else:
            exchange.send(response(body=b"welcome"))

    return script


def aws(service: str) -> Verify:
    """What an AWS service checks."""
    return lambda sent: verify_sigv4.verify(sent, UPSTREAM_SECRET, scope=(ACCESS_KEY, REGION, service))


def oauth1(sent: Sent) -> None:
    """What an API with OAuth 1.0 checks."""
    verify_oauth1.verify(sent, scheme="http", client_secret=UPSTREAM_SECRET, token_secret=UPSTREAM_SECRET)


def own_scheme(sent: Sent) -> None:
    """What an API with a scheme of its own checks: HMAC-SHA256 of method, path with query, and body."""
    signed = sent.method + b" " + sent.target + b"\n" + sent.body
    expected = hmac.new(UPSTREAM_SECRET.encode(), signed, hashlib.sha256).hexdigest().encode()
    assert sent.values(b"x-signature") == [expected], signed[:200]


VERIFIERS: dict[str, Verify] = {
    "aws-dynamodb": aws("dynamodb"),
    "aws-s3": aws("s3"),
    "oauth1": oauth1,
    "hmac": own_scheme,
    "httpx": own_scheme,
    "httpx2": own_scheme,
}
FORM = [("Content-Type", "application/x-www-form-urlencoded")]
REQUESTS: dict[str, tuple[str, str, list[tuple[str, str]], bytes | None]] = {
    "GET": ("GET", "/a%2Fb/c%20d?b=2&a=1&a=%C3%A9", [("X-Signature", "theirs"), ("X-Amz-Date", "theirs")], None),
    "without a path": ("POST", "", [("X-Amz-Target", "DynamoDB_20120810.GetItem")], b'{"TableName": "t"}'),
    "form": ("POST", "/x?a=1", FORM, b"b=2&a=0&c=x+y%2B"),
    "large": ("PUT", "/key", [("Content-Type", "application/octet-stream")], bytes(range(256)) * 1200),
}


@each_door
@pytest.mark.parametrize("kind", VERIFIERS)
@pytest.mark.parametrize("name", REQUESTS)
def test_signatures(host: Host, kind: str, name: str, shared_upstream: ScriptedUpstream) -> None:
    """A signed request passes the API's check, and arrives as it was sent."""
    shared_upstream.script(verifying(VERIFIERS[kind]))
    method, target, fields, body = REQUESTS[name]
    answer = host.ask(selector_of(kind), method, fields, body, target=target)
    assert (answer.status, answer.body) == (200, b"welcome"), answer.body
    (seen,) = shared_upstream.requests
    assert (seen.target, seen.body) == ((target or "/").encode(), body or b"")


@each_door
@pytest.mark.parametrize("kind", VERIFIERS)
def test_signatures_of_chunked_bodies(host: Host, kind: str, shared_upstream: ScriptedUpstream) -> None:
    """A body of unknown length is signed, too; where it had to be read for that, it goes out with its length."""
    shared_upstream.script(verifying(VERIFIERS[kind]))
    body = bytes(range(256)) * 1200
    asked = upload(selector_of(kind), body, "chunked").replace(b"//?c=%zz", b"", 1)
    answer = call(host.address, asked)
    assert (answer.status, answer.body) == (200, b"welcome"), answer.body
    (seen,) = shared_upstream.requests
    assert seen.body == body
    assert bool(seen.values(b"content-length")) == (kind != "oauth1")


@each_door
@pytest.mark.parametrize("kind", ["aws-dynamodb", "aws-s3", "oauth1", "hmac", "httpx", "httpx2"])
def test_signature_that_is_rejected(host: Host, kind: str, shared_upstream: ScriptedUpstream) -> None:
    """Keys are not refreshed: the API's answer is returned, after one request."""
    shared_upstream.answer(response(401, (), b"expired"))
    answer = host.ask(selector_of(kind), "PUT", body=b"content")
    assert (answer.status, answer.body) == (401, b"expired")
    check_clean(answer)
    assert len(shared_upstream.requests) == 1

"""Schemes of one's own with `Credential.signed`, checked by what stands in for the API that made them up."""

import hashlib
import hmac
import time
from typing import Any

import pytest

from proxy_middleware import Connection, Credential, UpstreamRequest
from proxy_middleware.errors import InvalidRequest
from proxy_middleware.models import first_value
from tests.credentials.proxied import Sent, forwarded, proxied, received
from tests.upstreams import Exchange, ScriptedUpstream, response

BODY = bytes(range(256)) * 4
LONG_AGO = 300


def hmac_scheme(secret: bytes) -> Credential:
    """The time, and an HMAC-SHA256 of time, method, path with query, and body."""

    def sign(request: UpstreamRequest) -> list[tuple[str, str]]:
        now, path = str(int(time.time())), "/" + request.url.split("/", 3)[3]
        text = f"{now}\n{request.method}\n{path}\n".encode() + (request.body or b"")
        return [("X-Time", now), ("X-Signature", hmac.digest(secret, text, "sha256").hex())]

    return Credential.signed(sign, needs_body=True)


def verified(sent: Sent, secret: bytes) -> bool:
    """Whether the API takes a request."""
    (when,), (signature,) = sent.values(b"x-time"), sent.values(b"x-signature")
    text = b"\n".join([when, sent.method, sent.target, sent.body])
    good = hmac.compare_digest(hmac.new(secret, text, hashlib.sha256).hexdigest().encode(), signature)
    return good and abs(time.time() - int(when)) < LONG_AGO


@pytest.mark.parametrize("door", ["asgi", "wsgi"])
@pytest.mark.parametrize("body", [BODY, b"", None])
def test_hmac(upstream: ScriptedUpstream, door: str, body: bytes | None) -> None:
    """What is signed is what arrives at the socket: method, raw target and body; and it replaces the caller's."""
    target = "/a%2Fb//c?x='|&y=%c3"
    with proxied(upstream, hmac_scheme(b"secret"), door=door) as call:
        assert call("PUT", target, [("X-Time", "1"), ("x-signature", "theirs")], body).status == 200
    sent = received(upstream)
    assert (sent.target, sent.body) == (target.encode(), body or b"")
    assert verified(sent, b"secret")
    assert not verified(sent._replace(body=b"other"), b"secret")


class Rotating:
    """A provider whose secret is good until it is refreshed, once."""

    def obtain(self, connection: Connection) -> Credential:
        """The old one."""
        return hmac_scheme(b"old")

    def refresh(self, connection: Connection, rejected: Credential) -> Credential:
        """The new one."""
        return hmac_scheme(b"new")


@pytest.mark.parametrize("door", ["asgi", "wsgi"])
def test_signed_again(upstream: ScriptedUpstream, door: str) -> None:
    """After a refresh the same body goes out again, signed with the newer secret."""

    def judge(exchange: Exchange) -> None:
        came = exchange.request
        sent = Sent(came.method, came.target, came.fields, exchange.body)
        exchange.send(response(200 if verified(sent, b"new") else 401))

    upstream.script(judge)
    with proxied(upstream, Rotating(), door=door) as call:
        assert call("POST", "/x?a=1", (), BODY).status == 200
    first, second = upstream.requests
    assert first.body == second.body == BODY
    assert first.values(b"x-signature") != second.values(b"x-signature")


def digest_where_asked(request: UpstreamRequest) -> bool:
    """Whether the caller wants the body signed."""
    return any(name == b"x-sign-body" for name, _ in request.fields)


def body_of(request: UpstreamRequest) -> list[tuple[str, str]]:
    """What the signer saw of the body."""
    return [("x-seen", repr(request.body))]


@pytest.mark.parametrize(("asked", "seen"), [(True, b"b'content'"), (False, b"None")])
def test_body_where_it_is_needed(asked: bool, seen: bytes) -> None:
    """A function decides for each request whether the body is read; only then does the signer see it."""
    credential = Credential.signed(body_of, needs_body=digest_where_asked)
    fields = [(b"x-sign-body", b"1")] if asked else []
    sent, read = forwarded(credential, "PUT", b"/", *fields, body=b"content")
    assert (read, sent.values(b"x-seen")) == (asked, [seen])


def test_signers_in_turn() -> None:
    """Of several signers each sees what is combined with it, and what the one before it added."""

    def second(request: UpstreamRequest) -> list[tuple[str, str]]:
        return [
            ("x-saw", f"{request.url} {first_value(request.fields, 'x-key')} {first_value(request.fields, 'x-seen')}")
        ]

    signed = [Credential.signed(body_of, needs_body=True), Credential.signed(second)]
    both = Credential.combine(*signed, Credential.header("x-key", "k"), Credential.query("key", "k"))
    sent, _ = forwarded(both, "PUT", b"/x?key=theirs&a=1", (b"X-Key", b"theirs"), body=b"content")
    assert sent.values(b"x-saw") == [b"https://api.example.com/x?a=1&key=k k b'content'"]


def test_signer_takes_fields_away() -> None:
    """A field that a signer gives no value for is not sent, whatever the case of its name."""
    credential = Credential.signed(lambda request: [("X-Old", None), ("x-new", "1")])
    sent, _ = forwarded(credential, "GET", b"/", (b"x-old", b"1"), (b"X_OLD", b"2"))
    assert sent.fields == [(b"host", b"api.example.com"), (b"x-new", b"1")]


@pytest.mark.parametrize("door", ["asgi", "wsgi"])
@pytest.mark.parametrize("place", ["sign", "needs_body"])
def test_signer_refuses(upstream: ScriptedUpstream, door: str, place: str) -> None:
    """A signer that cannot sign a request says so to the caller; nothing is sent."""

    def refuse(request: UpstreamRequest) -> Any:
        raise InvalidRequest("This cannot be signed")

    credential = Credential.signed(refuse if place == "sign" else body_of, needs_body=place == "needs_body" and refuse)
    with proxied(upstream, credential, door=door) as call:
        answer = call("PUT", "/", body=b"content")
    assert (answer.status, b"This cannot be signed" in answer.body) == (400, True)
    assert not upstream.requests

"""The core's decisions about expired and rejected credentials."""

from typing import Any

import pytest

from proxy_middleware import Credential, RefreshFailed, ResponseHead, UpstreamRequest
from proxy_middleware._fields import Field
from proxy_middleware._steps import Discard, Judge, Refresh
from proxy_middleware.errors import ConnectFailed, CredentialUnavailable, ProxyError
from tests.script import NEW, OLD, Body, Response, Script, play, request

LENGTH_5 = (b"content-length", b"5")
NOW = 1000.0


def tokens(script: Script) -> list[bytes]:
    """The Authorization that each upstream request had."""
    return [dict(sent.fields)[b"authorization"] for sent in script.sent]


def rejected(refresh: Any = NEW, second: Any = None, **arguments: Any) -> Script:
    """A script in which the upstream rejects the first credential."""
    return Script(refresh=refresh, responses=[Response(401), second or Response(200)], **arguments)


# Rejected by the upstream


def test_rejected_credential_is_refreshed_and_the_request_replayed() -> None:
    """A 401 is given up, the rejected credential refreshed, and the request sent once more with the newer one."""
    script = rejected()
    relay = play(script, request())
    assert script.kinds == ["Authenticate", "Resolve", "Obtain", "Forward", "Refresh", "Discard", "Forward"]
    assert script.steps[4:6] == [Refresh(script.connection, OLD), Discard(script.responses[0], None)]
    assert tokens(script) == [b"Bearer old", b"Bearer new"]
    assert relay.response is script.responses[1]


def test_replayed_request_is_the_same_request() -> None:
    """The second request has the same origin, target, method, body and fields, but for the credential."""
    script = rejected(NEW)
    body = Body(b"12345")
    play(script, request("POST", b"/a?b=c", (b"x-a", b"1"), LENGTH_5), body=body)
    first, second = script.sent
    assert (first.origin, first.method, first.target, first.body) == (
        second.origin,
        second.method,
        second.target,
        second.body,
    )
    assert [field for field in first.fields if field[0] != b"authorization"] == [
        field for field in second.fields if field[0] != b"authorization"
    ]
    assert (first.keep, first.again, second.again) == (True, False, True)
    assert Discard(script.responses[0], body) in script.steps


def test_nothing_of_the_first_credential_is_left() -> None:
    """A newer credential of another kind replaces the first one completely."""
    script = Script(
        credential=Credential.combine(Credential.query("k", "old"), Credential.header("x-old", "old")),
        refresh=NEW,
        responses=[Response(401), Response()],
    )
    play(script, request("GET", b"/?k=caller", (b"x-old", b"caller")))
    assert (script.sent[0].target, script.sent[1].target) == (b"/?k=old", b"/?k=caller")
    assert dict(script.sent[1].fields)[b"x-old"] == b"caller"


@pytest.mark.parametrize("second", [Response(200), Response(401), Response(500, [(b"x-a", b"1")])])
def test_second_response_is_returned_whatever_it_is(second: Response) -> None:
    """There is one refresh and one replay; what comes then is the answer."""
    script = rejected(second=second)
    assert play(script, request()).response is second
    assert script.kinds.count("Refresh") == 1
    assert len(script.sent) == 2


def test_second_request_may_fail() -> None:
    """Where the second request gets no response, that is the answer."""
    with pytest.raises(ConnectFailed):
        play(rejected(second=ConnectFailed()), request())


@pytest.mark.parametrize("refresh", [RefreshFailed(), OLD, Credential.bearer("old", expires_at=9e9)])
def test_original_is_returned_if_there_is_nothing_newer(refresh: Any) -> None:
    """If the refresh fails, or gives the same credential, the original response is returned untouched."""
    original = Response(401, [(b"www-authenticate", b"Bearer"), LENGTH_5])
    script = Script(refresh=refresh, responses=[original])
    relay = play(script, request())
    assert (relay.response, relay.fields) == (original, original.fields)
    assert "Discard" not in script.kinds
    assert len(script.sent) == 1


def test_original_is_returned_if_the_body_cannot_be_sent_again() -> None:
    """A body that was not kept is not sent twice; the credential is refreshed for the requests to come."""
    script = rejected()
    relay = play(script, request("POST", b"/", LENGTH_5), body=Body(b"12345", replayable=False))
    assert relay.response is script.responses[0]
    assert script.kinds[-2:] == ["Refresh", "Discard"]
    assert len(script.sent) == 1


@pytest.mark.parametrize("status", [200, 302, 400, 403, 407, 500])
def test_only_401_rejects_by_default(status: int) -> None:
    """Where the provider does not judge, other statuses reject nothing."""
    script = Script(refresh=NEW, responses=[Response(status)])
    assert play(script, request()).response is script.responses[0]
    assert "Refresh" not in script.kinds


def test_without_refresh_a_401_is_relayed() -> None:
    """A provider that cannot refresh changes nothing about a 401, and no body is kept for it."""
    script = Script(responses=[Response(401)])
    assert play(script, request("POST", b"/", LENGTH_5)).response.status == 401
    assert script.kinds[-1] == "Forward"
    assert not script.sent[0].keep


# The provider's own judgement


@pytest.mark.parametrize(("status", "verdict"), [(200, True), (403, True), (401, False), (401, True)])
def test_provider_judges(status: int, verdict: bool) -> None:
    """A provider with `is_rejected` decides, with status and fields before it, whatever the status is."""
    heads: list[ResponseHead] = []

    def judge(head: ResponseHead) -> bool:
        heads.append(head)
        return verdict

    fields: list[Field] = [(b"x-error", b"invalid_token")]
    script = Script(refresh=NEW, judge=judge, responses=[Response(status, fields), Response(204)])
    relay = play(script, request())
    assert relay.response is script.responses[verdict]
    assert [(head.status, head.header("X-Error")) for head in heads] == [(status, "invalid_token")]


def test_nobody_judges_where_nothing_could_follow() -> None:
    """Without a refresh the provider's judgement is not asked for."""
    script = Script(judge=lambda head: True, responses=[Response(401)])
    play(script, request())
    assert not any(isinstance(step, Judge) for step in script.steps)


# Expired by the clock


def expiring(seconds: float, name: str = "old") -> Credential:
    """A token that expires in so many seconds."""
    return Credential.bearer(name, expires_at=NOW + seconds)


@pytest.mark.parametrize("seconds", [29.9, 1, 0, -1000])
def test_credential_about_to_expire_is_refreshed_first(seconds: float) -> None:
    """Less than 30 seconds before its end a credential is refreshed before it is used."""
    script = Script(credential=expiring(seconds), now=NOW, refresh=NEW)
    play(script, request())
    assert script.kinds == ["Authenticate", "Resolve", "Obtain", "Refresh", "Forward"]
    assert tokens(script) == [b"Bearer new"]


@pytest.mark.parametrize("credential", [expiring(30), expiring(3600), OLD])
def test_credential_with_time_left_is_used(credential: Credential) -> None:
    """A credential with 30 seconds or more left, or without a known end, is simply used."""
    script = Script(credential=credential, now=NOW, refresh=NEW)
    play(script, request())
    assert script.kinds[-2:] == ["Obtain", "Forward"]
    assert tokens(script) == [b"Bearer old"]


@pytest.mark.parametrize("refresh", [RefreshFailed(), None])
def test_it_is_used_for_as_long_as_it_lives(refresh: Any) -> None:
    """If it cannot be refreshed, a credential serves to its end."""
    script = Script(credential=expiring(0.5), now=NOW, refresh=refresh)
    assert play(script, request()).response.status == 200
    assert tokens(script) == [b"Bearer old"]


@pytest.mark.parametrize("refresh", [RefreshFailed("the store is down"), None])
@pytest.mark.parametrize("seconds", [0, -0.1, -1000])
def test_expired_credential_is_a_424(seconds: float, refresh: Any) -> None:
    """Once expired, and not refreshed, it is not sent any more."""
    script = Script(credential=expiring(seconds), now=NOW, refresh=refresh)
    with pytest.raises(CredentialUnavailable):
        play(script, request())
    assert script.sent == []


@pytest.mark.parametrize("refresh", [NEW, RefreshFailed()])
def test_at_most_one_refresh(refresh: Any) -> None:
    """A request that was refreshed before it was sent is not refreshed again when it is rejected."""
    script = Script(credential=expiring(10), now=NOW, refresh=refresh, responses=[Response(401)])
    assert play(script, request()).response.status == 401
    assert script.kinds.count("Refresh") == 1


# Never more than three sends


@pytest.mark.parametrize(("retried", "again"), [(False, True), (True, False)])
def test_retry_and_replay_do_not_multiply(retried: bool, again: bool) -> None:
    """The engine's one retry is spent if the first request took it: three sends at the most."""
    script = Script(refresh=NEW, responses=[Response(401, retried=retried), Response()])
    play(script, request("PUT", b"/", LENGTH_5), body=Body(b"12345"))
    first, second = script.sent
    assert (first.retry, second.retry) == (True, again)
    assert len(script.sent) + retried + second.retry == 3


def test_post_is_never_retried() -> None:
    """The replay of a POST after a refusal gives the engine no leave to send it once more."""
    script = rejected()
    play(script, request("POST", b"/", LENGTH_5), body=Body(b"12345"))
    assert [sent.retry for sent in script.sent] == [False, False]


# Signed requests


class Signer:
    """Signs with its name, and notes which bodies it saw."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.bodies: list[bytes | None] = []

    def __call__(self, request: UpstreamRequest) -> list[tuple[str, str]]:
        """An Authorization of this signer's."""
        self.bodies.append(request.body)
        return [("authorization", self.name)]


@pytest.mark.parametrize("framing", [LENGTH_5, (b"transfer-encoding", b"chunked")])
@pytest.mark.parametrize("needs_body", [True, False])
def test_replayed_request_is_signed_anew(framing: Field, needs_body: bool) -> None:
    """The newer credential's signer signs the second request, with the body where it asked for it."""
    first, second = Signer("first"), Signer("second")
    script = Script(
        credential=Credential.signed(first, needs_body=needs_body),
        refresh=Credential.signed(second, needs_body=needs_body),
        responses=[Response(401), Response()],
    )
    play(script, request("POST", b"/", framing), body=Body(b"12345"))
    assert tokens(script) == [b"first", b"second"]
    assert first.bodies == second.bodies == [b"12345" if needs_body else None]


@pytest.mark.parametrize("framing", [LENGTH_5, (b"transfer-encoding", b"chunked")])
def test_only_the_newer_credential_may_need_the_body(framing: Field) -> None:
    """A newer credential that needs the body, where the first one did not, gets the whole body, too."""
    signer = Signer("second")
    script = rejected(Credential.signed(signer, needs_body=True))
    play(script, request("POST", b"/", framing), body=Body(b"12345"))
    assert tokens(script) == [b"Bearer old", b"second"]
    assert signer.bodies == [b"12345"]


@pytest.mark.parametrize("error", [ConnectFailed(), CredentialUnavailable()])
def test_errors_of_the_first_request_are_no_rejection(error: ProxyError) -> None:
    """A request that got no response is answered as it is, without a refresh."""
    script = Script(refresh=NEW, responses=[error])
    with pytest.raises(type(error)):
        play(script, request())
    assert "Refresh" not in script.kinds

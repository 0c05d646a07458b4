"""The core's decisions about signed requests and about responses."""

import pytest

from proxy_middleware import BrowserPolicy, Credential, Replay, UpstreamRequest
from proxy_middleware._fields import Field
from proxy_middleware._steps import Collect, Discard
from proxy_middleware.errors import PayloadTooLarge, ProtocolViolation
from tests.script import HOST, NEW, Body, Response, Script, play, request

LENGTH_5 = (b"content-length", b"5")
CHUNKED = (b"transfer-encoding", b"chunked")


class Signer:
    """Signs with a fixed value, and notes what it saw."""

    def __init__(self) -> None:
        self.seen: list[UpstreamRequest] = []

    def __call__(self, request: UpstreamRequest) -> list[tuple[str, str]]:
        """Replaces the caller's field of the same name."""
        self.seen.append(request)
        return [("X-Signature", "sig")]


# Signed requests


def test_signer_sees_what_goes_upstream() -> None:
    """A signer runs last: it sees method, full URL, and all fields, those injected and the framing, too."""
    signer = Signer()
    script = Script(credential=Credential.combine(Credential.query("k", "v"), NEW, Credential.signed(signer)))
    play(script, request("POST", b"/a%2Fb?x", (b"x_signature", b"evil"), LENGTH_5), body=Body(b"12345"))
    fields = [HOST, (b"x_signature", b"evil"), (b"authorization", b"Bearer new"), LENGTH_5]
    assert signer.seen == [UpstreamRequest("POST", "https://api.example.com/a%2Fb?x&k=v", tuple(fields), None)]
    assert script.sent[0].fields == [HOST, *fields[2:], (b"X-Signature", b"sig")]
    assert "Collect" not in script.kinds


@pytest.mark.parametrize("framing", [LENGTH_5, CHUNKED])
def test_signer_may_need_the_body(framing: Field) -> None:
    """A body that is signed is collected first, handed to the signer, and sent with its length from its start."""
    signer, body = Signer(), Body(b"12345")
    script = Script(credential=Credential.signed(signer, needs_body=True))
    play(script, request("POST", b"/", framing), body=body, replay=Replay(memory=3, disk=4))
    assert [step for step in script.steps if isinstance(step, Collect)] == [Collect(body, 7)]
    assert signer.seen[0].body == b"12345"
    (sent,) = script.sent
    assert (sent.chunked, sent.again, sent.body) == (False, True, body)
    assert [pair for pair in sent.fields if pair in (LENGTH_5, CHUNKED)] == [LENGTH_5]


def test_signer_of_an_absent_body() -> None:
    """Where there is no body there is nothing to collect, and the signer sees empty bytes."""
    signer = Signer()
    script = Script(credential=Credential.signed(signer, needs_body=True))
    play(script, request())
    assert signer.seen[0].body == b""
    assert "Collect" not in script.kinds
    assert script.sent[0].fields == [HOST, (b"X-Signature", b"sig")]


def test_body_too_long_to_be_signed() -> None:
    """A body that cannot be collected is the error that collecting it raised, and is not sent."""

    class TooLong(Script):
        def answer(self, step: object) -> object:
            if isinstance(step, Collect):
                raise PayloadTooLarge
            return super().answer(step)

    script = TooLong(credential=Credential.signed(Signer(), needs_body=True))
    with pytest.raises(PayloadTooLarge):
        play(script, request("POST", b"/", CHUNKED), body=Body(b"12345"))
    assert script.sent == []


# Responses


@pytest.mark.parametrize("status", [200, 201, 301, 401, 404, 418, 500, 599])
def test_any_response_is_relayed(status: int) -> None:
    """The upstream's response is relayed whatever its status: redirects are not followed, errors not replaced."""
    fields = [(b"Server", b"x"), (b"location", b"https://elsewhere.example/"), LENGTH_5]
    response = Response(status, list(fields))
    relay = play(Script(responses=[response]), request())
    assert (relay.response, relay.fields) == (response, fields)


@pytest.mark.parametrize(
    ("response", "max_status"),
    [
        (Response(600), 599),
        (Response(999), 599),
        (Response(200, [(b"x a", b"")]), 999),
    ],
)
def test_responses_that_no_server_could_send(response: Response, max_status: int) -> None:
    """A status beyond what the door carries, or a malformed field, is a 502, and the response is given up."""
    script = Script(responses=[response])
    with pytest.raises(ProtocolViolation):
        play(script, request(), max_status=max_status)
    assert script.steps[-1] == Discard(response, None)


def test_odd_status_where_the_door_carries_it() -> None:
    """WSGI carries any status of three digits."""
    assert play(Script(responses=[Response(999)]), request(), max_status=999).response.status == 999


@pytest.mark.parametrize(("status", "kept"), [(204, []), (304, []), (200, [LENGTH_5]), (205, [LENGTH_5])])
def test_bodiless_statuses(status: int, kept: list[Field]) -> None:
    """204 and 304 have no Content-Length."""
    assert play(Script(responses=[Response(status, [LENGTH_5])]), request()).fields == kept


def test_head_keeps_the_length() -> None:
    """A response to HEAD says how long the body would be."""
    assert play(Script(responses=[Response(200, [LENGTH_5])]), request("HEAD")).fields == [LENGTH_5]


@pytest.mark.parametrize(
    ("marks", "policy", "kept"),
    [
        ([], BrowserPolicy(), True),
        ([(b"cookie", b"a=b")], BrowserPolicy(), False),
        ([(b"sec-fetch-site", b"same-origin")], BrowserPolicy(), False),
        ([(b"sec-fetch-site", b"same-origin")], BrowserPolicy(guard=False), True),
    ],
)
def test_browsers_do_not_get_origin_wide_fields(marks: list[Field], policy: BrowserPolicy, kept: bool) -> None:
    """What acts on the host's origin is withheld from callers that are or may be browsers."""
    fields = [(b"set-cookie", b"a=b"), (b"x-a", b"1")]
    relay = play(Script(responses=[Response(200, fields)]), request("GET", b"/", *marks), browser=policy)
    vary = (b"vary", b"sec-fetch-dest, sec-fetch-mode, sec-fetch-site")
    assert relay.fields == (fields if kept else [*fields[1:], vary])


@pytest.mark.parametrize(("guard", "added"), [(True, [(b"cdn-cache-control", b"no-store")]), (False, [])])
def test_cache_guard(guard: bool, added: list[Field]) -> None:
    """Shared caches are told not to store a response, unless the guard is off."""
    fields = [(b"cache-control", b"public")]
    relay = play(Script(responses=[Response(200, list(fields))]), request(), cache_guard=guard)
    assert relay.fields == fields + added

"""An expired credential: refreshed once and the request sent once more, or the original answer, through both doors."""

import pytest

from tests.callers import RawResponse, call
from tests.host_plugins import UPSTREAM_SECRET
from tests.integration.asking import FIVE, SERVERS, ask, asked, check_clean
from tests.integration.conftest import MIB, REPLAY_LIMIT, ProxyServer
from tests.integration.traits import TRAITS
from tests.upstreams import Exchange, RecordedRequest, ScriptedUpstream, response
from tests.wire import Fields, chunked

REJECTION = response(401, ((b"WWW-Authenticate", b'Bearer error="invalid_token"'),), b"expired", reason=b"Nope")
EVERY_BYTE = bytes(range(256))


def _without_token(seen: RecordedRequest) -> tuple[bytes, bytes, Fields, bytes]:
    fields = tuple(pair for pair in seen.fields if pair[0] != b"authorization")
    return seen.method, seen.target, fields, seen.body


def _tokens(*requests: RecordedRequest) -> list[int]:
    """The numbers of the tokens that were sent."""
    start = f"Bearer {UPSTREAM_SECRET}-".encode()
    values = [seen.header(b"authorization") or b"" for seen in requests]
    assert all(value.startswith(start) for value in values)
    return [int(value.removeprefix(start)) for value in values]


def _check_original(server: str, answer: RawResponse, fields: Fields, body: bytes) -> None:
    traits = TRAITS[server]
    expected = traits.delivered((*fields, (b"Content-Length", b"%d" % len(body))))
    assert (answer.status, answer.complete, answer.body == body) == (401, True, True)
    assert traits.without_own(answer.fields, expected) == expected
    if traits.keeps_reason:
        assert answer.reason == b"Nope"
    check_clean(answer)


BODIES = {
    "no body": asked("{}/proxy/a%2Fb?c=%zz"),
    "small": asked("{}/proxy/x", "POST", [("X-A", "1")], b'{"a": 1}'),
    "empty": asked("{}/proxy/x", "POST", (), b""),
    "on disk": asked("{}/proxy/x", "POST", (), EVERY_BYTE * 4096),
    "chunked": asked("{}/proxy/x", "POST", [("Transfer-Encoding", "chunked")]) + chunked(b"hello ", EVERY_BYTE),
    "chunked on disk": asked("{}/proxy/x", "PUT", [("Transfer-Encoding", "chunked")])
    + chunked(*(EVERY_BYTE * 256,) * 16),
}


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("connection", ["expiring", "expiring-later"], ids=["def", "async def"])
def test_refreshed_and_replayed_once(
    server: str, body: str, connection: str, proxy_server: ProxyServer, shared_upstream: ScriptedUpstream
) -> None:
    """A 401 leads to a refresh, and to the same request, byte for byte, with the new token; its answer is returned."""
    shared_upstream.answer(REJECTION, response(201, ((b"X-A", b"1"),), b"second", reason=b"Made"))
    answer = call(proxy_server(server).address, BODIES[body].replace(b"{}", connection.encode(), 1))
    assert (answer.status, answer.body, answer.complete) == (201, b"second", True)
    first, second = shared_upstream.requests
    assert (first.wait_ended(), second.wait_ended()) == (True, True)
    assert _without_token(first) == _without_token(second)
    sent = BODIES[body].partition(b"\r\n\r\n")[2]
    assert len(second.body) == (len(sent) if not body.startswith("chunked") else len(_joined(sent)))
    old, new = _tokens(first, second)
    assert new > old


def _joined(framed: bytes) -> bytes:
    body = b""
    while framed:
        size, _, framed = framed.partition(b"\r\n")
        body, framed = body + framed[: int(size, 16)], framed[int(size, 16) + 2 :]
    return body


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("second", [401, 403, 500])
def test_second_answer_is_returned_whatever_it_is(
    server: str, second: int, proxy_server: ProxyServer, shared_upstream: ScriptedUpstream
) -> None:
    """There is one refresh and one replay only: another 401 is what the caller gets."""
    shared_upstream.answer(REJECTION, response(second, body=b"second"))
    answer = ask(proxy_server(server).address, "expiring/proxy/x")
    assert (answer.status, answer.body) == (second, b"second")
    assert len(shared_upstream.requests) == 2


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("connection", ["refresh-fails", "refresh-same"])
@pytest.mark.parametrize("size", [0, 7, 5 * MIB])
def test_original_answer_where_the_refresh_fails(
    server: str, connection: str, size: int, proxy_server: ProxyServer, shared_upstream: ScriptedUpstream
) -> None:
    """If the refresh fails, or gives the same credential, the first answer is returned byte for byte."""
    fields, body = ((b"X-A", b"1"), (b"WWW-Authenticate", b"Bearer")), (EVERY_BYTE * (size // 256 + 1))[:size]
    shared_upstream.answer(response(401, fields, body, reason=b"Nope"))
    answer = ask(proxy_server(server).address, f"{connection}/proxy/x", "POST", body=b"{}")
    _check_original(server, answer, fields, body)
    assert len(shared_upstream.requests) == 1


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_original_answer_where_the_body_is_too_long_to_keep(
    server: str, framing: str, proxy_server: ProxyServer, shared_upstream: ScriptedUpstream
) -> None:
    """A body over the limits of `Replay` is sent once, and the first answer is returned."""
    shared_upstream.answer(REJECTION)
    body = b"x" * (REPLAY_LIMIT + 1)
    if framing == "length":
        answer = ask(proxy_server(server).address, "expiring/proxy/x", "POST", body=body)
    else:
        head = asked("expiring/proxy/x", "POST", [("Transfer-Encoding", "chunked")])
        answer = call(proxy_server(server).address, head + chunked(body))
    _check_original(server, answer, ((b"WWW-Authenticate", b'Bearer error="invalid_token"'),), b"expired")
    (seen,) = shared_upstream.requests
    assert (seen.complete, len(seen.body)) == (True, len(body))


@pytest.mark.parametrize("server", FIVE)
def test_body_as_long_as_can_be_kept(server: str, proxy_server: ProxyServer, shared_upstream: ScriptedUpstream) -> None:
    """A body that fills the limits of `Replay` to the last byte is sent again."""
    shared_upstream.answer(REJECTION, response(body=b"second"))
    body = EVERY_BYTE * (REPLAY_LIMIT // 256)
    assert ask(proxy_server(server).address, "expiring/proxy/x", "POST", body=body).body == b"second"
    assert [seen.wait_ended() and seen.body == body for seen in shared_upstream.requests] == [True, True]


@pytest.mark.parametrize("server", SERVERS)
def test_provider_decides_what_a_rejection_is(
    server: str, proxy_server: ProxyServer, shared_upstream: ScriptedUpstream
) -> None:
    """With an `is_rejected` of its own, a 200 can be a rejection, and a 401 none."""
    address = proxy_server(server).address
    shared_upstream.answer(response(200, ((b"X-Expired", b"yes"),), b"expired"), response(401, body=b"second"))
    answer = ask(address, "judged/proxy/x", "POST", body=b"{}")
    assert (answer.status, answer.body) == (401, b"second")
    old, new = _tokens(*shared_upstream.requests)
    assert new > old


@pytest.mark.parametrize("server", SERVERS)
def test_early_rejection_of_an_upload(
    server: str, proxy_server: ProxyServer, shared_upstream: ScriptedUpstream
) -> None:
    """A 401 that comes before the body was sent is no reason to send less the second time."""
    rejected: list[bytes] = []

    @shared_upstream.script
    def script(exchange: Exchange) -> None:
        if rejected:
            exchange.read(None)
            exchange.send(response(body=b"second"))
        else:
            rejected.append(exchange.head)
            exchange.send(REJECTION)

    answer = ask(proxy_server(server).address, "expiring/proxy/x", "POST", body=EVERY_BYTE * 4096)
    assert (answer.status, answer.body) == (200, b"second")
    assert shared_upstream.requests[-1].body == EVERY_BYTE * 4096

"""The parity table through every server: exact bytes upstream, the same answer downstream."""

from collections.abc import Callable

import pytest

from tests.callers import call, request
from tests.host_plugins import CALLER_TOKEN, UPSTREAM_SECRET
from tests.integration.scenarios import SCENARIOS, Scenario
from tests.integration.traits import TRAITS, Traits
from tests.upstreams import RecordedRequest, ScriptedUpstream, response
from tests.wire import Address, Fields, chunked

SERVERS = tuple(TRAITS)


def _request(scenario: Scenario, host: bytes) -> bytes:
    lines = [
        scenario.method + b" " + scenario.path.replace(b"{host}", host) + b" HTTP/1.1",
        b"Host: host.test",
        b"Authorization: Bearer " + CALLER_TOKEN.encode(),
        *(name + b": " + value for name, value in scenario.fields),
    ]
    body = scenario.body or b""
    if scenario.body is not None:
        lines.append(b"Content-Length: %d" % len(body))
    if scenario.chunks is not None:
        lines.append(b"Transfer-Encoding: chunked")
        body = chunked(*scenario.chunks)
    return b"\r\n".join([*lines, b"", body])


def _upstream_head(scenario: Scenario, host: bytes, traits: Traits) -> bytes:
    fields: Fields = (
        (b"host", host),
        *traits.handed_over(scenario.passed),
        (b"authorization", b"Bearer " + UPSTREAM_SECRET.encode()),
    )
    if scenario.chunks is not None and not traits.unchunks:
        fields += ((b"transfer-encoding", b"chunked"),)
    elif scenario.chunks is not None or scenario.body is not None:
        fields += ((b"content-length", b"%d" % len(_body(scenario))),)
    method = scenario.sent_method or scenario.method
    lines = [method + b" " + scenario.target + b" HTTP/1.1", *(name + b": " + value for name, value in fields)]
    return b"\r\n".join([*lines, b"", b""])


def _body(scenario: Scenario) -> bytes:
    return scenario.body or b"".join(scenario.chunks or ())


def _check_upstream(seen: RecordedRequest, scenario: Scenario, host: bytes, traits: Traits) -> None:
    assert seen.head == _upstream_head(scenario, host, traits)
    assert (seen.wait_ended(), seen.body == _body(scenario)) == (True, True)


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_parity(
    server: str, scenario: Scenario, proxy_address: Callable[[str], Address], shared_upstream: ScriptedUpstream
) -> None:
    """Every server passes the same bytes on, and gives the same answer back."""
    traits, host = TRAITS[server], b"127.0.0.1:%d" % shared_upstream.address[1]
    scenario, refused = scenario.on(server)
    shared_upstream.answer(scenario.answer)
    answer = call(proxy_address(server), _request(scenario, host))
    if refused is not None:
        assert (answer.status, shared_upstream.requests) == (refused, [])
        return
    assert answer.status == scenario.status, answer
    (seen,) = shared_upstream.requests
    _check_upstream(seen, scenario, host, traits)
    expected = traits.delivered(scenario.received)
    assert traits.without_own(answer.fields, expected) == expected
    assert (answer.body == scenario.content, answer.complete, answer.trailers) == (True, True, b"")
    if traits.keeps_reason:
        assert answer.reason == scenario.reason


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize(("method", "length"), [("HEAD", 100), ("GET", 0), ("POST", 2)])
def test_bytes_behind_a_response_answer_nobody(
    server: str, method: str, length: int, proxy_address: Callable[[str], Address], shared_upstream: ScriptedUpstream
) -> None:
    """What an upstream sends after the end of a response is not taken for the next one."""
    token, forged = [("Authorization", f"Bearer {CALLER_TOKEN}")], response(418, body=b"forged")
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length
    shared_upstream.answer(head + (b"" if method == "HEAD" else b"ok"[:length]) + forged, response(body=b"true"))
    answers = [
        call(proxy_address(server), request(called, "/connections/crm/proxy/x", token, body))
        for called, body in ((method, b"{}"), ("GET", None))
    ]
    assert [(answer.status, answer.body) for answer in answers] == [
        (200, b"" if method == "HEAD" else b"ok"[:length]),
        (200, b"true"),
    ]

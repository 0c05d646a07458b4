"""After a refresh the request is sent once more: the same bytes, whatever their number, framing and pace."""

import hashlib
import threading
from collections.abc import Callable
from itertools import count

import pytest

from tests.callers import call, open_call
from tests.integration.auth_calls import (
    DOORS,
    EXPIRED,
    Host,
    api_calls,
    bearer_api,
    same_but_for_the_token,
    selector_of,
    strict_grants,
    token_calls,
    token_of,
)
from tests.integration.bulk import MIB
from tests.servers import ASGI_SERVERS
from tests.upstreams import Exchange, Script, ScriptedUpstream, response
from tests.wire import chunked

KIB = 1024
MEMORY = 256 * KIB
LIMIT = MEMORY + 5 * MIB
CONTENT = hashlib.shake_256(b"replayed").digest(LIMIT + 1)
WELCOME = response(201, ((b"X-A", b"1"),), b"welcome", reason=b"Made")
CHUNKED = ("Transfer-Encoding", "chunked")

each_door = pytest.mark.parametrize("server", DOORS)
each_framing = pytest.mark.parametrize("framing", ["length", "chunked"])


def upload(selector: str, body: bytes, framing: str) -> bytes:
    """A request with this body; its chunks have a length that nothing else has."""
    if framing == "length":
        return Host.asked(selector, "PUT", [("X-B", "1")], body, "/a%2Fb//?c=%zz")
    head = Host.asked(selector, "PUT", [CHUNKED, ("X-B", "1")], None, "/a%2Fb//?c=%zz")
    return head + chunked(*(body[at : at + 50_021] for at in range(0, len(body), 50_021)))


@each_door
@each_framing
@pytest.mark.parametrize("kind", ["numbered", "numbered-later"], ids=["def", "async def"])
@pytest.mark.parametrize("size", [0, 1, MEMORY - 1, MEMORY, MEMORY + 1, 5 * MIB, LIMIT])
def test_same_request_again(host: Host, framing: str, kind: str, size: int, shared_upstream: ScriptedUpstream) -> None:
    """Up to the limits of `Replay`, in memory and on disk, the second request is the first, with another token."""
    shared_upstream.answer(EXPIRED, WELCOME)
    answer = call(host.address, upload(selector_of(kind), CONTENT[:size], framing))
    assert (answer.status, answer.body, answer.complete) == (201, b"welcome", True)
    first, second = shared_upstream.requests
    assert same_but_for_the_token(first, second)
    assert second.body == CONTENT[:size]
    lengths, codings = second.values(b"content-length"), second.values(b"transfer-encoding")
    assert (lengths, codings) == (([b"%d" % size], []) if framing == "length" else ([], [b"chunked"]))


@each_door
@each_framing
@pytest.mark.parametrize("size", [0, 1, MEMORY + 1])
def test_same_request_again_with_a_rotated_token(
    host: Host, framing: str, size: int, shared_upstream: ScriptedUpstream
) -> None:
    """The same with tokens of a token endpoint: one call, and from then on its new token is used."""
    grants = strict_grants(shared_upstream)
    shared_upstream.script(bearer_api(grants.accepts, WELCOME))
    selector = selector_of("oauth2")
    host.connect(selector, **grants.connect("basic"))
    grants.expire_access_tokens()
    for _ in range(2):
        assert call(host.address, upload(selector, CONTENT[:size], framing)).status == 201
    first, second, third = api_calls(shared_upstream)
    assert same_but_for_the_token(first, second)
    assert (third.head, third.body) == (second.head, CONTENT[:size])
    assert len(token_calls(shared_upstream)) == 1


@each_door
@each_framing
@pytest.mark.parametrize("kind", ["numbered", "numbered-later"], ids=["def", "async def"])
def test_body_over_the_limit(host: Host, framing: str, kind: str, shared_upstream: ScriptedUpstream) -> None:
    """A body that cannot be kept is sent once, and the first answer returned; but the next request has a new token."""
    shared_upstream.answer(EXPIRED, WELCOME)
    selector = selector_of(kind)
    answer = call(host.address, upload(selector, CONTENT, framing))
    assert (answer.status, answer.body, answer.complete) == (401, b"expired", True)
    (first,) = shared_upstream.requests
    assert (first.wait_ended(), first.body == CONTENT) == (True, True)
    assert host.ask(selector).body == b"welcome"
    tokens = [token_of(seen) for seen in shared_upstream.requests]
    assert len(tokens) == len(set(tokens)) == 2


# Answers that come before the body has.


class Early:
    """An upstream that answers its first request by the head alone, then does something with the rest of it."""

    def __init__(self, upstream: ScriptedUpstream, rest: Script) -> None:
        self.answered = threading.Event()
        self._numbers = count(1)
        self._rest = rest
        upstream.script(self._answer)

    def _answer(self, exchange: Exchange) -> None:
        if next(self._numbers) > 1:
            exchange.read(None)
            exchange.send(WELCOME)
        else:
            exchange.send(EXPIRED)
            self.answered.set()
            self._rest(exchange)


def leave_unread(exchange: Exchange) -> None:
    """Takes nothing more, until the proxy gives up on it."""
    assert exchange.wait_closed(20)
    exchange.ended = True


def read_on(exchange: Exchange) -> None:
    """Takes all that comes, if it comes."""
    exchange.read(None)


RESTS: dict[str, Callable[[Exchange], None]] = {
    "unread": leave_unread,
    "read": read_on,
    "FIN": Exchange.close,
    "RST": Exchange.reset,
}


# A WSGI server hands over 64 KiB or nothing, so that less than that never comes before the whole.
PARTS = [(DOORS[0], 1, 2), (DOORS[0], 50 * KIB, 100 * KIB), *((server, MIB, 2 * MIB) for server in DOORS)]
FRAMED_PARTS = [(*part, framing) for part in PARTS for framing in ("length", "chunked")]
# Too long to be kept: where that is known beforehand, only what memory holds is.
FRAMED_PARTS += [(DOORS[0], 50 * KIB, 2 * LIMIT, "length"), *((server, MIB, 2 * LIMIT, "chunked") for server in DOORS)]


@pytest.mark.parametrize(("server", "part", "whole", "framing"), FRAMED_PARTS)
@pytest.mark.parametrize("rest", RESTS)
def test_early_rejection(
    host: Host, part: int, whole: int, framing: str, rest: str, shared_upstream: ScriptedUpstream
) -> None:
    """A 401 that comes before the whole body: all of it is sent, as it comes, the second time, however much that is."""
    early = Early(shared_upstream, RESTS[rest])
    body = (CONTENT * 2)[:whole]
    first_part, others = framed(body, part, framing)
    framing_field = ("Content-Length", str(whole)) if framing == "length" else CHUNKED
    with open_call(host.address) as caller:
        caller.send(Host.asked(selector_of("numbered"), "PUT", [framing_field]) + first_part)
        assert early.answered.wait(10)
        if host.server in ASGI_SERVERS:
            # Under WSGI, whoever reads from the caller waits for the caller.
            shared_upstream.wait_for_requests(2)
        caller.send(others)
        answer = caller.read_rest()
    assert (answer.status, answer.body, answer.complete) == (201, b"welcome", True)
    first, second = shared_upstream.requests
    assert (second.wait_ended(), second.body == body) == (True, True)
    assert body.startswith(first.body)
    # A reset may overtake the 401; then the request goes out once more as it is, on a fresh connection.
    assert token_of(first) != token_of(second) or rest == "RST"


def framed(body: bytes, part: int, framing: str) -> tuple[bytes, bytes]:
    """A body in two parts, as they go over the wire."""
    first, others = body[:part], body[part:]
    if framing == "length":
        return first, others
    return b"%x\r\n%b\r\n" % (len(first), first), chunked(others)


@pytest.mark.parametrize("server", DOORS[:1])
def test_early_rejection_of_what_is_known_to_be_too_long(host: Host, shared_upstream: ScriptedUpstream) -> None:
    """Once more than memory holds has been sent of such a body, its 401 is returned; the next token is a new one."""
    Early(shared_upstream, read_on)
    with open_call(host.address) as caller:
        caller.send(Host.asked(selector_of("numbered"), "PUT", [("Content-Length", str(2 * LIMIT))]) + CONTENT[:MIB])
        answer = caller.read_rest()
    assert (answer.status, answer.body, answer.complete) == (401, b"expired", True)
    assert host.ask(selector_of("numbered")).body == b"welcome"
    first, second = shared_upstream.requests
    assert token_of(first) != token_of(second)


@pytest.mark.parametrize("server", DOORS[:1])
@each_framing
def test_early_answer_is_returned_early(host: Host, framing: str, shared_upstream: ScriptedUpstream) -> None:
    """Where the refresh fails, a 401 that came before the whole body is returned before that, too."""
    # Not under gunicorn: it closes with the rest unread, so that the kernel resets the connection, answer and all.
    Early(shared_upstream, read_on)
    first_part, _ = framed(CONTENT, MIB, framing)
    framing_field = ("Content-Length", str(len(CONTENT))) if framing == "length" else CHUNKED
    with open_call(host.address) as caller:
        caller.send(Host.asked(selector_of("raises"), "PUT", [framing_field]) + first_part)
        answer = caller.read_rest()
    assert (answer.status, answer.body, answer.complete) == (401, b"expired", True)
    assert len(shared_upstream.requests) == 1

"""When a credential has expired: by what the API says other than 401, and by how long it has been known."""

import gzip
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.callers import NoResponse, RawResponse, call, open_call
from tests.integration.auth_calls import (
    CALLERS,
    DOORS,
    EXPIRED,
    HASTY_TTL,
    JSON,
    Host,
    api_calls,
    bearer_api,
    same_but_for_the_token,
    selector_of,
    strict_grants,
    token_calls,
    token_of,
)
from tests.upstreams import Exchange, Script, ScriptedUpstream, response
from tests.wire import Fields, chunked

each_door = pytest.mark.parametrize("server", DOORS)
KIB = 1024
SEEN = 64 * KIB
SLACK_EXPIRED = b'{"ok":false,"error":"token_expired"}'
SCOPE = ((b"WWW-Authenticate", b'Bearer error="insufficient_scope", scope="write"'),)


# What an API says.

FORMS = ["length", "chunked", "close", "gzip", "gzip chunked"]


def sending(body: bytes, form: str, status: int = 200, fields: Fields = JSON) -> Script:
    """An API that answers with this body, in pieces, in one of the forms."""
    if "gzip" in form:
        body, fields = gzip.compress(body), (*fields, (b"Content-Encoding", b"gzip"))
    size = max(len(body) // 7, 1)
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    head = [b"HTTP/1.1 %d OK" % status, *(b"%b: %b" % pair for pair in fields)]
    if "chunked" in form:
        head.append(b"Transfer-Encoding: chunked")
        pieces = [*(chunked(piece).removesuffix(b"0\r\n\r\n") for piece in pieces), b"0\r\n\r\n"]
    elif form != "close":
        head.append(b"Content-Length: %d" % len(body))

    def script(exchange: Exchange) -> None:
        exchange.read(None)
        for piece in (b"\r\n".join([*head, b"", b""]), *pieces):
            exchange.send(piece)
        if form == "close":
            exchange.close()

    return script


@each_door
@pytest.mark.parametrize("form", FORMS)
def test_expiry_that_is_no_401(host: Host, form: str, shared_upstream: ScriptedUpstream) -> None:
    """A 200 that says, in its body, that the token has expired leads to a refresh and the same request again."""
    grants = strict_grants(shared_upstream)
    expired = sending(SLACK_EXPIRED, form)

    @shared_upstream.script
    def script(exchange: Exchange) -> None:
        api = bearer_api(grants.accepts, response(200, JSON, b'{"ok":true}'))
        (api if grants.accepts(token_of(exchange.request)) else expired)(exchange)

    selector, body = selector_of("oauth2-slack"), b"x" * 300 * KIB
    host.connect(selector, **grants.connect("basic"))
    grants.expire_access_tokens()
    for _ in range(2):
        assert host.ask(selector, "POST", body=body).body == b'{"ok":true}'
    first, second, third = api_calls(shared_upstream)
    assert same_but_for_the_token(first, second)
    assert (third.head, third.body) == (second.head, body)
    assert len(token_calls(shared_upstream)) == 1


def padded(size: int) -> bytes:
    """An expiry in a document of this length."""
    start, end = b'{"ok":false,"error":"token_expired","padding":"', b'"}'
    return start + b"x" * (size - len(start) - len(end)) + end


@each_door
@pytest.mark.parametrize(("size", "expiry"), [(SEEN - 1, True), (SEEN, True), (SEEN + 1, False)])
def test_how_much_of_a_body_is_looked_at(
    host: Host, size: int, expiry: bool, shared_upstream: ScriptedUpstream
) -> None:
    """A document of 64 KiB is looked at; a longer one is no expiry, and passes whole."""
    shared_upstream.answer(response(200, JSON, padded(size)), response(body=b"second"))
    assert host.ask(selector_of("slack")).body == (b"second" if expiry else padded(size))
    assert len(shared_upstream.requests) == (2 if expiry else 1)


NO_EXPIRIES: dict[str, bytes] = {
    "empty": b"",
    "fine": b'{ "ok" : true, "error": "token_expired" }\r\n',
    "another error": b'{"ok":false,"error":"channel_not_found"}',
    "cut": SLACK_EXPIRED[:-1],
    "no JSON": bytes(range(256)) * 10,
    "long": padded(300 * KIB),
}


@each_door
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NO_EXPIRIES)
def test_other_answers_are_untouched(host: Host, form: str, name: str, shared_upstream: ScriptedUpstream) -> None:
    """An answer that is no expiry comes as if nobody had looked at it."""
    shared_upstream.script(sending(NO_EXPIRIES[name], form, fields=(*JSON, (b"X-A", b"1"), (b"X-A", b"2"))))
    looked_at, plain = host.ask(selector_of("slack")), host.ask(selector_of("static"))
    assert essence(looked_at) == essence(plain)
    packed = gzip.decompress(plain.body) if "gzip" in form else plain.body
    assert (plain.complete, packed) == (True, NO_EXPIRIES[name])
    assert len(shared_upstream.requests) == 2


def essence(answer: RawResponse) -> tuple[Any, ...]:
    """All of an answer but its date, and how chunks were cut."""
    fields = [pair for pair in answer.fields if pair[0].lower() != b"date"]
    return answer.status, answer.reason, fields, answer.framing, answer.complete, answer.body


@each_door
@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_answers_without_a_body(host: Host, method: str, status: int, shared_upstream: ScriptedUpstream) -> None:
    """Where no body comes, none is waited for."""
    head = b"HTTP/1.1 %d OK\r\nContent-Type: application/json\r\n" % status
    shared_upstream.answer(head + (b"Content-Length: 36\r\n\r\n" if method == "HEAD" else b"\r\n"))
    looked_at, plain = host.ask(selector_of("slack"), method), host.ask(selector_of("static"), method)
    assert essence(looked_at) == essence(plain)
    assert looked_at.status == status


@each_door
@pytest.mark.parametrize("end", [Exchange.close, Exchange.reset], ids=["FIN", "RST"])
@pytest.mark.parametrize("form", ["length", "chunked"])
def test_body_that_breaks_off(host: Host, form: str, end: Script, shared_upstream: ScriptedUpstream) -> None:
    """A body that breaks off while it is looked at is not passed off as complete, nor taken for an expiry."""
    cut = SLACK_EXPIRED[:-1]
    framing = b"Content-Length: 100" if form == "length" else b"Transfer-Encoding: chunked"
    start = cut if form == "length" else b"%x\r\n%b\r\n" % (len(cut), cut)

    @shared_upstream.script
    def script(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + framing + b"\r\n\r\n" + start)
        end(exchange)

    try:
        answer = host.ask(selector_of("slack"))
    except NoResponse:
        pass
    else:
        assert answer.status == 502 or not answer.complete
    assert len(shared_upstream.requests) == 1


@each_door
@pytest.mark.parametrize("kind", ["numbered", "numbered-later", "slack", "text", "oauth2"])
@pytest.mark.parametrize("status", [401, 403])
def test_want_of_scope(host: Host, kind: str, status: int, shared_upstream: ScriptedUpstream) -> None:
    """A token that is good, but not for this, is not refreshed (RFC 6750 section 3.1)."""
    shared_upstream.answer(response(status, (*JSON, *SCOPE), SLACK_EXPIRED))
    selector = selector_of(kind)
    if kind == "oauth2":
        host.connect(selector, access_token="good", refresh_token="good")
    answer = host.ask(selector)
    assert (answer.status, answer.body) == (status, SLACK_EXPIRED)
    assert answer.values(b"www-authenticate") == [SCOPE[0][1]]
    assert len(shared_upstream.requests) == 1


# Streams.


def holding(start: bytes, rest: bytes, go_on: threading.Event) -> Script:
    """An API that sends the rest of its answer only when it is told to."""

    def script(exchange: Exchange) -> None:
        exchange.send(start)
        exchange.wait(go_on)
        exchange.send(rest)
        exchange.close()

    return script


EVENT = b'data: {"ok":false,"error":"token_expired"}\n\n'
STREAMS = [
    ("slack", b"text/event-stream", EVENT),
    ("text", b"text/event-stream; charset=utf-8", EVENT),
    ("slack", b"application/x-ndjson", SLACK_EXPIRED + b"\n"),
    # More than is looked at: nothing is held back any longer.
    ("slack", b"application/json", padded(SEEN + 1)),
    ("text", b"text/plain", b"x" * (SEEN + 1)),
]


@each_door
@pytest.mark.parametrize(("kind", "media_type", "start"), STREAMS)
def test_streams_are_not_held_back(
    host: Host, kind: str, media_type: bytes, start: bytes, shared_upstream: ScriptedUpstream
) -> None:
    """An event stream passes as it comes, whatever a rule says; of other bodies 64 KiB are held back at the most."""
    go_on = threading.Event()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: " + media_type + b"\r\n\r\n"
    shared_upstream.script(holding(head + start, b"the rest", go_on))
    with open_call(host.address, Host.asked(selector_of(kind))) as caller:
        assert caller.read_head().status == 200
        assert caller.read(len(start)) == start
        go_on.set()
        rest = caller.read_rest()
    assert (rest.body, rest.complete) == (b"the rest", True)
    assert len(shared_upstream.requests) == 1


# How long a credential is known.


@each_door
def test_provider_is_asked_once_in_a_while(host: Host, shared_upstream: ScriptedUpstream) -> None:
    """What a provider gave is used for `credential_ttl`, and not a moment longer than the next request."""
    selector = selector_of("tenants")
    began, tokens = time.monotonic(), [f"alice/{selector}/obtained/1"]
    while tokens[-1] == tokens[0]:
        assert host.ask(selector, prefix="/hasty").status == 200
        tokens.append(token_of(shared_upstream.requests[-1]))
        assert time.monotonic() - began < 20
        time.sleep(0.02)
    assert time.monotonic() - began > HASTY_TTL
    assert len(tokens) > 3
    assert tokens[-1] == f"alice/{selector}/obtained/2"


@each_door
def test_crowd_asks_a_provider_once(host: Host, shared_upstream: ScriptedUpstream) -> None:
    """All who come at first make the provider be asked once; all who are rejected, once more."""
    selector = selector_of("tenants")
    shared_upstream.script(bearer_api(lambda token: "refreshed" in token))
    with ThreadPoolExecutor(64) as pool:
        statuses = list(pool.map(lambda _: host.ask(selector).status, range(64)))
    assert statuses == [200] * 64
    tokens = {token_of(seen) for seen in shared_upstream.requests}
    assert tokens == {f"alice/{selector}/obtained/1", f"alice/{selector}/refreshed/1"}


@each_door
def test_forget(host: Host, shared_upstream: ScriptedUpstream) -> None:
    """What is forgotten is asked for again, with the next request; other connections are not concerned."""
    selector, other = selector_of("tenants"), selector_of("tenants")
    for asked in (selector, other, selector):
        host.ask(asked)
    host.tell(f"/forget/{selector}")
    for asked in (selector, other, selector):
        host.ask(asked)
    numbers = [token_of(seen).rpartition("/")[2] for seen in shared_upstream.requests]
    assert numbers == ["1", "1", "1", "2", "1", "2"]


@each_door
def test_forget_ends_the_back_off(host: Host, shared_upstream: ScriptedUpstream) -> None:
    """After `forget` a refresh that has failed is tried again at once, as after an account was connected anew."""
    shared_upstream.route(b"/token", response(503))
    shared_upstream.answer(EXPIRED)
    selector = selector_of("oauth2")
    host.connect(selector, access_token="old", refresh_token="good")
    calls = []
    for forget in (False, False, True):
        if forget:
            host.tell(f"/forget/{selector}")
        assert host.ask(selector).status == 401
        calls.append(len(token_calls(shared_upstream)))
    assert calls == [1, 1, 2]


@each_door
def test_new_grant_after_forget(host: Host, shared_upstream: ScriptedUpstream) -> None:
    """A dead grant that was replaced is used with the next request, once the connection has been forgotten."""
    grants = strict_grants(shared_upstream)
    shared_upstream.script(bearer_api(grants.accepts))
    selector = selector_of("oauth2")
    host.connect(selector, **grants.connect("basic"))
    grants.revoke()
    assert host.ask(selector).status == 401
    host.connect(selector, **grants.connect("basic"))
    host.tell(f"/forget/{selector}")
    assert host.ask(selector).body == b"welcome"
    assert len(token_calls(shared_upstream)) == 1


@each_door
@pytest.mark.parametrize("prefix", ["/connections", "/hasty"])
def test_tenants_are_kept_apart(host: Host, prefix: str, shared_upstream: ScriptedUpstream) -> None:
    """Connections with one id and other attributes never share a credential: not a cached one, nor a refreshed one."""
    selector = selector_of("tenants")
    shared_upstream.script(bearer_api(lambda token: "refreshed" in token))

    def ask(token: str) -> int:
        return host.ask(selector, caller=token, prefix=prefix, target=f"/{CALLERS[token]}").status

    assert [ask(token) for token in [*CALLERS] * 3] == [200] * 6
    with ThreadPoolExecutor(32) as pool:
        # A 401, too: a token that another caller was given meanwhile, and that the API rejects, is newer as well.
        assert set(pool.map(ask, [*CALLERS] * 60)) <= {200, 401}
    seen = [(came.target.decode(), token_of(came).partition("/")[0]) for came in shared_upstream.requests]
    assert set(seen) == {("/alice", "alice"), ("/bob", "bob")}
    assert call(host.address, Host.asked(selector, caller="nobody")).status == 401

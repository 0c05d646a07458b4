"""What observers are told of requests, through both doors of real servers."""

import gc
import logging
import pickle
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from proxy_middleware import Connection, Credential, Event, Limits, ProxyError, StaticResolver, Timeouts
from proxy_middleware._trail import Trail
from proxy_middleware.errors import RefreshFailed
from tests.callers import call, open_call, request
from tests.credentials.proxied import Caller, proxied
from tests.upstreams import Exchange, ScriptedUpstream, response

SECRET, NEWER, TOKEN, QUERY, COOKIE = "stored-secret", "newer-secret", "callers-token", "key=private", "sid=private"
GOOD = ["matched", "resolved", "attempt", "response_started", "finished"]
DENIED = ["matched", "denied", "finished"]


class Watch:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._changed = threading.Condition()

    def __call__(self, event: Event) -> None:
        """Keeps the event."""
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def finished(self, count: int = 1) -> list[Event]:
        """All events, when so many requests are over."""

        def over() -> bool:
            return sum(event.kind == "finished" for event in self.events) >= count

        with self._changed:
            assert self._changed.wait_for(over, 10), self.events
            return list(self.events)


class Tokens:
    """A provider whose first token is good for one request; it may be unable to refresh."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error

    def obtain(self, connection: Connection) -> Credential:
        """The first token."""
        return Credential.bearer(SECRET)

    def refresh(self, connection: Connection, rejected: Credential) -> Credential:
        """The second one."""
        if self._error is not None:
            raise self._error
        return Credential.bearer(NEWER)


@pytest.fixture(params=["asgi", "wsgi"])
def door(request: pytest.FixtureRequest) -> str:
    """Both doors."""
    return str(request.param)


@pytest.fixture
def watch() -> Watch:
    """The observer."""
    return Watch()


@contextmanager
def watched(
    upstream: ScriptedUpstream, door: str, watch: Watch, source: Any = None, **settings: Any
) -> Iterator[Caller]:
    """A proxy with this observer, behind a real server."""
    source = source or Credential.bearer(SECRET)
    with proxied(upstream, source, door=door, **{"observers": [watch], **settings}) as caller:
        yield caller


def kinds(events: list[Event]) -> list[str]:
    """What happened, in order."""
    return [event.kind for event in events]


def last(events: list[Event]) -> Event:
    """What is told at the end."""
    assert events[-1].kind == "finished"
    return events[-1]


def test_good_request(upstream: ScriptedUpstream, door: str, watch: Watch) -> None:
    """A request that goes well is told of in five events, with what is known by then."""
    upstream.route(b"/items", response(201, body=b"x" * 1000))
    with watched(upstream, door, watch) as caller:
        assert caller("POST", f"/items?{QUERY}", body=b"y" * 300).status == 201
        events = watch.finished()
    assert kinds(events) == GOOD
    matched, resolved, attempt, started, finished = events
    assert (matched.method, matched.selector, matched.connection_id, matched.attempts) == ("POST", "crm", None, 0)
    assert (resolved.connection_id, resolved.attempts) == ("crm", 0)
    assert (attempt.origin, attempt.path, attempt.attempts) == (upstream.url, "/items", 1)
    assert (started.status, started.path) == (201, None)
    assert (finished.status, finished.error, finished.received, finished.sent) == (201, None, 300, 1000)
    assert len({event.request for event in events}) == 1
    assert [event.time for event in events] == sorted(event.time for event in events)
    phases = dict(finished.timings)
    total = phases.pop("total")
    assert list(phases) == ["resolve", "credential", "upstream", "relay"]
    assert all(seconds >= 0 for seconds in phases.values())
    assert total == pytest.approx(sum(phases.values()))


def test_bodies_without_length(upstream: ScriptedUpstream, door: str, watch: Watch) -> None:
    """Bytes are counted without their framing, and a response to HEAD has none."""
    chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    upstream.route(b"/chunks", chunks)
    upstream.route(b"/head", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
    upstream.route(b"/none", b"HTTP/1.1 204 No Content\r\n\r\n")
    with watched(upstream, door, watch, spool_unframed="always") as caller:
        assert caller("GET", "/chunks").body == b"abcde"
        assert caller("HEAD", "/head").status == 200
        assert caller("GET", "/none").status == 204
        sent = [(event.status, event.sent) for event in watch.finished(3) if event.kind == "finished"]
    assert sent == [(200, 5), (200, 0), (204, 0)]


@pytest.mark.parametrize(
    ("path", "fields", "seen", "status", "error"),
    [
        ("crm/proxy/x", [("sec-fetch-site", "cross-site")], DENIED, 403, "http_request_denied"),
        ("other/proxy/x", [], DENIED, 404, "http_request_error"),
        ("crm/proxy/../x", [], ["matched", "resolved", "denied", "finished"], 400, "http_request_error"),
        ("crm/proxy/https://a.example/", [], ["matched", "resolved", "denied", "finished"], 403, "http_request_denied"),
        ("%2e%00/proxy/x", [], DENIED, 404, "http_request_error"),
    ],
)
def test_denied(
    upstream: ScriptedUpstream,
    door: str,
    watch: Watch,
    path: str,
    fields: list[tuple[str, str]],
    seen: list[str],
    status: int,
    error: str,
) -> None:
    """What the proxy refuses by itself is told of as denied, and finished with the same status and error."""
    with watched(upstream, door, watch) as caller:
        assert call(caller.address, request("GET", f"/connections/{path}", fields)).status == status
        events = watch.finished()
    assert kinds(events) == seen
    assert [(event.status, event.error) for event in events[-2:]] == [(status, error)] * 2
    assert set(last(events).timings) <= {"total", "resolve"}
    assert not upstream.requests


def test_not_authenticated(upstream: ScriptedUpstream, door: str, watch: Watch) -> None:
    """A caller without identity is denied before anything is resolved."""
    with watched(upstream, door, watch, authenticate=lambda request: None) as caller:
        assert caller("GET", "/x").status == 401
        events = watch.finished()
    assert kinds(events) == DENIED
    assert last(events).connection_id is None


def test_refresh(upstream: ScriptedUpstream, door: str, watch: Watch) -> None:
    """A refresh stands between two attempts, and the caller's bytes count once."""

    @upstream.script
    def _(exchange: Exchange) -> None:
        exchange.read(None)
        good = (b"authorization", f"Bearer {NEWER}".encode()) in exchange.request.fields
        exchange.send(response(200 if good else 401, body=b"good" if good else b"expired"))

    with watched(upstream, door, watch, Tokens()) as caller:
        assert caller("POST", "/x", body=b"z" * 5000).body == b"good"
        events = watch.finished()
    first, second = GOOD[:4], ["refresh_started", "refresh_finished", "attempt", "response_started", "finished"]
    assert kinds(events) == [*first, *second]
    assert [event.status for event in events if event.kind == "response_started"] == [401, 200]
    assert [event.error for event in events] == [None] * len(events)
    assert (last(events).attempts, last(events).received, last(events).sent) == (2, 5000, 4)


@pytest.mark.parametrize("error", [RefreshFailed(), OSError(f"no vault for {SECRET}")])
def test_failed_refresh(upstream: ScriptedUpstream, door: str, watch: Watch, error: Exception) -> None:
    """A refresh that fails says so; the request is finished with the upstream's own answer."""
    upstream.script(lambda exchange: exchange.send(response(401, body=b"expired")))
    with watched(upstream, door, watch, Tokens(error)) as caller:
        assert caller("GET", "/x").body == b"expired"
        events = watch.finished()
    assert kinds(events) == [*GOOD[:4], "refresh_started", "refresh_finished", "finished"]
    assert events[5].error == "proxy_configuration_error"
    assert (last(events).status, last(events).error, last(events).sent) == (401, None, 7)


def test_failures_of_the_upstream(upstream: ScriptedUpstream, closed_port: int, door: str, watch: Watch) -> None:
    """An upstream that cannot be reached, or is too slow, is no denial: the attempt is finished with the error."""
    closed = Connection("crm", f"http://127.0.0.1:{closed_port}")
    with watched(upstream, door, watch, resolver=StaticResolver([closed])) as caller:
        assert caller("GET", "/x").status == 502
        events = watch.finished()
    assert kinds(events) == ["matched", "resolved", "attempt", "finished"]
    assert (last(events).status, last(events).error) == (502, "connection_refused")
    assert set(last(events).timings) == {"resolve", "credential", "total"}
    slow = Watch()

    @upstream.script
    def _(exchange: Exchange) -> None:
        assert exchange.wait_closed(10)

    with watched(upstream, door, slow, timeouts=Timeouts(head=0.2)) as caller:
        assert caller("GET", "/x").status == 504
        assert last(slow.finished()).error == "http_response_timeout"


def test_response_that_breaks_off(upstream: ScriptedUpstream, door: str, watch: Watch) -> None:
    """A response that breaks off keeps its status, and says that it is not whole."""

    @upstream.script
    def _(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
        exchange.close()

    with watched(upstream, door, watch) as caller:
        answer = caller("GET", "/x")
        assert (answer.status, answer.complete) == (200, False)
        event = last(watch.finished())
    assert (event.status, event.error) == (200, "http_response_incomplete")


def test_caller_that_leaves(upstream: ScriptedUpstream, door: str, watch: Watch) -> None:
    """A caller that leaves in the middle of the response is told of."""

    @upstream.script
    def _(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        while not exchange.wait_closed(0.05):
            exchange.send(b"data: 2\n\n")

    with watched(upstream, door, watch) as caller:
        with open_call(caller.address, request("GET", "/connections/crm/proxy/x")) as opened:
            assert opened.read(9) == b"data: 1\n\n"
        event = last(watch.finished())
    assert (event.status, event.error) == (200, "caller_left")
    assert event.sent >= 9


def test_nothing_secret(upstream: ScriptedUpstream, door: str, watch: Watch) -> None:
    """No event holds a credential, a caller's token, a cookie or a query."""
    upstream.route(b"/x", response(200, ((b"Set-Cookie", b"upstream=hidden"),), b"body-of-response"))
    fields = [("Authorization", f"Bearer {TOKEN}"), ("Cookie", COOKIE)]
    with watched(upstream, door, watch) as caller:
        assert caller("GET", f"/x?{QUERY}", fields).status == 200
        told = repr(watch.finished())
    for hidden in (SECRET, TOKEN, QUERY, COOKIE, "hidden", "body-of"):
        assert hidden not in told


def test_events_are_values(upstream: ScriptedUpstream, door: str, watch: Watch) -> None:
    """Events cannot be changed; whichever way they are read, copied or stored, they say the same, and hold no query."""
    upstream.route(b"/x", response(body=b"ok"))
    with watched(upstream, door, watch) as caller:
        assert caller("GET", f"/x?{QUERY}").status == 200
        events = watch.finished()
    for event in events:
        values = [getattr(event, name) for name in Event._fields]
        assert list(event) == list(event._asdict().values()) == values
        assert [event[index] for index in range(len(values))] == list(event[:]) == values
        assert event == Event(*values)
        assert not event != Event(*values)  # noqa: SIM202 -- the other operator
        assert event != event._replace(attempts=7)
        assert len({event, event}) == 1
        assert list(event._replace(attempts=7)) == [*values[:6], 7, *values[7:]]
        assert repr(event) == repr(Event(*values))
        assert list(pickle.loads(pickle.dumps(event))) == values
        assert QUERY not in tuple.__repr__(event)
        with pytest.raises(AttributeError):
            event.path = "/y"  # type: ignore[misc]
    assert [event.path for event in events] == [None, None, "/x", None, None]


def test_many_at_once(upstream: ScriptedUpstream, door: str, watch: Watch) -> None:
    """Events of requests that are under way at once are told apart by their number, each in its order."""
    upstream.script(lambda exchange: exchange.send(response(body=b"ok")))
    with (
        watched(upstream, door, watch, limits=Limits(connections_per_origin=50)) as caller,
        ThreadPoolExecutor(25) as pool,
    ):
        answers = list(pool.map(lambda number: caller("GET", f"/{number}").status, range(50)))
        events = watch.finished(50)
    assert answers == [200] * 50
    numbers = {event.request for event in events}
    assert len(numbers) == 50
    for number in numbers:
        assert kinds([event for event in events if event.request == number]) == GOOD


def test_observer_that_fails(
    upstream: ScriptedUpstream, door: str, watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    """What an observer raises harms neither the request nor the other observers; the log has its type only."""

    def failing(event: Event) -> None:
        raise LookupError(f"nothing for {SECRET}")

    upstream.route(b"/x", response(body=b"ok"))
    with (
        caplog.at_level(logging.WARNING, "proxy_middleware"),
        watched(upstream, door, watch, observers=[failing, watch]) as caller,
    ):
        assert caller("GET", "/x").body == b"ok"
        assert kinds(watch.finished()) == GOOD
    assert caplog.text.count("LookupError") == len(GOOD)
    assert SECRET not in caplog.text


def test_nothing_is_left_behind(upstream: ScriptedUpstream, closed_port: int, door: str, watch: Watch) -> None:
    """When requests are over, well or not, nothing of them waits for the garbage collector."""

    def there() -> set[int]:
        return {id(thing) for thing in gc.get_objects() if isinstance(thing, Trail | ProxyError)}

    upstream.route(b"/x", response(body=b"ok"))
    closed = f"http://127.0.0.1:{closed_port}"
    resolver = StaticResolver([Connection("crm", upstream.url, allowed_origins=(closed,))])
    before = there()
    gc.disable()
    try:
        with watched(upstream, door, watch, resolver=resolver) as caller:
            for target in ("/x", "/../x", f"/{closed}/x"):
                caller("GET", target)
            watch.finished(3)
            deadline = time.monotonic() + 10
            while there() - before:
                assert time.monotonic() < deadline
                time.sleep(0.02)
    finally:
        gc.enable()


def test_without_observers(upstream: ScriptedUpstream, door: str) -> None:
    """Where nobody listens, no trail is made."""
    made = []

    class Counted(Trail):
        def __init__(self, *arguments: Any) -> None:
            made.append(arguments)
            super().__init__(*arguments)

    upstream.route(b"/x", response(body=b"ok"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"proxy_middleware.{door}.Trail", Counted)
        with proxied(upstream, Credential.bearer(SECRET), door=door) as caller:
            assert caller("GET", "/x").body == b"ok"
    assert made == []


async def later(event: Event) -> None:
    """Nobody would await this."""


@pytest.mark.parametrize("observer", [later, "log", None])
def test_no_observers(upstream: ScriptedUpstream, door: str, observer: Any) -> None:
    """What cannot be called, or would have to be awaited, is a TypeError at construction."""
    with pytest.raises(TypeError, match="observer"), watched(upstream, door, Watch(), observers=[observer]):
        pass

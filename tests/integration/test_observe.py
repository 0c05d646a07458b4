"""The ready-made observers, all three at once, through both doors of real servers."""

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind
from prometheus_client import CollectorRegistry, generate_latest

from proxy_middleware import Connection, Credential, Event, Limits, Proxy, StaticCredentials, StaticResolver
from proxy_middleware.observe import LoggingObserver, PrometheusObserver
from tests.callers import RawResponse, call, open_call, request
from tests.credentials.proxied import wsgi_host
from tests.in_process import host, proxy_to
from tests.observe.telemetry import Telemetry, attributes, identity, parent
from tests.servers import serve_asgi, serve_wsgi
from tests.upstreams import Exchange, ScriptedUpstream, response
from tests.wire import Address

SECRET, TOKEN, QUERY, COOKIE = "stored-secret", "callers-token", "key=private", "sid=private"
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
CROWD = 100
DURATION = "proxy_middleware_request_duration_seconds_count"


class Watching(logging.Handler):
    """The three observers, in one that notices when one of them fails, and what they have told."""

    def __init__(self) -> None:
        super().__init__()
        self.telemetry = Telemetry()
        self.registry = CollectorRegistry()
        self.records: list[Any] = []
        self.failures: list[Exception] = []
        self._observers = LoggingObserver(), self.telemetry.observer, PrometheusObserver(self.registry)
        self._finished = 0
        self._changed = threading.Condition()

    def __call__(self, event: Event) -> None:
        """Tells them."""
        for observe in self._observers:
            try:
                observe(event)
            except Exception as error:
                self.failures.append(error)
        with self._changed:
            self._finished += event.kind == "finished"
            self._changed.notify_all()

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps what is logged."""
        self.records.append(record)

    def wait(self, count: int = 1) -> None:
        """Waits until so many requests are over."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._finished >= count, 10)

    def access(self) -> Any:
        """The one access record."""
        (record,) = (record for record in self.records if record.name == "proxy_middleware.access")
        return record

    def request_span(self) -> ReadableSpan:
        """The one span of a request as a whole."""
        (span,) = self.telemetry.of(SpanKind.SERVER)
        return span

    def counted(self, status: str, error: str, method: str = "GET") -> float | None:
        """How many requests have ended like this."""
        return self.registry.get_sample_value(DURATION, {"method": method, "status": status, "error": error})

    def text(self) -> str:
        """All that has been told, in every form."""
        logged = "".join(record.getMessage() + repr(vars(record)) for record in self.records)
        return logged + self.telemetry.text() + generate_latest(self.registry).decode()


class Tokens:
    """A provider whose refresh gives a new token each time."""

    def __init__(self) -> None:
        self._count = 0

    def obtain(self, connection: Connection) -> Credential:
        """The first token."""
        return Credential.bearer(SECRET)

    def refresh(self, connection: Connection, rejected: Credential) -> Credential:
        """The next one."""
        self._count += 1
        return Credential.bearer(f"{SECRET}-{self._count}")


class Door:
    """A proxy behind a real server, and whoever watches it now; the application may have a span of its own around."""

    def __init__(self, upstream: ScriptedUpstream, closed_port: int) -> None:
        self.upstream = upstream
        self.watching = Watching()
        self.address: Address = ("", 0)
        self.application: Callable[[], Any] = nothing
        crowd = [Connection(f"c{number}", upstream.url, integration_key="crm") for number in range(CROWD)]
        closed = Connection("closed", f"http://127.0.0.1:{closed_port}", integration_key="crm")
        self.proxy: Proxy = proxy_to(
            upstream,
            resolver=StaticResolver([Connection("crm", upstream.url), closed, *crowd]),
            credentials=StaticCredentials({"crm": Tokens()}),
            limits=Limits(connections_per_origin=CROWD),
            observers=[lambda event: self.watching(event)],
        )

    def asgi(self) -> Any:
        """The application under ASGI."""
        door = self.proxy.asgi(host)

        async def app(scope: Any, receive: Any, send: Any) -> None:
            with self.application():
                await door(scope, receive, send)

        return app

    def wsgi(self) -> Any:
        """The application under WSGI."""
        door = self.proxy.wsgi(wsgi_host)

        def app(environ: Any, start_response: Any) -> Any:
            with self.application():
                return door(environ, start_response)

        return app

    def __call__(self, target: str, *fields: tuple[str, str], method: str = "GET", body: Any = None) -> RawResponse:
        """The answer to a request, when all has been told of it."""
        answer = call(self.address, request(method, f"/connections/{target}", fields, body))
        self.watching.wait()
        return answer


@contextmanager
def nothing() -> Iterator[None]:
    """No span of the application's own."""
    yield


@pytest.fixture(scope="module")
def serving() -> Iterator[ScriptedUpstream]:
    """The upstream of all these tests."""
    with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture(scope="module", params=["asgi", "wsgi"])
def served(request: pytest.FixtureRequest, serving: ScriptedUpstream, closed_port: int) -> Iterator[Door]:
    """Both doors, behind a server each."""
    door = Door(serving, closed_port)
    with serve_asgi(door.asgi()) if request.param == "asgi" else serve_wsgi(door.wsgi()) as address:
        door.address = address
        yield door
    door.proxy.close()


@pytest.fixture
def door(served: Door) -> Iterator[Door]:
    """The same, watched for this test alone."""
    served.watching, served.application = Watching(), nothing
    logger = logging.getLogger("proxy_middleware")
    before = logger.level
    logger.addHandler(served.watching)
    logger.setLevel(logging.DEBUG)
    yield served
    logger.removeHandler(served.watching)
    logger.setLevel(before)
    served.upstream.forget()
    assert served.watching.failures == []


def test_good_request(door: Door) -> None:
    """All three tell of a request that goes well; a `traceparent` goes upstream as it came."""
    door.upstream.route(b"/items", response(201, body=b"x" * 1000))
    fields = ("traceparent", TRACEPARENT)
    assert door("crm/proxy/items", fields, method="POST", body=b"y" * 300).status == 201
    watching = door.watching
    record, server = watching.access(), watching.request_span()
    assert record.levelno == logging.INFO
    assert (record.proxy_connection_id, record.proxy_path) == ("crm", "/items")
    assert (record.proxy_status, record.proxy_received, record.proxy_sent) == (201, 300, 1000)
    (client,) = watching.telemetry.of(SpanKind.CLIENT)
    assert parent(client) == identity(server)
    assert attributes(client)["url.full"] == f"{door.upstream.url}/items"
    assert attributes(client)["server.port"] == door.upstream.address[1]
    assert server.end_time is not None
    assert server.start_time is not None
    assert (server.end_time - server.start_time) / 1e9 == pytest.approx(record.proxy_seconds, abs=1e-3)
    assert watching.counted("201", "", "POST") == 1
    assert watching.registry.get_sample_value("proxy_middleware_response_body_bytes_total") == 1000
    assert door.upstream.requests[-1].values(b"traceparent") == [TRACEPARENT.encode()]


def test_refresh(door: Door) -> None:
    """A request that is sent once more has two attempts and a refresh with all three."""
    answers = [response(401, body=b"expired"), response(body=b"good")]
    door.upstream.route(b"/x", lambda exchange: exchange.send(answers.pop(0)))
    assert door("crm/proxy/x").body == b"good"
    watching = door.watching
    first, refresh, second, server = watching.telemetry.spans
    assert [attributes(span).get("http.response.status_code") for span in (first, refresh, second)] == [401, None, 200]
    assert attributes(second)["http.request.resend_count"] == 1
    assert {parent(span) for span in (first, refresh, second)} == {identity(server)}
    assert watching.access().proxy_attempts == 2
    refreshes = [record.levelname for record in watching.records if record.name == "proxy_middleware.refresh"]
    assert refreshes == ["DEBUG", "INFO"]
    assert watching.registry.get_sample_value("proxy_middleware_refreshes_total", {"error": ""}) == 1


@pytest.mark.parametrize(
    ("target", "status", "error"),
    [
        ("unknown/proxy/x", 404, "http_request_error"),
        ("crm/proxy/https://user:pass@a.example/", 400, "http_request_error"),
        ("%2e%00/proxy/x", 404, "http_request_error"),
    ],
)
def test_denied(door: Door, target: str, status: int, error: str) -> None:
    """A request that is refused is told of without a path, and makes no CLIENT span."""
    assert door(target).status == status
    watching = door.watching
    record = watching.access()
    assert (record.levelno, record.proxy_denied, record.proxy_path) == (logging.INFO, True, None)
    assert (record.proxy_status, record.proxy_error) == (status, error)
    assert attributes(watching.request_span())["proxy_middleware.error"] == error
    assert len(watching.telemetry.spans) == 1
    assert watching.counted(str(status), error) == 1
    assert "pass" not in watching.text()


def test_unreachable_upstream(door: Door) -> None:
    """An upstream that refuses connections is a warning, an error on both spans, and counts as such."""
    assert door("closed/proxy/x").status == 502
    watching = door.watching
    warnings = [record.name for record in watching.records if record.levelno == logging.WARNING]
    assert warnings == ["proxy_middleware.upstream", "proxy_middleware.access"]
    assert [attributes(span)["error.type"] for span in watching.telemetry.spans] == ["connection_refused"] * 2
    assert watching.counted("502", "connection_refused") == 1


def test_response_that_breaks_off(door: Door) -> None:
    """A response that breaks off keeps its status and is an error with all three."""

    def script(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
        exchange.close()

    door.upstream.route(b"/broken", script)
    answer = door("crm/proxy/broken")
    assert (answer.status, answer.complete) == (200, False)
    watching = door.watching
    assert watching.access().levelno == logging.WARNING
    found = attributes(watching.request_span())
    assert (found["http.response.status_code"], found["error.type"]) == (200, "http_response_incomplete")
    assert watching.counted("200", "http_response_incomplete") == 1


def test_caller_that_leaves(door: Door) -> None:
    """A caller that leaves in the middle of the response is told of, and nothing stays in progress."""

    def script(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        while not exchange.wait_closed(0.05):
            exchange.send(b"data: 2\n\n")

    door.upstream.route(b"/stream", script)
    with open_call(door.address, request("GET", "/connections/crm/proxy/stream")) as opened:
        assert opened.read(9) == b"data: 1\n\n"
        assert door.watching.registry.get_sample_value("proxy_middleware_requests_in_progress") == 1
    door.watching.wait()
    record = door.watching.access()
    assert (record.levelno, record.proxy_error) == (logging.INFO, "caller_left")
    assert attributes(door.watching.request_span())["error.type"] == "caller_left"
    assert door.watching.registry.get_sample_value("proxy_middleware_requests_in_progress") == 0


def test_many_at_once(door: Door) -> None:
    """Spans of requests that are under way at once are not mixed, also below spans of the application's own."""
    tracer = door.watching.telemetry.tracers.get_tracer("host")
    door.application = lambda: tracer.start_as_current_span("host", kind=SpanKind.CONSUMER)
    door.upstream.script(lambda exchange: exchange.send(response(body=b"ok")))

    def ask(number: int) -> int:
        return call(door.address, request("GET", f"/connections/c{number}/proxy/c{number}")).status

    with ThreadPoolExecutor(25) as pool:
        assert list(pool.map(ask, range(CROWD))) == [200] * CROWD
    door.watching.wait(CROWD)
    telemetry = door.watching.telemetry
    inner = {identity(span): span for span in telemetry.of(SpanKind.INTERNAL)}
    outer = {identity(span): span for span in telemetry.of(SpanKind.CONSUMER)}
    assert len({parent(span) for span in inner.values()} & set(outer)) == CROWD
    clients = telemetry.of(SpanKind.CLIENT)
    assert {parent(span) for span in clients} == set(inner)
    for client in clients:
        above = inner[parent(client) or 0]
        selector = attributes(above)["proxy_middleware.selector"]
        assert attributes(client)["url.full"] == f"{door.upstream.url}/{selector}"
        assert attributes(above)["proxy_middleware.connection.id"] == selector
    paths = [record.proxy_path for record in door.watching.records if record.name == "proxy_middleware.access"]
    assert sorted(paths) == sorted(f"/c{number}" for number in range(CROWD))


def test_nothing_secret(door: Door) -> None:
    """No record, span or metric holds a credential, a caller's token, a cookie, a query or a body."""
    answers = [response(401, body=b"body-expired"), response(200, ((b"Set-Cookie", b"a=hidden"),), b"body-good")]
    door.upstream.route(b"/x", lambda exchange: exchange.send(answers.pop(0)))
    fields = [("Authorization", f"Bearer {TOKEN}"), ("Cookie", COOKIE)]
    assert door(f"crm/proxy/x?{QUERY}", *fields).status == 200
    door(f"closed/proxy/x?{QUERY}", *fields)
    door(f"crm/proxy/../x?{QUERY}", *fields)
    door.watching.wait(3)
    told = door.watching.text()
    assert "/x" in told
    for hidden in (SECRET, TOKEN, QUERY, COOKIE, "hidden", "body-"):
        assert hidden not in told

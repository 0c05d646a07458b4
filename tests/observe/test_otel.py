"""The spans and metrics that `OpenTelemetryObserver` makes."""

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags

from proxy_middleware import Observer
from proxy_middleware.observe import OpenTelemetryObserver
from tests.observe.events import STEP, Told, broken, good, left, refreshed, unknown, unreachable
from tests.observe.telemetry import Telemetry, attributes, identity, parent

ROUTE = "/connections/{selector}/proxy/{target}"
SERVER = {"server.address": "api.example.com", "server.port": 443}
Story = Callable[..., Told]


@pytest.fixture
def telemetry() -> Telemetry:
    """Where spans and metrics go, and the observer."""
    return Telemetry()


def test_good_request(telemetry: Telemetry) -> None:
    """A request is a SERVER span with a CLIENT span below it, by the semantic conventions."""
    good(telemetry.observer)
    client, server = telemetry.spans
    assert (server.name, server.kind, server.parent) == (f"GET {ROUTE}", SpanKind.SERVER, None)
    assert attributes(server) == {
        "http.request.method": "GET",
        "http.route": ROUTE,
        "http.response.status_code": 200,
        "proxy_middleware.selector": "crm",
        "proxy_middleware.connection.id": "crm",
    }
    assert (client.name, client.kind, parent(client)) == ("GET", SpanKind.CLIENT, identity(server))
    assert attributes(client) == {
        "http.request.method": "GET",
        **SERVER,
        "url.full": "https://api.example.com/items",
        "http.response.status_code": 200,
    }
    assert {span.status.status_code for span in telemetry.spans} == {StatusCode.UNSET}
    scope = server.instrumentation_scope
    assert scope is not None
    assert (scope.name, scope.schema_url) == ("proxy_middleware", "https://opentelemetry.io/schemas/1.23.0")


def test_times(telemetry: Telemetry) -> None:
    """Spans have the events' times, on the wall clock; an attempt ends with the head of its response."""
    before = time.time_ns()
    good(telemetry.observer)
    after = time.time_ns()
    client, server = telemetry.spans
    assert server.start_time is not None
    assert before <= server.start_time <= after
    started = [(span.start_time or 0) - server.start_time for span in (server, client)]
    ended = [(span.end_time or 0) - server.start_time for span in (client, server)]
    assert started == [0, 2 * STEP * 1e9]
    assert ended == [3 * STEP * 1e9, 4 * STEP * 1e9]


def test_refresh(telemetry: Telemetry) -> None:
    """Each attempt has its span, the second one counts as resent; the refresh stands between them."""
    refreshed(telemetry.observer)
    first, refresh, second, server = telemetry.spans
    assert [span.kind for span in telemetry.spans] == [
        SpanKind.CLIENT,
        SpanKind.INTERNAL,
        SpanKind.CLIENT,
        SpanKind.SERVER,
    ]
    assert {parent(span) for span in (first, refresh, second)} == {identity(server)}
    assert "http.request.resend_count" not in attributes(first)
    assert attributes(second)["http.request.resend_count"] == 1
    assert (attributes(first)["error.type"], first.status.status_code) == ("401", StatusCode.ERROR)
    assert (refresh.name, refresh.status.status_code) == ("refresh credential", StatusCode.UNSET)
    assert server.status.status_code is StatusCode.UNSET
    ((found, point),) = telemetry.points("proxy_middleware.refreshes")
    assert (found, point.value) == ({}, 1)


def test_failed_refresh(telemetry: Telemetry) -> None:
    """A refresh that fails is an error; an answer of the proxy's own below 500 says why it was given."""
    Told(telemetry.observer).resolved().refreshed("proxy_configuration_error").denied(424, "proxy_configuration_error")
    refresh, server = telemetry.spans
    assert attributes(refresh) == {"error.type": "proxy_configuration_error"}
    assert refresh.status.status_code is StatusCode.ERROR
    assert attributes(server)["proxy_middleware.error"] == "proxy_configuration_error"
    assert telemetry.points("proxy_middleware.refreshes")[0][0] == {"error.type": "proxy_configuration_error"}


def test_refresh_that_nobody_waits_for(telemetry: Telemetry) -> None:
    """What has not ended when the request is over ends with it."""
    Told(telemetry.observer).resolved()("refresh_started").finished(None, "caller_left")
    refresh, server = telemetry.spans
    assert attributes(refresh) == {"error.type": "caller_left"}
    assert refresh.end_time == server.end_time


@pytest.mark.parametrize(
    ("story", "spans", "expected", "status"),
    [
        (unknown, 1, {"http.response.status_code": 404, "proxy_middleware.error": "http_request_error"}, "UNSET"),
        (
            unreachable,
            2,
            {
                "http.response.status_code": 502,
                "error.type": "connection_refused",
                "proxy_middleware.error": "connection_refused",
            },
            "ERROR",
        ),
        (
            broken,
            2,
            {
                "http.response.status_code": 200,
                "error.type": "http_response_incomplete",
                "proxy_middleware.error": "http_response_incomplete",
            },
            "ERROR",
        ),
        (left, 2, {"error.type": "caller_left", "proxy_middleware.error": "caller_left"}, "ERROR"),
    ],
)
def test_failures(telemetry: Telemetry, story: Story, spans: int, expected: dict[str, Any], status: str) -> None:
    """What goes wrong is an error of the request's span; what is refused is none, and says why."""
    story(telemetry.observer)
    assert len(telemetry.spans) == spans
    server = telemetry.spans[-1]
    told = {"http.request.method", "http.route", "proxy_middleware.selector", "proxy_middleware.connection.id"}
    assert {name: value for name, value in attributes(server).items() if name not in told} == expected
    assert (server.status.status_code.name, server.status.description) == (status, None)
    ((found, _),) = telemetry.points("http.server.request.duration")
    assert found.get("error.type") == expected.get("error.type")


@pytest.mark.parametrize(
    ("story", "error"), [(unreachable, "connection_refused"), (left, "caller_left"), (broken, None)]
)
def test_failing_attempts(telemetry: Telemetry, story: Story, error: str | None) -> None:
    """An attempt without a response is an error; one whose response breaks off later has ended before."""
    story(telemetry.observer)
    (client,) = telemetry.of(SpanKind.CLIENT)
    assert attributes(client).get("error.type") == error
    assert ("http.response.status_code" in attributes(client)) == (error is None)
    assert (client.status.status_code is StatusCode.ERROR) == (error is not None)


def test_answer_of_the_upstream(telemetry: Telemetry) -> None:
    """A 503 of the upstream is an error on both spans, by its status; a 404 is one for a client only."""
    for status in (503, 404):
        Told(telemetry.observer).resolved().attempt().answered(status).finished(status)
    assert [attributes(span).get("error.type") for span in telemetry.spans] == ["503", "503", "404", None]


def test_within_the_applications_span(telemetry: Telemetry) -> None:
    """Below a span of the application's own it is INTERNAL, and the server's metrics are left to whoever made that."""
    with telemetry.tracers.get_tracer("host").start_as_current_span("host", kind=SpanKind.SERVER) as host:
        told = Told(telemetry.observer).resolved()
    assert not telemetry.points("http.server.active_requests")
    told.attempt().answered().finished()
    (inner,) = telemetry.of(SpanKind.INTERNAL)
    assert parent(inner) == host.get_span_context().span_id
    assert parent(telemetry.of(SpanKind.CLIENT)[0]) == identity(inner)
    assert telemetry.points("http.client.request.duration")
    assert not telemetry.points("http.server.request.duration")


def test_within_a_remote_trace(telemetry: Telemetry) -> None:
    """A context that was extracted from the caller's fields goes on, with a SERVER span, and keeps its baggage."""
    remote = SpanContext(7 << 64, 9, is_remote=True, trace_flags=TraceFlags(1))
    seen: list[object] = []

    class Seeing(SpanProcessor):
        def on_start(self, span: Span, parent_context: Context | None = None) -> None:
            seen.append(baggage.get_baggage("tenant", parent_context))

    telemetry.tracers.add_span_processor(Seeing())
    token = context.attach(trace.set_span_in_context(NonRecordingSpan(remote), baggage.set_baggage("tenant", "acme")))
    try:
        good(telemetry.observer)
    finally:
        context.detach(token)
    client, server = telemetry.spans
    assert (server.kind, parent(server)) == (SpanKind.SERVER, 9)
    assert server.context is not None
    assert server.context.trace_id == 7 << 64
    assert seen == ["acme", "acme"]
    assert parent(client) == identity(server)


def test_metrics(telemetry: Telemetry) -> None:
    """Metrics have the names, units, attributes and bucket boundaries of the conventions."""
    attempt = Told(telemetry.observer, request=2).resolved().attempt()
    units = telemetry.units()
    attempt.finished(None, "caller_left")
    telemetry = Telemetry()
    good(telemetry.observer)
    assert units | telemetry.units() == {
        "http.server.request.duration": "s",
        "http.server.active_requests": "{request}",
        "http.client.request.duration": "s",
        "http.client.active_requests": "{request}",
    }
    ((served, server),) = telemetry.points("http.server.request.duration")
    assert served == {"http.request.method": "GET", "http.route": ROUTE, "http.response.status_code": 200}
    ((sent, client),) = telemetry.points("http.client.request.duration")
    assert sent == {"http.request.method": "GET", "http.response.status_code": 200, **SERVER}
    assert (server.sum, client.sum) == (4 * STEP, STEP)
    assert server.explicit_bounds == client.explicit_bounds
    assert list(server.explicit_bounds) == [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10]


def test_active_requests(telemetry: Telemetry) -> None:
    """A request is active until it is over, an attempt until the head of its response has come."""

    def active() -> list[int]:
        names = "http.server.active_requests", "http.client.active_requests"
        return [point.value for name in names for _, point in telemetry.points(name)]

    told = Told(telemetry.observer).resolved().attempt()
    assert active() == [1, 1]
    told.answered()
    assert active() == [1, 0]
    told.finished()
    for story in (refreshed, unreachable, broken, unknown, left):
        story(telemetry.observer)
    assert active() == [0, 0]


def test_unknown_methods(telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch) -> None:
    """A method that is none of the conventions' is `_OTHER`, unless the environment names it."""
    good(telemetry.observer, method="PURGE")
    client, server = telemetry.spans
    assert (client.name, server.name) == ("HTTP", f"HTTP {ROUTE}")
    for span in telemetry.spans:
        assert attributes(span)["http.request.method"] == "_OTHER"
        assert attributes(span)["http.request.method_original"] == "PURGE"
    assert telemetry.points("http.client.request.duration")[0][0]["http.request.method"] == "_OTHER"
    monkeypatch.setenv("OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS", "GET, PURGE")
    other = Telemetry()
    good(other.observer, method="PURGE")
    assert other.spans[0].name == "PURGE"


@pytest.mark.parametrize(
    ("origin", "address", "port"),
    [
        ("http://api.example.com", "api.example.com", 80),
        ("https://api.example.com:8443", "api.example.com", 8443),
        ("http://[2001:db8::1]:8080", "2001:db8::1", 8080),
        ("https://127.0.0.1", "127.0.0.1", 443),
    ],
)
def test_server(telemetry: Telemetry, origin: str, address: str, port: int) -> None:
    """The upstream's address and port are those of its origin, or of its scheme."""
    Told(telemetry.observer).resolved()("attempt", attempts=1, origin=origin, path="/x").answered().finished()
    found = attributes(telemetry.of(SpanKind.CLIENT)[0])
    assert (found["server.address"], found["server.port"], found["url.full"]) == (address, port, f"{origin}/x")


def test_prefix(telemetry: Telemetry) -> None:
    """The route begins with the prefix that the proxy has."""
    good(OpenTelemetryObserver(prefix="/api/links", tracer_provider=telemetry.tracers))
    assert attributes(telemetry.spans[-1])["http.route"] == "/api/links/{selector}/proxy/{target}"


def test_not_sampled(telemetry: Telemetry) -> None:
    """Where the application samples nothing there is no span, and metrics all the same."""
    observer = OpenTelemetryObserver(tracer_provider=TracerProvider(ALWAYS_OFF), meter_provider=telemetry.meters)
    refreshed(observer)
    assert [point.count for _, point in telemetry.points("http.client.request.duration")] == [1, 1]


def test_without_providers() -> None:
    """An application that has set nothing up gets nothing."""
    good(OpenTelemetryObserver())


def test_nothing_is_kept(telemetry: Telemetry) -> None:
    """When requests are over, the observer has forgotten them."""
    for number, story in enumerate((good, refreshed, unreachable, broken, unknown, left)):
        story(telemetry.observer, request=number)
    assert telemetry.observer._requests == {}


def test_request_that_could_not_begin(telemetry: Telemetry) -> None:
    """Events of a request whose beginning the observer has not seen are passed over."""
    observer: Observer = telemetry.observer
    Told(observer)("resolved", connection_id="crm").attempt().answered().finished()
    assert telemetry.spans == ()


def test_without_the_extra() -> None:
    """Without its library, asking for the observer says which extra it needs."""
    code = "import sys; sys.modules['opentelemetry'] = None; from proxy_middleware.observe import OpenTelemetryObserver"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert 'needs the extra "otel": pip install "proxy_middleware[otel]"' in ran.stderr

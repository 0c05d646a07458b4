"""An observer that makes OpenTelemetry spans and metrics of what happens to requests.

Names, units and bucket boundaries are those of the semantic conventions for HTTP:
https://opentelemetry.io/docs/specs/semconv/http/
"""

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import lru_cache
from urllib.parse import urlsplit

from proxy_middleware.models import Event
from proxy_middleware.observe._conventions import BUCKETS, METHODS, OTHER

try:
    from opentelemetry import metrics, trace
except ImportError as error:
    raise ImportError('OpenTelemetryObserver needs the extra "otel": pip install "proxy_middleware[otel]"') from error

__all__ = ["OpenTelemetryObserver"]

_SCOPE = "proxy_middleware"
_SCHEMA = "https://opentelemetry.io/schemas/1.23.0"  # The first with the stable conventions for HTTP.
_ERROR = trace.Status(trace.StatusCode.ERROR)
# What ends a request otherwise than by a whole response. Other errors are answers, which their status tells of.
_BROKEN = frozenset({"caller_left", "http_response_incomplete", "proxy_internal_error"})

_PORTS = {"http": 80, "https": 443}
_METHOD = "http.request.method"

_Attributes = dict[str, str | int]


class OpenTelemetryObserver:
    """Makes a span for each request and, below it, one for each attempt and each refresh; and metrics.

    The request's span is a child of the one that is current where the proxy is called. Where there is none, or only
    what has been extracted from a `traceparent`, it is a SERVER span and counts in `http.server.request.duration`;
    where the application's own instrumentation has made one, it is INTERNAL, and these metrics are left to that.
    Attempts are CLIENT spans that end with the head of the response. No span holds a query or a credential.

    The request itself is not touched: a caller's `traceparent` goes upstream as it came.

    Args:
        prefix: The proxy's `prefix`, with that of the mount before it, for `http.route`.
        tracer_provider: Where spans go; by default to the global provider.
        meter_provider: Where metrics go; by default to the global provider.

    Raises:
        ImportError: The extra "otel" is not installed.
    """

    def __init__(
        self,
        *,
        prefix: str = "/connections",
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
    ) -> None:
        tracer = trace.get_tracer(_SCOPE, tracer_provider=tracer_provider, schema_url=_SCHEMA)
        meter = metrics.get_meter(_SCOPE, meter_provider=meter_provider, schema_url=_SCHEMA)
        self._tools = _Tools(tracer, meter, f"{prefix}/{{selector}}/proxy/{{target}}")
        self._requests: dict[int, _Request] = {}
        # Counted when somebody looks, not with each request.
        meter.create_observable_up_down_counter(
            "http.server.active_requests",
            [_Active(self._requests, lambda request: request.served)],
            "{request}",
            "Number of active HTTP server requests.",
        )
        meter.create_observable_up_down_counter(
            "http.client.active_requests",
            [_Active(self._requests, lambda request: request.sent)],
            "{request}",
            "Number of active HTTP requests.",
        )

    def __call__(self, event: Event) -> None:
        """Begins or ends what there is to begin or end."""
        kind = event.kind
        if kind == "matched":
            self._requests[event.request] = _Request(self._tools, event)
            return
        request = self._requests.pop(event.request, None) if kind == "finished" else self._requests.get(event.request)
        # A span processor may have failed as the request began.
        if request is not None and kind in _TOLD:
            _TOLD[kind](request, event)


class _Tools:
    """What all requests share."""

    def __init__(self, tracer: trace.Tracer, meter: metrics.Meter, route: str) -> None:
        self.tracer = tracer
        self.route = route
        known = os.environ.get("OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS")  # The conventions' own.
        self._methods = METHODS if known is None else frozenset(name.strip() for name in known.split(","))
        self.server_durations = meter.create_histogram(
            "http.server.request.duration",
            "s",
            "Duration of HTTP server requests.",
            explicit_bucket_boundaries_advisory=BUCKETS,
        )
        self.client_durations = meter.create_histogram(
            "http.client.request.duration",
            "s",
            "Duration of HTTP client requests.",
            explicit_bucket_boundaries_advisory=BUCKETS,
        )
        self.refreshes = meter.create_counter(
            "proxy_middleware.refreshes",
            "{refresh}",
            "Requests that had the credential refreshed, or waited for it.",
        )

    def method(self, event: Event) -> str:
        """The method, if it is one of those that are known."""
        return event.method if event.method in self._methods else OTHER


class _Active:
    """Counts the requests that are under way, by their attributes."""

    def __init__(
        self, requests: "Mapping[int, _Request]", attributes: "Callable[[_Request], _Attributes | None]"
    ) -> None:
        self._requests = requests
        self._attributes = attributes
        self._told: set[tuple[tuple[str, str | int], ...]] = set()  # These go back to zero, instead of away.

    def __call__(self, options: metrics.CallbackOptions) -> list[metrics.Observation]:
        found = [self._attributes(request) for request in list(self._requests.values())]
        counts = Counter(tuple(attributes.items()) for attributes in found if attributes is not None)
        self._told |= counts.keys()
        return [metrics.Observation(counts[key], dict(key)) for key in tuple(self._told)]


class _Request:
    """One request: its span, and those below it that have not ended yet."""

    def __init__(self, tools: _Tools, event: Event) -> None:
        parent = trace.get_current_span().get_span_context()
        self._outermost = parent.is_remote or not parent.is_valid
        self._tools = tools
        self._began = event.time
        # Read once for each request: its spans fit each other, whatever is done to the clock meanwhile.
        self._shift = time.time_ns() - int(event.time * 1e9)
        self._method = tools.method(event)
        self._name = "HTTP" if self._method == OTHER else self._method
        self._attempt: trace.Span | None = None
        self._refresh: trace.Span | None = None
        self._sent_at = 0.0
        self._server: _Attributes = {}
        self._span = tools.tracer.start_span(
            f"{self._name} {tools.route}",
            kind=trace.SpanKind.SERVER if self._outermost else trace.SpanKind.INTERNAL,
            attributes=self._attributes(
                event, {"http.route": tools.route, "proxy_middleware.selector": event.selector}
            ),
            start_time=self._nanoseconds(event),
        )
        self._context = trace.set_span_in_context(self._span)

    @property
    def served(self) -> _Attributes | None:
        """What it counts by as a request that is served, if it is for us to count it."""
        return {_METHOD: self._method} if self._outermost else None

    @property
    def sent(self) -> _Attributes | None:
        """What it counts by as a request to the upstream, while it waits for a response."""
        return None if self._attempt is None else {_METHOD: self._method, **self._server}

    def resolved(self, event: Event) -> None:
        """The connection is known."""
        if event.connection_id is not None:
            self._span.set_attribute("proxy_middleware.connection.id", event.connection_id)

    def attempt(self, event: Event) -> None:
        """The request is sent."""
        self._sent_at = event.time
        self._server = _server(event.origin or "")
        further: _Attributes = {**self._server, "url.full": f"{event.origin or ''}{event.path or ''}"}
        if event.attempts > 1:
            further["http.request.resend_count"] = event.attempts - 1
        self._attempt = self._start(self._name, trace.SpanKind.CLIENT, event, self._attributes(event, further))

    def response_started(self, event: Event) -> None:
        """The head of a response has come."""
        status = event.status or 0
        self._end_attempt(event, _outcome(status, str(status) if status >= 400 else None))

    def refresh_started(self, event: Event) -> None:
        """The credential is refreshed."""
        self._refresh = self._start("refresh credential", trace.SpanKind.INTERNAL, event, {})

    def refresh_finished(self, event: Event) -> None:
        """It has been, or could not be."""
        found = _outcome(None, event.error)
        self._tools.refreshes.add(1, found, self._context)
        self._end_refresh(event, found)

    def finished(self, event: Event) -> None:
        """The request is over."""
        unfinished = _outcome(None, event.error)
        self._end_attempt(event, unfinished)
        self._end_refresh(event, unfinished)
        found = _outcome(event.status, _failure(event))
        if self._outermost:
            attributes = {_METHOD: self._method, "http.route": self._tools.route, **found}
            self._tools.server_durations.record(event.time - self._began, attributes, self._context)
        if event.error is not None:
            self._span.set_attribute("proxy_middleware.error", event.error)
        _end(self._span, found, self._nanoseconds(event))

    def _start(self, name: str, kind: trace.SpanKind, event: Event, attributes: _Attributes) -> trace.Span:
        start = self._nanoseconds(event)
        return self._tools.tracer.start_span(name, self._context, kind, attributes, start_time=start)

    def _end_attempt(self, event: Event, found: _Attributes) -> None:
        span, self._attempt = self._attempt, None
        if span is None:
            return
        target = {_METHOD: self._method, **self._server}
        around = trace.set_span_in_context(span, self._context)
        self._tools.client_durations.record(event.time - self._sent_at, {**target, **found}, around)
        _end(span, found, self._nanoseconds(event))

    def _end_refresh(self, event: Event, found: _Attributes) -> None:
        span, self._refresh = self._refresh, None
        if span is not None:
            _end(span, found, self._nanoseconds(event))

    def _attributes(self, event: Event, further: _Attributes) -> _Attributes:
        found: _Attributes = {_METHOD: self._method, **further}
        if self._method != event.method:
            found["http.request.method_original"] = event.method
        return found

    def _nanoseconds(self, event: Event) -> int:
        return int(event.time * 1e9) + self._shift


_TOLD: dict[str, Callable[[_Request, Event], None]] = {
    "resolved": _Request.resolved,
    "attempt": _Request.attempt,
    "response_started": _Request.response_started,
    "refresh_started": _Request.refresh_started,
    "refresh_finished": _Request.refresh_finished,
    "finished": _Request.finished,
}


@lru_cache(1024)
def _server(origin: str) -> _Attributes:
    parts = urlsplit(origin)
    return {"server.address": parts.hostname or "", "server.port": parts.port or _PORTS.get(parts.scheme, 0)}


def _failure(event: Event) -> str | None:
    """What makes the request's span an error; an answer below 500 is none (conventions for SERVER spans)."""
    status = event.status or 0
    if event.error is not None and (status == 0 or status >= 500 or event.error in _BROKEN):
        return event.error
    return str(status) if status >= 500 else None


def _outcome(status: int | None, failure: str | None) -> _Attributes:
    found: _Attributes = {}
    if status:
        found["http.response.status_code"] = status
    if failure is not None:
        found["error.type"] = failure
    return found


def _end(span: trace.Span, found: _Attributes, when: int) -> None:
    span.set_attributes(found)
    if "error.type" in found:
        span.set_status(_ERROR)
    span.end(when)

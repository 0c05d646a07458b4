"""An observer that keeps Prometheus metrics of what happens to requests."""

from http import HTTPStatus

from proxy_middleware.models import Event
from proxy_middleware.observe._conventions import BUCKETS, METHODS, OTHER

try:
    from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
except ImportError as error:
    raise ImportError(
        'PrometheusObserver needs the extra "prometheus": pip install "proxy_middleware[prometheus]"'
    ) from error

__all__ = ["PrometheusObserver"]

# Language models answer, and event streams last, for minutes.
_BUCKETS = (*BUCKETS, 30.0, 60.0, 300.0)
_STATUSES = {status.value: str(status.value) for status in HTTPStatus}


class PrometheusObserver:
    """Keeps metrics, named `proxy_middleware_…`, in a registry.

    Labels have few values, whatever callers and upstreams do: methods that nobody knows are `_OTHER`, and statuses that
    nobody knows are such as `4xx`.

    Args:
        registry: Where they are registered. A registry takes them once; several proxies may share the observer.
        by_connection: Whether they have a label `connection` with the connection's id, which is empty until that is
            known. Each connection makes its own series, some hundred of them: for applications with few connections.

    Raises:
        ValueError: The registry has such metrics already.
        ImportError: The extra "prometheus" is not installed.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY, *, by_connection: bool = False) -> None:
        self._by_connection = by_connection
        own = ("connection",) if by_connection else ()
        self._running = Gauge(
            "proxy_middleware_requests_in_progress",
            "Requests under way",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._durations = Histogram(
            "proxy_middleware_request_duration_seconds",
            "Time from a request's coming to the end of its response",
            ("method", "status", "error", *own),
            registry=registry,
            buckets=_BUCKETS,
        )
        phases = Histogram(
            "proxy_middleware_phase_duration_seconds",
            "Time of the phases of requests",
            ("phase",),
            registry=registry,
            buckets=_BUCKETS,
        )
        self._phases = {phase: phases.labels(phase) for phase in ("resolve", "credential", "upstream", "relay")}
        self._attempts = Counter(
            "proxy_middleware_upstream_attempts_total",
            "Requests sent upstream, those sent again after a refresh included",
            ("method", *own),
            registry=registry,
        )
        self._refreshes = Counter(
            "proxy_middleware_refreshes_total",
            "Requests that had the credential refreshed, or waited for it",
            ("error", *own),
            registry=registry,
        )
        self._received = Counter(
            "proxy_middleware_request_body_bytes_total", "Bytes of request bodies", own, registry=registry
        )
        self._sent = Counter(
            "proxy_middleware_response_body_bytes_total", "Bytes of response bodies", own, registry=registry
        )

    def __call__(self, event: Event) -> None:
        """Counts what there is to count."""
        kind = event.kind
        if kind == "matched":
            self._running.inc()
        elif kind == "attempt":
            self._attempts.labels(_method(event), *self._own(event)).inc()
        elif kind == "refresh_finished":
            self._refreshes.labels(event.error or "", *self._own(event)).inc()
        elif kind == "finished":
            self._running.dec()
            self._finish(event)

    def _finish(self, event: Event) -> None:
        own = self._own(event)
        labels = _method(event), _status(event), event.error or "", *own
        timings = event.timings  # Made when it is read.
        self._durations.labels(*labels).observe(timings["total"])
        for phase, durations in self._phases.items():
            if phase in timings:
                durations.observe(timings[phase])
        (self._received.labels(*own) if own else self._received).inc(event.received)
        (self._sent.labels(*own) if own else self._sent).inc(event.sent)

    def _own(self, event: Event) -> tuple[str, ...]:
        return (event.connection_id or "",) if self._by_connection else ()


def _method(event: Event) -> str:
    return event.method if event.method in METHODS else OTHER


def _status(event: Event) -> str:
    if event.status is None:
        return ""
    return _STATUSES.get(event.status) or f"{event.status // 100}xx"

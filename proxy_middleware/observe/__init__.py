"""Ready-made observers: log records, OpenTelemetry spans and metrics, Prometheus metrics."""

from typing import TYPE_CHECKING

from proxy_middleware._lazy import lazily
from proxy_middleware.observe.logging import LoggingObserver

if TYPE_CHECKING:
    from proxy_middleware.observe.otel import OpenTelemetryObserver
    from proxy_middleware.observe.prometheus import PrometheusObserver

__all__ = ["LoggingObserver", "OpenTelemetryObserver", "PrometheusObserver"]

# What needs an extra is imported when it is first asked for.
__getattr__ = lazily(
    __name__,
    {"OpenTelemetryObserver": ".otel", "PrometheusObserver": ".prometheus"},
)

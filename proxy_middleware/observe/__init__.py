"""Ready-made observers: log records, OpenTelemetry spans and metrics, Prometheus metrics."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from proxy_middleware.observe.logging import LoggingObserver

if TYPE_CHECKING:
    from proxy_middleware.observe.otel import OpenTelemetryObserver
    from proxy_middleware.observe.prometheus import PrometheusObserver

__all__ = ["LoggingObserver", "OpenTelemetryObserver", "PrometheusObserver"]

# What needs an extra is imported when it is first asked for.
_LAZY = {"OpenTelemetryObserver": "otel", "PrometheusObserver": "prometheus"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"proxy_middleware.observe.{_LAZY[name]}"), name)

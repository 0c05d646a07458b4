"""Where the tests' spans and metrics go."""

from collections.abc import Sequence
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from proxy_middleware.observe import OpenTelemetryObserver


class Telemetry:
    """Keeps spans and metrics, of no provider but its own."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.meters = MeterProvider([self._reader], shutdown_on_exit=False)
        self.observer = OpenTelemetryObserver(tracer_provider=self.tracers, meter_provider=self.meters)

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        """The spans that have ended, in this order."""
        return self._exporter.get_finished_spans()

    def of(self, kind: SpanKind) -> list[ReadableSpan]:
        """Those of a kind."""
        return [span for span in self.spans if span.kind is kind]

    def points(self, metric: str) -> list[tuple[dict[str, Any], Any]]:
        """A metric's attributes and data points."""
        return [
            (dict(point.attributes or {}), point)
            for found in self._metrics()
            if found.name == metric
            for point in found.data.data_points
        ]

    def units(self) -> dict[str, str]:
        """The metrics' names and units."""
        return {found.name: found.unit for found in self._metrics()}

    def text(self) -> str:
        """All that has been kept, for whoever looks for what should not be there."""
        return "".join(span.to_json() for span in self.spans) + repr(self._reader.get_metrics_data())

    def _metrics(self) -> list[Any]:
        data = self._reader.get_metrics_data()
        resources = data.resource_metrics if data is not None else ()
        return [metric for resource in resources for scope in resource.scope_metrics for metric in scope.metrics]


def attributes(span: ReadableSpan) -> dict[str, Any]:
    """A span's attributes."""
    return dict(span.attributes or {})


def identity(span: ReadableSpan) -> int:
    """A span's id."""
    assert span.context is not None
    return int(span.context.span_id)


def parent(span: ReadableSpan) -> int | None:
    """The id of the span above."""
    return None if span.parent is None else span.parent.span_id

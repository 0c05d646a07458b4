"""What `PrometheusObserver` counts."""

import subprocess
import sys
from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from proxy_middleware.observe import PrometheusObserver
from tests.observe.events import STEP, Told, broken, good, left, refreshed, unknown, unreachable

NAME = "proxy_middleware_"


@pytest.fixture
def registry() -> CollectorRegistry:
    """A registry of this test's own."""
    return CollectorRegistry()


@pytest.fixture
def observer(registry: CollectorRegistry) -> PrometheusObserver:
    """The observer."""
    return PrometheusObserver(registry)


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    """A sample; None where there is none."""
    return registry.get_sample_value(NAME + name, labels)


def series(registry: CollectorRegistry) -> set[str]:
    """All series, as they are scraped, without their values."""
    lines = generate_latest(registry).decode().splitlines()
    return {line.rpartition(" ")[0] for line in lines if not line.startswith("#")}


def test_good_request(registry: CollectorRegistry, observer: PrometheusObserver) -> None:
    """A request counts with its duration, its phases and its bytes."""
    good(observer)
    labels = {"method": "GET", "status": "200", "error": ""}
    assert value(registry, "request_duration_seconds_count", **labels) == 1
    assert value(registry, "request_duration_seconds_sum", **labels) == 4 * STEP
    assert value(registry, "request_duration_seconds_bucket", le="0.75", **labels) == 0
    assert value(registry, "request_duration_seconds_bucket", le="1.0", **labels) == 1
    for phase in ("resolve", "credential", "upstream", "relay"):
        assert value(registry, "phase_duration_seconds_sum", phase=phase) == STEP
    assert value(registry, "phase_duration_seconds_sum", phase="total") is None
    assert value(registry, "request_body_bytes_total") == 3
    assert value(registry, "response_body_bytes_total") == 5
    assert value(registry, "upstream_attempts_total", method="GET") == 1


def test_requests_in_progress(registry: CollectorRegistry, observer: PrometheusObserver) -> None:
    """A request is in progress until it is finished, however it ends."""
    told = Told(observer).resolved().attempt()
    assert value(registry, "requests_in_progress") == 1
    told.finished(None, "caller_left")
    for story in (good, refreshed, unreachable, broken, unknown, left):
        story(observer)
    assert value(registry, "requests_in_progress") == 0


def test_refreshes(registry: CollectorRegistry, observer: PrometheusObserver) -> None:
    """Refreshes count, those that fail by their error, and each sending counts."""
    refreshed(observer)
    Told(observer).resolved().refreshed("proxy_configuration_error").denied(424, "proxy_configuration_error")
    assert value(registry, "refreshes_total", error="") == 1
    assert value(registry, "refreshes_total", error="proxy_configuration_error") == 1
    assert value(registry, "upstream_attempts_total", method="GET") == 2


@pytest.mark.parametrize(
    ("story", "status", "error"),
    [
        (unknown, "404", "http_request_error"),
        (unreachable, "502", "connection_refused"),
        (broken, "200", "http_response_incomplete"),
        (left, "", "caller_left"),
    ],
)
def test_failures(
    registry: CollectorRegistry,
    observer: PrometheusObserver,
    story: Callable[[PrometheusObserver], Told],
    status: str,
    error: str,
) -> None:
    """What does not go well counts by its status, if it has one, and its error."""
    story(observer)
    assert value(registry, "request_duration_seconds_count", method="GET", status=status, error=error) == 1


def test_labels_are_bounded(registry: CollectorRegistry, observer: PrometheusObserver) -> None:
    """What callers and upstreams make up gets no series of its own."""
    for number in range(50):
        told = Told(observer, method=f"MAKE{number}", selector=f"s{number}").resolved(f"c{number}")
        told.attempt(path=f"/{number}").answered(432 + number).finished(432 + number)
    counts = [name for name in series(registry) if name.startswith(f"{NAME}request_duration_seconds_count")]
    assert len(counts) == 2
    assert value(registry, "request_duration_seconds_count", method="_OTHER", status="451", error="") == 1
    assert value(registry, "request_duration_seconds_count", method="_OTHER", status="4xx", error="") == 49
    assert not any("c7" in name or "/7" in name or "MAKE" in name for name in series(registry))


def test_by_connection(registry: CollectorRegistry) -> None:
    """Whoever asks for it gets all of it by connection, and what has no connection yet by none."""
    observer = PrometheusObserver(registry, by_connection=True)
    refreshed(observer)
    unknown(observer, selector="made-up")
    labels = {"method": "GET", "status": "200", "error": "", "connection": "crm"}
    assert value(registry, "request_duration_seconds_count", **labels) == 1
    assert value(registry, "refreshes_total", error="", connection="crm") == 1
    assert value(registry, "upstream_attempts_total", method="GET", connection="crm") == 2
    assert value(registry, "response_body_bytes_total", connection="crm") == 0
    assert not any("made-up" in name for name in series(registry))


def test_one_for_each_registry(registry: CollectorRegistry, observer: PrometheusObserver) -> None:
    """A registry takes the metrics once."""
    with pytest.raises(ValueError, match="Duplicated"):
        PrometheusObserver(registry)


def test_without_the_extra() -> None:
    """Without its library, asking for the observer says which extra it needs; the others need none."""
    code = "import sys; sys.modules['prometheus_client'] = None; from proxy_middleware.observe import LoggingObserver"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    code += ", PrometheusObserver"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert 'needs the extra "prometheus": pip install "proxy_middleware[prometheus]"' in ran.stderr

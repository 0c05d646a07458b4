"""The callers: one checked request before the measurement, then rounds of wrk."""

import http.client
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.processes import BenchmarkError, pinned
from tests.benchmarks.scenario import CALLER_TOKEN, CONTENT_TYPE, PAYLOAD

SCRIPT = Path(__file__).with_name("report.lua")


@dataclass(frozen=True, slots=True)
class Round:
    """What one run of wrk saw; latencies in milliseconds."""

    rate: float
    p50: float
    p99: float
    failures: int


def check(name: str, port: int, path: str) -> None:
    """Raise `BenchmarkError` unless the target answers one request with exactly the payload."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {CALLER_TOKEN}"})
        response = connection.getresponse()
        answer = response.status, response.headers["Content-Type"], response.read()
    finally:
        connection.close()
    if answer != (200, CONTENT_TYPE, PAYLOAD):
        raise BenchmarkError(f"{name} answered {answer[0]} {answer[1]}: {answer[2][:300]!r}")


def measure(port: int, path: str, *, seconds: int, callers: int, core: int) -> Round:
    """Run wrk on one core for `seconds` with `callers` connections, each with one request under way."""
    command = ["wrk", "-t1", f"-c{callers}", f"-d{seconds}s", "-s", str(SCRIPT)]
    command += ["-H", f"Authorization: Bearer {CALLER_TOKEN}", f"http://127.0.0.1:{port}{path}"]
    run = subprocess.run(pinned(command, core), capture_output=True, text=True, check=False)
    if run.returncode:
        raise BenchmarkError(f"wrk failed: {run.stdout}{run.stderr}")
    seen = json.loads(run.stdout.splitlines()[-1])
    return Round(
        rate=(seen["requests"] - seen["refused"]) / seen["microseconds"] * 1e6,
        p50=seen["p50"] / 1000,
        p99=seen["p99"] / 1000,
        failures=seen["refused"] + seen["broken"],
    )

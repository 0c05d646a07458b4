"""The callers: checked requests before the measurement, then rounds of load from programs on a core of their own."""

import http.client
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.processes import ROOT, BenchmarkError, pinned
from tests.benchmarks.scenario import BODIES, CALLER_TOKEN, EVENT_SECONDS, PROXY_PREFIX, body, uploaded
from tests.benchmarks.workloads import Workload

SCRIPT = Path(__file__).with_name("report.lua")
HEAD_SIZE = 4096


@dataclass(frozen=True, slots=True)
class Round:
    """What one run saw; times in milliseconds, the rate in the workload's unit.

    Attributes:
        p50: Of requests and transfers, from asking to the answer's end; of events, from being sent to their arrival.
        first: The median time to the first event of a stream.
        failures: Refused, broken, wrong, incomplete and timed-out answers.
    """

    rate: float
    p50: float
    p99: float
    failures: int
    first: float | None = None


def check(workload: Workload, port: int, prefix: str) -> None:
    """Raise `BenchmarkError` unless the target answers one request exactly, and refuses an unknown caller."""
    if workload.load == "streams":
        # Their client compares every event.
        return
    path = prefix + workload.path
    last = (workload.selected - 1) * (workload.connections // workload.selected)
    for selected in {path, path.replace("/c0/", f"/c{last}/")}:
        status, received = _ask(port, selected, CALLER_TOKEN, workload.size)
        if status != 200 or received != expected(workload):
            raise BenchmarkError(f"answered {status} with {len(received)} bytes: {received[:300]!r}")
    if prefix == PROXY_PREFIX and (status := _ask(port, path, "unknown", 0)[0]) != 401:
        raise BenchmarkError(f"answered an unknown caller with {status}, not 401")


def expected(workload: Workload) -> bytes:
    """Return the response body that is right."""
    if workload.path == "/upload":
        return uploaded(workload.size)
    piece, times = BODIES["/json" if workload.path == "/slow" else workload.path]
    return piece * times


def measure(workload: Workload, port: int, prefix: str, *, seconds: int, core: int) -> Round:
    """Put the load on one target for about `seconds`."""
    if workload.load == "requests":
        return _requests(workload, f"http://127.0.0.1:{port}{prefix}{workload.path}", seconds, core)
    command = [sys.executable, "-m", f"tests.benchmarks.{workload.load}", str(port), prefix + workload.path]
    command += [str(workload.callers)]
    if workload.load == "streams":
        command += [str(round(seconds / EVENT_SECONDS))]
    else:
        command += [str(workload.size), str(seconds)]
    return Round(**_run(command, core))


def _requests(workload: Workload, url: str, seconds: int, core: int) -> Round:
    command = ["wrk", "-t1", f"-c{workload.callers}", f"-d{seconds}s", "-s", str(SCRIPT)]
    command += ["-H", f"Authorization: Bearer {CALLER_TOKEN}", url, "--"]
    command += ["POST" if workload.size else "GET", str(workload.size), str(workload.selected)]
    seen = _run([*command, str(workload.connections // workload.selected)], core)
    return Round(
        rate=(seen["requests"] - seen["refused"]) / seen["microseconds"] * 1e6,
        p50=seen["p50"] / 1000,
        p99=seen["p99"] / 1000,
        failures=seen["refused"] + seen["broken"] + _wrong_lengths(workload, seen) + _unanswered(workload, seen),
    )


def _unanswered(workload: Workload, seen: dict[str, Any]) -> int:
    """All callers, if none of them got an answer before the round was over: wrk calls that no error."""
    return 0 if seen["requests"] else workload.callers


def _wrong_lengths(workload: Workload, seen: dict[str, Any]) -> int:
    """One, if the answers cannot all have had the right length; wrk also counts heads, and what came last."""
    size = len(expected(workload))
    least = (seen["requests"] - seen["refused"]) * size
    most = (seen["requests"] + workload.callers) * (size + HEAD_SIZE)
    return 0 if least <= seen["bytes"] <= most else 1


def _run(command: Sequence[str], core: int) -> dict[str, Any]:
    run = subprocess.run(pinned(command, core), cwd=ROOT, capture_output=True, text=True, check=False)
    if run.returncode:
        raise BenchmarkError(f"the load generator failed: {(run.stdout + run.stderr)[-2000:]}")
    seen: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return seen


def _ask(port: int, path: str, token: str, size: int) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        sent = body(size) if size else None
        connection.request("POST" if sent else "GET", path, sent, {"Authorization": f"Bearer {token}"})
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException) as error:
        raise BenchmarkError(f"one request failed: {error!r}") from error
    finally:
        connection.close()

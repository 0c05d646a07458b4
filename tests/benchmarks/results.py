"""What was measured, and the file that keeps it: a run replaces only the workloads that it measured."""

import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any, Self

from tests.benchmarks.load import Round
from tests.benchmarks.workloads import WORKLOADS

PACKAGES = (
    "proxy_middleware",
    "uvicorn",
    "httptools",
    "uvloop",
    "granian",
    "gunicorn",
    "waitress",
    "fastapi-proxy-lib",
    "asgiproxy",
    "httpx",
    "httpx2",
    "aiohttp",
    "requests",
    "urllib3",
)
PROGRAMS = (("wrk", "--version"), ("nginx", "-v"), ("go", "version"), ("node", "--version"))


@dataclass(frozen=True, slots=True)
class Outcome:
    """All rounds of one target.

    Attributes:
        peak_memory: Resident bytes of its largest process.
        error: Why it could not be measured; it has no rounds then.
    """

    rounds: Sequence[Round]
    peak_memory: int
    error: str | None = None

    @property
    def rate(self) -> float:
        """The median over the rounds."""
        return median(one.rate for one in self.rounds)

    def beside(self, other: "Outcome | None") -> float | None:
        """Its rate as a share of the other's, or None where there is none to compare in each round.

        The median over the rounds, each compared within itself: the machine may be slower in one than in another.
        """
        if other is None or not self.rounds or not other.rounds or not all(one.rate for one in other.rounds):
            return None
        return median(one.rate / beside.rate for one, beside in zip(self.rounds, other.rounds, strict=True))

    @property
    def failures(self) -> int:
        """Of all rounds; one for a target that could not be measured."""
        return sum(one.failures for one in self.rounds) if self.error is None else 1


@dataclass(frozen=True, slots=True)
class Measurement:
    """One workload, measured: how, where, and what became of each target."""

    rounds: int
    seconds: int
    environment: Mapping[str, str]
    outcomes: Mapping[str, Outcome]

    @classmethod
    def read(cls, stored: dict[str, Any]) -> Self:
        """Take what `save` wrote."""
        outcomes = {
            name: Outcome([Round(**one) for one in outcome.pop("rounds")], **outcome)
            for name, outcome in stored.pop("outcomes").items()
        }
        return cls(outcomes=outcomes, **stored)


Results = Mapping[str, Measurement]
"""By the workload's name."""


def load(path: Path) -> dict[str, Measurement]:
    """Read the results of earlier runs; there may be none."""
    if not path.exists():
        return {}
    return {name: Measurement.read(stored) for name, stored in json.loads(path.read_text()).items()}


def save(results: Results, path: Path) -> None:
    """Write all results, in the workloads' own order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = {one.name: asdict(results[one.name]) for one in WORKLOADS if one.name in results}
    path.write_text(json.dumps(stored, indent=1) + "\n")


def environment(loop: str) -> dict[str, str]:
    """Describe the machine and the versions of all that takes part."""
    seen = {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "event loop": loop,
    }
    seen |= {name: found for name, option in PROGRAMS if (found := _program(name, option))}
    return seen | {name: found for name in PACKAGES if (found := _package(name))}


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def _program(name: str, option: str) -> str | None:
    try:
        run = subprocess.run([name, option], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    # wrk and nginx speak of themselves on different streams.
    found = re.search(r"\d+(\.\d+)+", run.stdout + run.stderr)
    return found[0] if found else None


def _package(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None

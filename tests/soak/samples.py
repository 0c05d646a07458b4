"""What the servers' processes hold at a quiet point: descriptors, threads and memory (Linux)."""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

from tests.servers import RunningServer

MIB = 1024 * 1024
# Idle connections to the upstreams: one origin each for as many callers as there are; and anyio's worker threads.
ORIGINS = 2
WORKER_THREADS = 40
# What allocators may keep of the largest bodies that were in flight at once.
MEMORY_BOUND = 48 * MIB
SETTLE = 10.0


@dataclass(frozen=True)
class Sample:
    """The sums over a server's processes; memory is resident, in bytes."""

    descriptors: int
    threads: int
    memory: int

    def __str__(self) -> str:
        return f"{self.descriptors} descriptors, {self.threads} threads, {self.memory / MIB:.1f} MiB"


def sample(running: RunningServer) -> Sample:
    """What a server holds now."""
    pids = running.pids()
    return Sample(
        sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids),
        sum(len(list(Path(f"/proc/{pid}/task").iterdir())) for pid in pids),
        sum(_resident(pid) for pid in pids),
    )


def _resident(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


async def settled(running: RunningServer) -> Sample:
    """The sample once the number of descriptors has not fallen for a second; at the latest after ten."""
    deadline, lowest = time.monotonic() + SETTLE, sample(running)
    since = time.monotonic()
    while time.monotonic() < deadline and time.monotonic() - since < 1.0:
        await asyncio.sleep(0.1)
        now = sample(running)
        if now.descriptors < lowest.descriptors:
            lowest, since = now, time.monotonic()
    return sample(running)


def leaks(start: Sample, end: Sample, callers: int) -> list[str]:
    """What has grown by more than pools may hold."""
    found = []
    if end.descriptors > start.descriptors + ORIGINS * callers:
        found.append(f"descriptors: {start.descriptors} -> {end.descriptors}")
    if end.threads > start.threads + WORKER_THREADS:
        found.append(f"threads: {start.threads} -> {end.threads}")
    if end.memory > start.memory + MEMORY_BOUND:
        found.append(f"memory: {start.memory / MIB:.1f} -> {end.memory / MIB:.1f} MiB")
    return found

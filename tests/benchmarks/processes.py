"""Programs pinned to one core: started, waited for, stopped by pid, and asked for their peak memory (Linux)."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
QUIET_SECONDS = 15
START_SECONDS = 20.0
STOP_SECONDS = 10.0


class BenchmarkError(Exception):
    """The benchmark cannot run here, or what it measures does not work; the message says why."""


@dataclass(frozen=True, slots=True)
class Cores:
    """Which core the measured program gets, and which one the load generator and the upstream share."""

    target: int
    load: int

    @classmethod
    def available(cls) -> "Cores":
        """Take the first two cores that this process may run on."""
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2:
            raise BenchmarkError("two cores are needed: one for the target, one for wrk and nginx")
        return cls(target=cores[0], load=cores[1])


def require_tools(*names: str) -> None:
    """Raise `BenchmarkError` naming every program that is not on PATH."""
    missing = [name for name in names if shutil.which(name) is None]
    if missing:
        raise BenchmarkError(f"not on PATH: {', '.join(missing)} (Debian: apt install wrk nginx-light util-linux)")


def free_port() -> int:
    """Return a port of 127.0.0.1 on which nothing listens now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def pinned(command: Sequence[str], core: int) -> list[str]:
    """Return the command that runs `command` on one core; taskset execs, so the pid is the program's own."""
    return ["taskset", "--cpu-list", str(core), *command]


@contextmanager
def running(
    command: Sequence[str], *, port: int, core: int, log: Path, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the block ends; the block is entered once it accepts connections on `port`."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            pinned(command, core), cwd=ROOT, env={**os.environ, **environment}, stdout=output, stderr=output
        )
    try:
        _wait_until_listening(process, port, log)
        yield process
    finally:
        _stop(process)


def peak_memory(pid: int) -> int:
    """Return the peak resident size in bytes of the largest process of the family (gunicorn: the worker).

    Raises:
        BenchmarkError: A process has ended.
    """
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        own = int(Path(f"/proc/{pid}/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError) as error:
        raise BenchmarkError(f"process {pid} has ended") from error
    return max([own, *(peak_memory(int(child)) for child in children)])


def wait_until_quiet(pid: int) -> None:
    """Wait until a family of processes takes no more of its core; some work on long after their callers have left."""
    deadline, seen = time.monotonic() + QUIET_SECONDS, -1
    while (used := _ticks(pid)) != seen and time.monotonic() < deadline:
        seen = used
        time.sleep(0.2)


def _ticks(pid: int) -> int:
    """Return the processor time of a process and its children, in hundredths of a second."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0  # It has ended.
    return int(fields[11]) + int(fields[12]) + sum(_ticks(int(child)) for child in children)


def _wait_until_listening(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise BenchmarkError(f"{log.stem} did not start:\n{log.read_text(errors='replace')[-2000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

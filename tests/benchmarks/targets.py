"""The programs that are measured, and which are compared with which."""

import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks.processes import BenchmarkError, free_port, peak_memory, running
from tests.benchmarks.scenario import (
    BARE_PATH,
    CALLER_TOKEN,
    PROXIED_PATH,
    PROXY_PREFIX,
    UPSTREAM_TOKEN,
    UPSTREAM_VARIABLE,
)

GO_SOURCE = Path(__file__).with_name("peers") / "reverse_proxy.go"
GUNICORN_THREADS = 32

RATIOS = (
    ("asgi-proxy", "asgi-bare"),
    ("wsgi-proxy", "wsgi-bare"),
    ("asgi-proxy", "go"),
    ("wsgi-proxy", "go"),
)
"""Pairs of names: the rate of the first is given as a share of the second's."""


@dataclass(frozen=True, slots=True)
class Target:
    """One program: how it is started, on which port it listens, and which path is asked for."""

    name: str
    port: int
    path: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Running:
    """A target that accepts connections."""

    target: Target
    pid: int

    def peak_memory(self) -> int:
        """Return the peak resident size of the target's largest process, in bytes."""
        return peak_memory(self.pid)


@contextmanager
def started(target: Target, directory: Path, core: int) -> Iterator[Running]:
    """Run the target on one core until the block ends."""
    log = directory / f"{target.name}.log"
    with running(target.command, port=target.port, core=core, log=log, environment=target.environment) as process:
        yield Running(target, process.pid)


def asgi_targets(upstream: str, loop: str) -> list[Target]:
    """Return the ASGI host on uvicorn, bare and proxied; `loop` is uvicorn's name of the event loop."""
    return [
        _uvicorn("asgi-bare", "hosts", BARE_PATH, upstream, loop),
        _uvicorn("asgi-proxy", "proxied", PROXIED_PATH, upstream, loop),
    ]


def wsgi_targets(upstream: str) -> list[Target]:
    """Return the WSGI host on gunicorn's threads, bare and proxied."""
    return [
        _gunicorn("wsgi-bare", "hosts", BARE_PATH, upstream),
        _gunicorn("wsgi-proxy", "proxied", PROXIED_PATH, upstream),
    ]


def go_target(upstream: str, directory: Path) -> Target | None:
    """Build Go's `httputil.ReverseProxy` in `directory`; None where there is no `go` on PATH."""
    if shutil.which("go") is None:
        return None
    binary = directory / "reverse_proxy"
    build = subprocess.run(
        ["go", "build", "-o", str(binary), str(GO_SOURCE)], cwd=directory, capture_output=True, text=True, check=False
    )
    if build.returncode:
        raise BenchmarkError(f"go build failed:\n{build.stderr}")
    port = free_port()
    command = (str(binary), f"127.0.0.1:{port}", upstream, PROXY_PREFIX, CALLER_TOKEN, UPSTREAM_TOKEN)
    return Target("go", port, PROXIED_PATH, command, {"GOMAXPROCS": "1"})


def _uvicorn(name: str, module: str, path: str, upstream: str, loop: str) -> Target:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", f"tests.benchmarks.{module}:asgi"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--http", "httptools", "--loop", loop]
    command += ["--workers", "1", "--no-access-log", "--log-level", "warning"]
    return Target(name, port, path, tuple(command), {UPSTREAM_VARIABLE: upstream})


def _gunicorn(name: str, module: str, path: str, upstream: str) -> Target:
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", f"tests.benchmarks.{module}:wsgi", "--bind", f"127.0.0.1:{port}"]
    command += ["--worker-class", "gthread", "--workers", "1", "--threads", str(GUNICORN_THREADS)]
    command += ["--log-level", "warning", "--no-control-socket"]
    return Target(name, port, path, tuple(command), {UPSTREAM_VARIABLE: upstream})

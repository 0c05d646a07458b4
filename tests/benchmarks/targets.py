"""The programs that are measured: what each needs, and how it is started."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tests.benchmarks import programs, servers
from tests.benchmarks.processes import free_port, peak_memory, running
from tests.benchmarks.scenario import BARE_PREFIX, PROXY_PREFIX, SETTINGS_VARIABLE
from tests.benchmarks.workloads import Kind, Workload

PACKAGES = "pip install 'proxy_middleware[benchmarks]'"
PROGRAMS = {"go": "apt install golang-go", "node": "apt install nodejs", "npm": "apt install npm"}


@dataclass(frozen=True, slots=True)
class Target:
    """One program.

    Attributes:
        command: Gives the command for a place; it may build or install something first.
        needs: What has to be there: programs on PATH, and Python modules.
        threads: Whether each request takes one of a few threads.
        environment: Further environment variables.
    """

    name: str
    kind: Kind
    command: Callable[[programs.Place], Sequence[str]]
    needs: Sequence[str] = ()
    threads: bool = False
    environment: tuple[tuple[str, str], ...] = ()

    @property
    def prefix(self) -> str:
        """What stands before the path of the upstream."""
        return BARE_PREFIX if self.kind == "bare" else PROXY_PREFIX

    def takes(self, workload: Workload) -> bool:
        """Whether it takes part."""
        return self.kind in workload.kinds and (workload.threads or not self.threads)

    def missing(self) -> str | None:
        """Return what is not installed and how to get it; None if all is there."""
        for need in self.needs:
            found = shutil.which(need) if need in PROGRAMS else find_spec(need)
            if found is None:
                return f"{need} is not installed ({PROGRAMS.get(need, PACKAGES)})"
        return None


@dataclass(frozen=True, slots=True)
class Running:
    """A target that accepts connections on `port`."""

    target: Target
    port: int
    pid: int

    def peak_memory(self) -> int:
        """Return the peak resident size of the target's largest process, in bytes."""
        return peak_memory(self.pid)


@contextmanager
def started(target: Target, directory: Path, settings: Path, core: int) -> Iterator[Running]:
    """Run the target on one core until the block ends."""
    place = programs.Place(directory, settings, free_port())
    environment = {SETTINGS_VARIABLE: str(settings), **dict(target.environment)}
    log = directory / f"{target.name}.log"
    with running(target.command(place), port=place.port, core=core, log=log, environment=environment) as process:
        yield Running(target, place.port, process.pid)


def all_targets(loop: str) -> list[Target]:
    """Return all of them; `loop` is the event loop of the ASGI servers: asyncio or uvloop."""
    return [*_own(loop), *_references(), *_peers(loop)]


def _own(loop: str) -> Iterator[Target]:
    modules: dict[Kind, str] = {"proxy": "proxied", "bare": "hosts"}
    for kind, module in modules.items():
        yield Target(f"{kind}-uvicorn", kind, servers.uvicorn(module, loop), ["uvicorn", loop])
        yield Target(f"{kind}-granian", kind, servers.granian(module, loop), ["granian", loop])
        yield Target(f"{kind}-gunicorn", kind, servers.gunicorn(module), ["gunicorn"], threads=True)
        yield Target(f"{kind}-waitress", kind, servers.waitress(module), ["waitress"], threads=True)
    yield Target("observed-uvicorn", "observed", servers.uvicorn("observed", loop), ["uvicorn", loop])


def _references() -> Iterator[Target]:
    yield Target("go", "reference", programs.go, ["go"], environment=(("GOMAXPROCS", "1"),))
    yield Target("nginx", "reference", programs.nginx)


def _peers(loop: str) -> Iterator[Target]:
    yield Target("fastify-http-proxy", "peer", programs.fastify, ["node", "npm"])
    for name, module, needs in (
        ("fastapi-proxy-lib", "fastapi_proxy_lib_app", ["fastapi_proxy_lib"]),
        ("asgiproxy", "asgiproxy_app", ["asgiproxy"]),
        ("httpx-asgi", "httpx_asgi", ["httpx"]),
        ("httpx2-asgi", "httpx2_asgi", ["httpx2"]),
        ("aiohttp-asgi", "aiohttp_asgi", ["aiohttp"]),
        ("second-hop", "second_hop", []),
    ):
        yield Target(name, "peer", servers.uvicorn(f"peers.{module}", loop), [*needs, "uvicorn", loop])
    for name in ("requests", "urllib3"):
        command = servers.gunicorn(f"peers.{name}_wsgi")
        yield Target(f"{name}-wsgi", "peer", command, [name, "gunicorn"], threads=True)

"""One workload: all its targets are started, checked, warmed up, and measured in interleaved rounds."""

import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.load import Round, check, measure
from tests.benchmarks.processes import BenchmarkError, Cores, wait_until_quiet
from tests.benchmarks.results import Outcome
from tests.benchmarks.scenario import Settings
from tests.benchmarks.targets import Running, Target, started
from tests.benchmarks.upstream import Upstream
from tests.benchmarks.workloads import Workload

WARM_UP_SECONDS = 1


@dataclass(frozen=True, slots=True)
class Bench:
    """What all workloads share."""

    cores: Cores
    directory: Path
    upstream: Upstream
    rounds: int
    seconds: int

    def run(self, workload: Workload, targets: Sequence[Target]) -> dict[str, Outcome]:
        """Measure all targets that take part; one that fails is left out from then on, and says why."""
        taking_part = [target for target in targets if target.takes(workload)]
        errors: dict[str, str] = {}
        with self._settings(workload) as settings, ExitStack() as stack:
            ready = [
                server
                for target in taking_part
                if (server := self._ready(stack, workload, target, settings, errors)) is not None
            ]
            outcomes = self._measured(workload, ready, errors)
        failed = {name: Outcome([], 0, error) for name, error in errors.items()}
        return {target.name: (failed | outcomes)[target.name] for target in taking_part}

    @contextmanager
    def _settings(self, workload: Workload) -> Iterator[Path]:
        """Write what the targets are told into a directory of its own, which is gone at the end."""
        urls = (self.upstream.base_url(workload.upstream, number) for number in range(workload.connections))
        settings = Settings({f"c{number}": url for number, url in enumerate(urls)}, str(self.upstream.authority))
        with tempfile.TemporaryDirectory(dir=self.directory) as name:
            path = Path(name) / "settings.json"
            settings.save(path)
            yield path

    def _ready(
        self, stack: ExitStack, workload: Workload, target: Target, settings: Path, errors: dict[str, str]
    ) -> Running | None:
        """Start a target, and see to it that it answers as it should."""
        try:
            server = stack.enter_context(started(target, settings.parent, settings, self.cores.target))
            check(workload, server.port, target.prefix)
            self._round(workload, server, WARM_UP_SECONDS)
        except BenchmarkError as error:
            _failed(target, error, errors)
            return None
        return server

    def _measured(self, workload: Workload, servers: Sequence[Running], errors: dict[str, str]) -> dict[str, Outcome]:
        """Measure all servers in turn, as often as there are rounds."""
        seen: dict[str, list[Round]] = {server.target.name: [] for server in servers}
        memory: dict[str, int] = {}
        for _ in range(self.rounds):
            for server in servers:
                name = server.target.name
                if name in errors:
                    continue
                try:
                    seen[name].append(self._round(workload, server, self.seconds))
                    memory[name] = server.peak_memory()
                except BenchmarkError as error:
                    _failed(server.target, error, errors)
        return {name: Outcome(rounds, memory[name]) for name, rounds in seen.items() if name not in errors}

    def _round(self, workload: Workload, server: Running, seconds: int) -> Round:
        seen = measure(workload, server.port, server.target.prefix, seconds=seconds, core=self.cores.load)
        wait_until_quiet(server.pid)
        return seen


def _failed(target: Target, error: BenchmarkError, errors: dict[str, str]) -> None:
    errors[target.name] = str(error)
    print(f"{target.name}: {error}", file=sys.stderr, flush=True)

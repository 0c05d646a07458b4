"""`python -m tests.benchmarks`: all targets side by side, in interleaved rounds, one core each."""

import argparse
import resource
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

from tests.benchmarks import plot, results, table
from tests.benchmarks.measure import Bench
from tests.benchmarks.processes import BenchmarkError, Cores, require_tools
from tests.benchmarks.results import Measurement
from tests.benchmarks.targets import Target, all_targets
from tests.benchmarks.upstream import upstreams
from tests.benchmarks.workloads import WORKLOADS, Workload

RESULTS = Path(__file__).with_name("results")
EPILOG = """
Results are written after each workload; those of other workloads that stand in the same directory are kept, so a long
run may be done in parts. The exit status is 1 where a request failed, 2 where nothing could be measured.
"""

_T = TypeVar("_T", Workload, Target)


def main() -> int:
    """Run the benchmark; returns 1 where a request failed, 2 where it could not be run."""
    options = _options()
    try:
        require_tools("wrk", "nginx", "taskset")
        _raise_limit()
        return 1 if run(options) else 0
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 2


def run(options: argparse.Namespace) -> int:
    """Measure everything that was asked for; returns how many requests and targets failed."""
    workloads = _chosen(WORKLOADS, options.workloads)
    targets = [target for target in _chosen(all_targets(options.loop), options.targets) if _installed(target)]
    cores = Cores.available()
    failures = 0
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream = stack.enter_context(upstreams(directory / "upstream", cores.load))
        bench = Bench(cores, directory, upstream, options.rounds, options.seconds)
        for workload in workloads:
            failures += _measure(bench, workload, targets, options)
    if plot.available():
        for path in plot.draw(results.load(options.output / "results.json"), options.output):
            print(f"drawn: {path}")
    else:
        print("plot: skipped, matplotlib is not installed (pip install 'proxy_middleware[benchmarks]')")
    return failures


def _measure(bench: Bench, workload: Workload, targets: Sequence[Target], options: argparse.Namespace) -> int:
    """Measure one workload, print its table and write the results; returns the number of failures."""
    outcomes = bench.run(workload, targets)
    if not outcomes:
        return 0
    print(f"\n{workload.title}\n\n{table.table(workload, outcomes)}", flush=True)
    measured = Measurement(bench.rounds, bench.seconds, results.environment(options.loop), outcomes)
    kept = results.load(options.output / "results.json") | {workload.name: measured}
    results.save(kept, options.output / "results.json")
    (options.output / "results.md").write_text(table.render(kept))
    return sum(outcome.failures for outcome in outcomes.values())


def _installed(target: Target) -> bool:
    missing = target.missing()
    if missing is not None:
        print(f"{target.name}: skipped, {missing}", flush=True)
    return missing is None


def _chosen(known: Sequence[_T], names: Sequence[str] | None) -> Sequence[_T]:
    if names is None:
        return known
    unknown = set(names) - {one.name for one in known}
    if unknown:
        raise BenchmarkError(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(one.name for one in known)}")
    return [one for one in known if one.name in names]


def _raise_limit() -> None:
    """Allow as many open files as the system lets us: 1,000 callers take two in a proxy."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__, epilog=EPILOG)
    parser.add_argument("--workloads", nargs="+", metavar="NAME", help="these only; a wrong name prints all")
    parser.add_argument("--targets", nargs="+", metavar="NAME", help="these only; a wrong name prints all")
    parser.add_argument("--rounds", type=_positive, help="rounds for each target (default 5, quick 1)")
    parser.add_argument("--seconds", type=_positive, help="length of one round (default 5, quick 1)")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="uvloop", help="of the ASGI servers")
    parser.add_argument("--quick", action="store_true", help="one round of one second: whether everything works")
    parser.add_argument("--output", type=Path, help="directory (default tests/benchmarks/results; quick: a temporary)")
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else 5)
    options.seconds = options.seconds or (1 if options.quick else 5)
    options.output = options.output or (_scratch() if options.quick else RESULTS)
    return options


def _scratch() -> Path:
    return Path(tempfile.gettempdir()) / "proxy_middleware-benchmarks"


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


if __name__ == "__main__":
    sys.exit(main())

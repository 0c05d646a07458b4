"""`python -m tests.benchmarks`: all targets side by side, in interleaved rounds, one core each."""

import argparse
import platform
import sys
import tempfile
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

from tests.benchmarks.load import Round, check, measure
from tests.benchmarks.processes import BenchmarkError, Cores, require_tools
from tests.benchmarks.table import Result, render
from tests.benchmarks.targets import RATIOS, Running, Target, asgi_targets, go_target, started, wsgi_targets
from tests.benchmarks.upstream import nginx

WARM_UP_SECONDS = 1


def main() -> int:
    """Run the benchmark; returns 1 where a request failed, 2 where it could not be run."""
    options = _options()
    try:
        require_tools("wrk", "nginx", "taskset")
        results = run(options)
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 2
    print(render(results, RATIOS))
    return 1 if any(result.failures for result in results.values()) else 0


def run(options: argparse.Namespace) -> dict[str, Result]:
    """Start everything, measure, and stop everything."""
    cores = Cores.available()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        directory = Path(name)
        upstream = stack.enter_context(nginx(directory, cores.load))
        targets = _targets(options, upstream, directory)
        servers = [stack.enter_context(started(target, directory, cores.target)) for target in targets]
        _announce(options, cores)
        return _measure_all(servers, options, cores)


def _targets(options: argparse.Namespace, upstream: str, directory: Path) -> list[Target]:
    targets = []
    if options.only != "wsgi":
        targets += asgi_targets(upstream, options.loop)
    if options.only != "asgi":
        targets += wsgi_targets(upstream)
    go = go_target(upstream, directory)
    if go is None:
        print("go: skipped, no `go` on PATH")
        return targets
    return [*targets, go]


def _measure_all(servers: list[Running], options: argparse.Namespace, cores: Cores) -> dict[str, Result]:
    def one_round(server: Running, seconds: int) -> Round:
        target = server.target
        return measure(target.port, target.path, seconds=seconds, callers=options.callers, core=cores.load)

    for server in servers:
        check(server.target.name, server.target.port, server.target.path)
        one_round(server, WARM_UP_SECONDS)
    rounds = [[one_round(server, options.seconds) for server in servers] for _ in range(options.rounds)]
    return {
        server.target.name: Result(seen, server.peak_memory())
        for server, seen in zip(servers, zip(*rounds, strict=True), strict=True)
    }


def _announce(options: argparse.Namespace, cores: Cores) -> None:
    packages = ", ".join(f"{name} {version(name)}" for name in ("uvicorn", "httptools", "gunicorn"))
    print(f"Python {platform.python_version()}, {packages}, loop {options.loop}")
    print(
        f"{options.rounds} rounds of {options.seconds} s, {options.callers} callers; "
        f"target on core {cores.target}, wrk and nginx on core {cores.load}\n",
        flush=True,
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--seconds", type=_positive, default=5, help="length of one round (default 5)")
    parser.add_argument("--rounds", type=_positive, default=3, help="rounds for each target (default 3)")
    parser.add_argument("--callers", type=_positive, default=32, help="connections with a request each (default 32)")
    parser.add_argument("--only", choices=("asgi", "wsgi"), help="one door instead of both")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio", help="uvicorn's event loop")
    return parser.parse_args()


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


if __name__ == "__main__":
    sys.exit(main())

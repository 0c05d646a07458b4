"""`python -m tests.benchmarks.instructions`: instructions of the processor that the ASGI door takes for a request.

Counted by valgrind's callgrind, so that the number hardly depends on what else the machine does: a change of one per
cent in the hot path shows. Two runs differ only in their number of requests; start and end cancel out.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from tests.benchmarks.in_process import CALLERS
from tests.benchmarks.processes import ROOT, BenchmarkError

FEW = 20 * CALLERS
"""Requests of the shorter run: enough for all that is done only once."""


def main() -> int:
    """Count and print; returns 0 also where there is nothing to count with."""
    options = _options()
    if shutil.which("valgrind") is None:
        print("skipped: valgrind is not installed (Debian: apt install valgrind)")
        return 0
    try:
        print(f"{count(options.requests):,.0f} instructions a request")
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def count(requests: int) -> float:
    """Return the instructions for each of `requests` requests, a multiple of `CALLERS`."""
    with ThreadPoolExecutor() as threads:
        few, many = threads.map(_instructions, (FEW, FEW + requests))
    return (many - few) / requests


def _instructions(requests: int) -> int:
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", sys.executable]
    command += ["-m", "tests.benchmarks.in_process", str(requests)]
    # Hashes of text, and with them the order of sets, would differ from run to run.
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    found = re.search(r"Collected : (\d+)", run.stderr)
    if run.returncode or found is None:
        raise BenchmarkError(f"the counted program failed:\n{run.stderr[-2000:]}")
    return int(found[1])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.instructions", description=__doc__)
    parser.add_argument("--requests", type=_multiple, default=100 * CALLERS, help="that are counted (default 1600)")
    return parser.parse_args()


def _multiple(text: str) -> int:
    number = int(text)
    if number < 1 or number % CALLERS:
        raise argparse.ArgumentTypeError(f"must be a multiple of {CALLERS}")
    return number


if __name__ == "__main__":
    sys.exit(main())

"""Fuzzing by command.

    python -m tests.fuzz --seconds 60                       all targets, a minute each
    python -m tests.fuzz --inputs 4000000 --target http1    one target, so many inputs
    python -m tests.fuzz --seed 7                           other inputs; the same seed makes the same ones

Inputs are made by changing well-formed and nearly well-formed ones: bytes flipped, cut, repeated and spliced, lines
moved, words of HTTP put in; an input to which something new happens becomes a seed. Each is read by the package and by
a strict reading of the RFCs that shares nothing with it (`oracle.py`). The targets:

    http1     responses of one connection: `upstream.http1.ResponseParser`, ordinary ones and llhttp's
    fields    a caller's fields: `_fields.read_request`
    framing   the request that goes upstream: `_exchange.exchange`, `upstream.http1.encode_head`
    target    a caller's path: `_target.Matcher`, `resolve_target`

The first input that fails ends its target's run and is printed as a literal, for `check()` of the target's module; it
belongs into a test then. The exit status is 1 where something failed.
"""

import argparse
import secrets
import sys
import traceback

from tests.fuzz.run import Result, Target, run
from tests.fuzz.target_list import TARGETS


def main() -> int:
    """Runs what was asked for; returns 1 where an input failed."""
    options = _options()
    seed = secrets.randbelow(2**32) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    failures = 0
    for target in TARGETS:
        if target.name in options.target:
            result = run(target, seed=seed, seconds=options.seconds, inputs=options.inputs)
            _report(target, result)
            failures += result.failed is not None
    return 1 if failures else 0


def _report(target: Target, result: Result) -> None:
    rate = result.inputs / max(result.seconds, 1e-9)
    work_rate = result.inputs / max(result.processor, 1e-9)
    print(
        f"{target.name}: {result.inputs:,} inputs in {result.seconds:.1f} s: {rate:,.0f}/s, {work_rate:,.0f} per "
        f"second of processor time; {len(result.outcomes)} different outcomes; slowest {result.slowest * 1000:.1f} ms"
    )
    for outcome, count in result.outcomes.most_common(8):
        print(f"  {count:>12,}  {outcome.strip()}")
    if result.error is not None:
        print(f"  FAILED {result.failed!r}")
        print("".join(traceback.format_exception(result.error, chain=False)), flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz what reads foreign bytes.")
    names = [target.name for target in TARGETS]
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target; default 60")
    parser.add_argument("--inputs", type=float, default=float("inf"), help="at most so many for each target")
    parser.add_argument("--seed", type=int, help="default: a random one, which is printed")
    parser.add_argument("--target", nargs="+", choices=names, default=names, help="default: all")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

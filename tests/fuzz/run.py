"""The loop: one target, so many seconds or inputs, until the first failure."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter, process_time

from tests.fuzz.mutator import Mutator

# What one input may take, in seconds; more is as good as a hang.
SLOW = 2.0
_BATCH = 500


@dataclass(frozen=True)
class Target:
    """Something that reads bytes.

    Attributes:
        name: For the command line.
        check: Does with an input what the proxy would, and says in a few words what came of it. Raises anything where
            it should not have come.
        seeds: Inputs to start from.
        words: What mutations put in.
        line: What separates an input's lines.
    """

    name: str
    check: Callable[[bytes], str]
    seeds: Sequence[bytes]
    words: Sequence[bytes]
    line: bytes


@dataclass
class Result:
    """What came of a run.

    Attributes:
        inputs: How many were run.
        seconds: How long it took.
        processor: Seconds of processor time in it.
        outcomes: What came of the inputs, counted.
        slowest: Seconds of the slowest input.
        failed: The first input that failed.
        error: Why.
    """

    inputs: int = 0
    seconds: float = 0.0
    processor: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    failed: bytes | None = None
    error: BaseException | None = None


def run(target: Target, *, seed: int, seconds: float = float("inf"), inputs: float = float("inf")) -> Result:
    """Runs a target until the time or the inputs are used up, or one fails."""
    result, began, began_work = Result(), perf_counter(), process_time()
    mutator = Mutator(target.seeds, target.words, target.line, seed)
    while result.failed is None and result.inputs < inputs and result.seconds < seconds:
        _run_batch(target, mutator, result)
        result.seconds = perf_counter() - began
        result.processor = process_time() - began_work
    return result


def _run_batch(target: Target, mutator: Mutator, result: Result) -> None:
    check, outcomes = target.check, result.outcomes
    data = b""
    try:
        for _ in range(_BATCH):
            data = mutator.next()
            began = perf_counter()
            outcome = check(data)
            took = perf_counter() - began
            result.inputs += 1
            if outcome not in outcomes:
                mutator.keep(data)
            outcomes[outcome] += 1
            if took > result.slowest:
                result.slowest = took
                assert took < SLOW, f"one input took {took:.1f} s"
    except Exception as error:
        # Whatever it is, it is what is being looked for.
        result.failed, result.error = data, error

"""A short run of each fuzzing target, always with the same inputs, and whether the harness finds what it should."""

import subprocess
import sys

import pytest

from tests.fuzz.mutator import Mutator
from tests.fuzz.run import Target, run
from tests.fuzz.target_list import TARGETS

INPUTS = {"http1": 6_000, "fields": 10_000, "framing": 5_000, "target": 4_000}


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_short_run(target: Target) -> None:
    """No input makes anything fail, hang or be read in two ways."""
    result = run(target, seed=1, inputs=INPUTS[target.name])
    assert result.failed is None, f"{result.failed!r}: {result.error!r}"
    assert result.inputs >= INPUTS[target.name]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_every_outcome(target: Target) -> None:
    """Mutations keep enough of a message intact: most inputs are not refused for the same reason."""
    outcomes = run(target, seed=2, inputs=500).outcomes
    assert len(outcomes) >= 3
    assert max(outcomes.values()) < 400


def test_same_seed_same_inputs() -> None:
    """A run can be repeated: the seed decides about every input."""
    one, same, other = (Mutator([b"a\nb", b"c\nd"], [b"x"], b"\n", seed) for seed in (1, 1, 2))
    first = [one.next() for _ in range(100)]
    assert first == [same.next() for _ in range(100)]
    assert first != [other.next() for _ in range(100)]


def test_failing_input_is_found() -> None:
    """A run stops at the first input that raises anything, and tells which it was."""

    def check(data: bytes) -> str:
        if b"\0" in data:
            raise IndexError("NUL")
        return "fine"

    result = run(Target("broken", check, [b"a b c"], [b"\0", b"d"], b" "), seed=1, inputs=100_000)
    assert isinstance(result.error, IndexError)
    assert result.failed is not None
    assert b"\0" in result.failed
    assert result.inputs < 100_000


def test_command() -> None:
    """`python -m tests.fuzz` prints what was run, and exits with 0 where nothing failed."""
    arguments = ["--inputs", "500", "--seed", "3", "--target", "fields"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "fields: 500 inputs" in done.stdout

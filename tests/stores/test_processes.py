"""Processes that share a store: one of them wins, and a fork does no harm."""

import ast
import subprocess
import sys
from base64 import b64encode
from itertools import chain

from tests.servers import ROOT
from tests.stores.places import KEY, Place
from tests.stores.worker import PROCESSES, ROUNDS


def run(task: str, place: Place) -> list[str]:
    """The lines that a worker prints; it must not print an error."""
    command = [sys.executable, "-W", "error", "-m", "tests.stores.worker", task, place.url, b64encode(KEY).decode()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_one_of_many_processes_wins(place: Place) -> None:
    """Processes that create the store, save a first record and take its lease at once: one gets each."""
    lines = run("race", place)
    assert lines[PROCESSES:] == ["exit 0"] * PROCESSES
    saved, leased = zip(*map(ast.literal_eval, lines[:PROCESSES]), strict=True)
    assert sorted(chain(*saved)) == list(range(ROUNDS))
    assert sorted(chain(*leased)) == list(range(ROUNDS))


def test_a_store_survives_a_fork(place: Place) -> None:
    """Parent and child go on with the store that the parent has used: no answer goes to the wrong one, none is lost."""
    store = place.open()
    store.create()
    assert run("fork", place) == ["exit 0"]
    loaded = store.load("c")
    assert loaded is not None
    assert loaded.version == 1 + 3 * 4 * 5

"""Forks: what a child process inherits of a parent's threads, locks and connections is of no use to it."""

import os
from typing import Protocol
from weakref import WeakSet


class Forked(Protocol):
    """Something that has to be told."""

    def after_fork(self) -> None:
        """This is a new process; its parent goes on with what was there."""


_told: WeakSet[Forked] = WeakSet()


def tell_after_fork(thing: Forked) -> None:
    """Has the thing told in every child process that is forked while it lives."""
    _told.add(thing)


def _tell() -> None:
    for thing in _told:
        thing.after_fork()


os.register_at_fork(after_in_child=_tell)

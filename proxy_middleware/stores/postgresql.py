"""Connections to PostgreSQL that give up on a server which does not answer."""

import time
from collections.abc import Generator
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.waiting import READY_NONE

ANSWER = 3.0  # Seconds.

_T = TypeVar("_T")


class Unanswered(psycopg.OperationalError):
    """The server has accepted a statement, and not answered it in time."""


class BoundedConnection(psycopg.Connection[Any]):
    """A connection whose statements take at most `ANSWER` seconds, and which is closed when one took longer.

    A statement_timeout would be kept by the server: one that hangs keeps none, and PgBouncer refuses to have one set.
    """

    def wait(self, gen: PQGen[_T], *args: Any, **kwargs: Any) -> _T:
        """Waits as psycopg does, which wakes its generator ten times a second."""
        try:
            return super().wait(_within(ANSWER, gen), *args, **kwargs)
        except Unanswered:
            self.close()  # The answer may still come: nobody else may read it.
            raise


def _within(seconds: float, gen: PQGen[_T]) -> Generator[Any, Any, _T]:
    deadline = time.monotonic() + seconds
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if ready == READY_NONE and time.monotonic() > deadline:
                raise Unanswered("no answer in time")
            wanted = gen.send(ready)
    except StopIteration as end:
        result: _T = end.value
        return result

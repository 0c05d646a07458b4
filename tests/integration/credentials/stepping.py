"""A store that stops in the middle of a refresh, so that its process can be killed there."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from proxy_middleware.stores import SQLStore, Tokens


class Stepping(SQLStore):
    """A store that stops at a step of a connection's refresh: makes a file of that name, and waits for the file "go".

    Args:
        url: As for SQLStore.
        keys: As for SQLStore.
        steps: By connection id. `leased`: the lease was taken, and nothing was sent yet; `granted`: the endpoint has
            given new tokens, and nothing was saved yet.
        folder: Where the files are made.
    """

    def __init__(self, url: str, keys: Sequence[str | bytes], steps: Mapping[str, str], folder: Path) -> None:
        super().__init__(url, keys)
        self._steps = steps
        self._folder = folder

    def acquire(self, connection_id: str, owner: str, seconds: float, /) -> bool:
        """Stops once the lease is taken."""
        taken = super().acquire(connection_id, owner, seconds)
        if taken:
            self._reach("leased", connection_id)
        return taken

    def save(self, connection_id: str, tokens: Tokens, expected: int, /) -> int | None:
        """Stops before anything is saved."""
        self._reach("granted", connection_id)
        return super().save(connection_id, tokens, expected)

    def _reach(self, step: str, connection_id: str) -> None:
        if self._steps.get(connection_id) == step:
            (self._folder / connection_id).touch()
            while not (self._folder / "go").exists():
                time.sleep(0.01)

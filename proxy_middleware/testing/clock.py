"""A clock that stands still until it is told to go on."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib import import_module
from threading import Lock
from types import SimpleNamespace
from typing import Any, Self

from proxy_middleware._single_flight import CredentialCache

__all__ = ["FakeClock"]

# Where the package reads how late it is, as a function and as the module `time`.
FUNCTIONS = ("_drive", "_providers", "testing.credentials")
MODULES = ("credentials._rounds", "credentials._token_endpoint")


class FakeClock:
    """Unix time that stands still; callable like `time.time`.

    On its own it serves whoever takes a clock. Inside `with clock.installed():` it is also what the package judges
    `Credential.expires_at` by: the proxy, when it refreshes a credential about to expire; `OAuth2`, when it says when a
    token expires; and `ExpiringCredentials`. That holds for proxies made inside of the block.

    It is not what else goes by a clock: time-outs, back-offs, leases, `Limits.credential_ttl` and the timings of events
    go by the monotonic one, and signatures, assertions and rate limits by that of the libraries that make them.

    Args:
        start: Unix seconds; by default what it is now.
    """

    def __init__(self, start: float | None = None) -> None:
        self._lock = Lock()
        self._now = time.time() if start is None else start

    def __call__(self) -> float:
        """Unix seconds."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Goes on by so many seconds.

        Raises:
            ValueError: They are negative.
        """
        if seconds < 0:
            raise ValueError(f"a clock does not go back by {-seconds!r} s")
        with self._lock:
            self._now += seconds

    @contextmanager
    def installed(self) -> Iterator[Self]:
        """Is the package's clock until the block ends."""
        as_module = SimpleNamespace(**{**vars(time), "time": self})
        with ExitStack() as stack:
            for name in FUNCTIONS:
                _replace(stack, name, "time", self)
            for name in MODULES:
                _replace(stack, name, "time", as_module)
            _replace(stack, "proxy", "CredentialCache", partial(CredentialCache, now=self))
            yield self


def _replace(stack: ExitStack, module: str, name: str, value: Any) -> None:
    found = import_module(f"proxy_middleware.{module}")
    stack.callback(setattr, found, name, getattr(found, name))
    setattr(found, name, value)

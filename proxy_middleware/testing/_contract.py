"""What the contracts have in common: how plugins are called outside of a door, watched, and spoken of."""

import asyncio
import traceback
from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from inspect import iscoroutinefunction
from time import perf_counter
from types import coroutine
from typing import Any, ClassVar, NoReturn

from proxy_middleware._plugins import for_wsgi, settled
from proxy_middleware.protocols import is_nonblocking
from proxy_middleware.testing._doors import COLOURS, WAIT, Colour, Request

try:
    import pytest
except ImportError as error:
    raise ImportError('the contracts need the extra "testing": pip install "proxy_middleware[testing]"') from error

__all__ = ["Contract", "call", "complaints", "fail", "holds_up", "pytest", "raised"]

# Seconds for which a plugin may keep an event loop from everything else. The shortest of several runs counts.
HELD_UP = 0.05
RUNS = 5


class Contract:
    """What both contracts let their heirs set.

    Attributes:
        caller: Who calls: what your authenticator would return.
        path: Something that may be asked for at the connection, with its query.
        method: A method that may be used there.
        headers: Header fields that the caller sends.
    """

    caller: Any = "caller"
    path: str = "/"
    method: str = "GET"
    headers: ClassVar[Mapping[str, str]] = {}

    @pytest.fixture(params=COLOURS)
    def colour(self, request: pytest.FixtureRequest) -> Colour:
        """Through which door."""
        colour: Colour = request.param
        return colour

    def _request(self, selector: str) -> Request:
        return Request(selector, self.path, self.method, self.headers)


def fail(message: str) -> NoReturn:
    """The test fails, with this message and without a traceback through the kit."""
    pytest.fail(message, pytrace=False)


def call(function: Callable[..., Any], *args: Any) -> Any:
    """What the function gives, be it `def` or `async def`, as the WSGI door calls it."""
    return settled(for_wsgi(function)(*args), WAIT)


def raised(error: BaseException) -> str:
    """Which exception it was and where from, without its message, which may hold a secret."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return f"raised {type(error).__name__}{where}"


def complaints(caplog: pytest.LogCaptureFixture) -> str:
    """What the package has said in the log about plugins that failed."""
    messages = [record.getMessage() for record in caplog.records if record.name == "proxy_middleware"]
    return "\n".join(["", "The log says:", *messages]) if messages else ""


def holds_up(function: Callable[..., Any], *args: Any) -> float | None:
    """The seconds for which the function keeps the event loop to itself, if that is too long; else None.

    A plain `def` that is not marked as nonblocking runs in a thread, and may take its time.
    """
    if not (iscoroutinefunction(function) or is_nonblocking(function)):
        return None
    longest = min(asyncio.run(_watched(function, *args)) for _ in range(RUNS))
    return longest if longest >= HELD_UP else None


async def _watched(function: Callable[..., Any], *args: Any) -> float:
    steps = _Steps()
    with suppress(Exception):  # What is raised is what other tests are about.
        async with asyncio.timeout(WAIT):
            await steps.of(function, *args)
    return steps.longest


class _Steps:
    """Measures how long a function runs from one `await` to the next."""

    def __init__(self) -> None:
        self.longest = 0.0

    @coroutine
    def of(self, function: Callable[..., Any], *args: Any) -> Generator[Any, Any, None]:
        """Calls it, and awaits what it gives."""
        value = self._timed(function, *args)
        steps = value.__await__() if hasattr(value, "__await__") else iter(())
        while (wanted := self._timed(next, steps, self)) is not self:
            yield wanted

    def _timed(self, function: Callable[..., Any], *args: Any) -> Any:
        began = perf_counter()
        try:
            return function(*args)
        finally:
            self.longest = max(self.longest, perf_counter() - began)

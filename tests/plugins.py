"""The kinds of functions that an application may plug in, and exchanges with such plugins in either colour."""

from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

import anyio

from proxy_middleware import Connection, Credential, nonblocking
from proxy_middleware._admission import Admission
from proxy_middleware._drive import adrive, asgi_performers, drive, wsgi_performers
from proxy_middleware._exchange import exchange
from proxy_middleware._plugins import Plugins
from proxy_middleware._single_flight import CredentialCache
from proxy_middleware._steps import Forward, Relay
from proxy_middleware.models import Limits
from tests.script import CONNECTION, NEW, OLD, Body, Response, request, rules

Function = Callable[..., Any]

COLOURS = ["wsgi", "asyncio", "trio"]


def plain(function: Function) -> Function:
    """A `def`."""

    def call(*args: Any) -> Any:
        return function(*args)

    return call


def asynchronous(function: Function) -> Function:
    """An `async def`."""

    async def call(*args: Any) -> Any:
        return function(*args)

    return call


def marked(function: Function) -> Function:
    """A `def` that is marked as never blocking."""
    return nonblocking(plain(function))


def bound(function: Function) -> Function:
    """A bound method."""

    class Plugin:
        def method(self, *args: Any) -> Any:
            return function(*args)

    return Plugin().method


def callable_object(function: Function) -> Function:
    """An object with a `def __call__`."""

    class Plugin:
        def __call__(self, *args: Any) -> Any:
            return function(*args)

    return Plugin()


def marked_callable_object(function: Function) -> Function:
    """An object whose `def __call__` is marked."""

    class Plugin:
        @nonblocking
        def __call__(self, *args: Any) -> Any:
            return function(*args)

    return Plugin()


def async_callable_object(function: Function) -> Function:
    """An object with an `async def __call__`."""

    class Plugin:
        async def __call__(self, *args: Any) -> Any:
            return function(*args)

    return Plugin()


def partial_async(function: Function) -> Function:
    """An `async def` with an argument bound to it."""

    async def call(function: Function, *args: Any) -> Any:
        return function(*args)

    return partial(call, function)


def returning_coroutine(function: Function) -> Function:
    """A `def` that returns the coroutine of an `async def`, as a lambda or a decorator does."""
    inner = asynchronous(function)
    return lambda *args: inner(*args)


def marked_returning_coroutine(function: Function) -> Function:
    """The same, marked."""
    return nonblocking(returning_coroutine(function))


def returning_awaitable(function: Function) -> Function:
    """A `def` that returns an awaitable which is no coroutine."""

    @dataclass
    class Later(Awaitable[Any]):
        args: Any

        def __await__(self) -> Generator[Any, Any, Any]:
            return asynchronous(function)(*self.args).__await__()  # type: ignore[no-any-return]

    return lambda *args: Later(args)


KINDS = [
    plain,
    asynchronous,
    marked,
    bound,
    callable_object,
    marked_callable_object,
    async_callable_object,
    partial_async,
    returning_coroutine,
    marked_returning_coroutine,
    returning_awaitable,
]


@dataclass
class Handle(Response):
    """A response's handle that notes what becomes of it."""

    ended: list[str] = field(default_factory=list)

    def abort(self) -> None:
        """Broken off."""
        self.ended.append("abort")

    def close(self) -> None:
        """Given up, in a thread."""
        self.ended.append("close")

    async def aclose(self) -> None:
        """Given up, on an event loop."""
        self.ended.append("close")


@dataclass
class App:
    """An application's plugins, and the responses that its upstream gives."""

    authenticate: Function = lambda request: "alice"
    resolve: Function = lambda selector, request: CONNECTION
    obtain: Function = lambda connection: OLD
    refresh: Function | None = lambda connection, rejected: NEW
    is_rejected: Function | None = lambda connection, head: bool(head.status == 401)
    credential: Credential | None = None
    responses: list[Any] = field(default_factory=lambda: [Handle(401), Handle(200)])
    sent: list[Forward] = field(default_factory=list)

    def plug(self, seam: str, function: Function) -> "App":
        """The same with this function for a seam."""
        setattr(self, seam, function)
        return self

    @property
    def plugins(self) -> Plugins:
        """What the drivers are given."""
        methods = {"obtain": self.obtain, "refresh": self.refresh, "is_rejected": self.is_rejected}
        provider = SimpleNamespace(**{name: method for name, method in methods.items() if method})

        def find(connection: Connection) -> Any:
            return self.credential or provider

        return Plugins(self.authenticate, SimpleNamespace(resolve=self.resolve), find)

    def send(self, forward: Forward) -> Any:
        """The upstream, for a thread."""
        self.sent.append(forward)
        response = self.responses[len(self.sent) - 1]
        if isinstance(response, BaseException):
            raise response
        return response

    async def asend(self, forward: Forward) -> Any:
        """The upstream, for an event loop."""
        return self.send(forward)

    def run(self, colour: str, body: Body | None = None) -> Relay:
        """The outcome of a request in this colour; no plugin may take longer than five seconds."""
        steps = exchange(request(), "1.1", body or Body(), rules())
        if colour == "wsgi":
            return drive(steps, wsgi_performers(self.plugins, CredentialCache(), Admission(Limits()), self.send))
        perform = asgi_performers(self.plugins, CredentialCache(), Admission(Limits()), self.asend)

        async def main() -> Relay:
            with anyio.fail_after(5):
                return await adrive(steps, perform)

        return anyio.run(main, backend=colour)

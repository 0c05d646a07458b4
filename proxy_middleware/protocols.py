"""The seams: what an application plugs in.

Every method that requests call may be `def` or `async def`, under ASGI and under WSGI. Under ASGI a plain `def` runs in
a worker thread, unless it is marked with `nonblocking`; under WSGI an `async def` runs on one background event loop.
"""

from collections.abc import Awaitable, Callable
from inspect import iscoroutinefunction
from typing import Protocol, TypeVar

from proxy_middleware._credential import Credential
from proxy_middleware.models import Connection, EgressPolicy, Event, ProxyRequest

_F = TypeVar("_F", bound=Callable[..., object])


class Authenticator(Protocol):
    """Says who is calling."""

    def __call__(self, request: ProxyRequest, /) -> object | Awaitable[object | None] | None:
        """The caller, of any type, which becomes `request.caller`; None answers 401."""


class ConnectionResolver(Protocol):
    """Finds the connection that a selector names. It is what keeps tenants apart: look at `request.caller`."""

    def resolve(self, selector: str, request: ProxyRequest, /) -> Connection | Awaitable[Connection]:
        """The connection.

        Raises:
            ConnectionNotFound: There is none, or this caller must not know of it.
            AmbiguousSelector: The selector is an integration key or id that more than one connection has.
            AccessDenied: The caller may know of it, but not call it.
        """


class CredentialProvider(Protocol):
    """Holds credentials. Three further methods are optional.

    `refresh(connection, rejected) -> Credential` obtains a newer credential than the rejected one; whatever it raises
    counts as `RefreshFailed`. `is_rejected(connection, response: ResponseHead) -> bool` says whether the upstream
    rejected the credential; by default a 401 does. `use_egress(policy: EgressPolicy) -> None`, a plain `def`, is called
    once by each `Proxy` as it is made, with the policy that its upstreams are dialled under, for providers that make
    network calls of their own; a provider around others passes it on.
    """

    def obtain(self, connection: Connection, /) -> Credential | Awaitable[Credential]:
        """The credential to use now.

        Raises:
            CredentialUnavailable: There is none.
        """


class Observer(Protocol):
    """Is told what happens to requests, in the thread or event loop that serves them, while they wait for it."""

    def __call__(self, event: Event, /) -> None:
        """Takes note, and never blocks. What it raises goes to the log, by type, and not into the request."""


def nonblocking(function: _F) -> _F:
    """Marks a plain `def` that never waits for anything, so that the ASGI door calls it on the event loop itself."""
    function.__dict__["_nonblocking"] = True
    return function


def is_nonblocking(function: Callable[..., object]) -> bool:
    """Whether `nonblocking` marked this function, bound method, or the `__call__` of this object."""
    marked = getattr(function, "_nonblocking", False) or getattr(type(function).__call__, "_nonblocking", False)
    return bool(marked)


def hand_egress(provider: object, policy: EgressPolicy) -> None:
    """Tells a provider the policy, if it has `use_egress`.

    Raises:
        TypeError: That is an `async def`, which nobody would wait for.
    """
    use_egress = getattr(provider, "use_egress", None)
    if iscoroutinefunction(use_egress):
        raise TypeError(f"{type(provider).__name__}.use_egress cannot be an async def")
    if callable(use_egress):
        use_egress(policy)

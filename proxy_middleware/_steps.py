"""What the core asks for, step by step, and the handles of bodies and responses that it passes on."""

from collections.abc import Generator, Sequence
from typing import Any, NamedTuple, Protocol

from proxy_middleware._credential import Credential
from proxy_middleware._fields import Field
from proxy_middleware._target import Origin
from proxy_middleware.models import Connection, ProxyRequest, Timeouts

# Seconds of remaining life below which a credential is refreshed before it is used.
EXPIRY_MARGIN = 30.0


class Body(Protocol):
    """What the core tells a request body; the rest of the handle is between the door and the engine."""

    def expect(self, length: int | None) -> None:
        """So many bytes will come; None where only the end tells."""


class Response(Protocol):
    """What the core reads of a response; the rest of the handle is between the engine and the door."""

    @property
    def status(self) -> int: ...

    @property
    def raw(self) -> Sequence[bytes]: ...

    @property
    def kept(self) -> list[Field] | None: ...

    @property
    def fields(self) -> list[Field]: ...

    @property
    def retried(self) -> bool: ...


class Authenticate(NamedTuple):
    """Who is calling? Answered with the caller, or None."""

    request: ProxyRequest


class Resolve(NamedTuple):
    """Which connection is it? Answered with a Connection."""

    selector: str
    request: ProxyRequest


class Admit(NamedTuple):
    """Is there room for one more request to this connection? It leaves when its body is closed."""

    connection_id: str
    body: Any


class Obtain(NamedTuple):
    """Which credential? Answered with an Obtained."""

    connection: Connection


class Obtained(NamedTuple):
    """A credential, and what is known of it.

    Attributes:
        credential: The credential.
        now: The time in Unix seconds.
        refreshes: Whether its provider can refresh.
        judges: Whether its provider judges responses.
        margin: Seconds of remaining life below which it is refreshed before it is used.
    """

    credential: Credential
    now: float = 0.0
    refreshes: bool = False
    judges: bool = False
    margin: float = EXPIRY_MARGIN


class Clock(NamedTuple):
    """What time is it? Answered in Unix seconds."""


class Refresh(NamedTuple):
    """Answered with a newer credential than the rejected one."""

    connection: Connection
    rejected: Credential


class Judge(NamedTuple):
    """Does this response reject the credential? Answered with a bool; the response stays whole."""

    connection: Connection
    response: Response


class Probe(NamedTuple):
    """Is there a body? Only the first message tells in HTTP/2. Answered with a bool."""

    body: Any


class Collect(NamedTuple):
    """Read the whole body, for a signer. Answered with bytes; more than `limit` is a PayloadTooLarge."""

    body: Any
    limit: int


class Forward(NamedTuple):
    """Send this request; answered with a Response.

    Attributes:
        origin: Where to.
        method: As the caller spelled it.
        target: In origin form, with its query.
        fields: All of them, Host and framing included.
        chunked: Whether the body is framed as chunks; else it has the length that is among the fields.
        body: Handle of the body, or None if there is no body.
        handle: The same handle, in any case: behind it is the caller, who may leave.
        keep: Whether the body should be kept while it is sent, so that it can be sent again.
        again: Whether this is the second time, so that the body starts over.
        retry: Whether the engine may send once more if a reused connection turns out to be dead.
        timeouts: What to wait for.
    """

    origin: Origin
    method: bytes
    target: bytes
    fields: list[Field]
    chunked: bool
    body: Any
    handle: Any
    keep: bool
    again: bool
    retry: bool
    timeouts: Timeouts

    def __repr__(self) -> str:
        # Tracebacks that show local variables must not show the credential.
        return f"<Forward {self.method!r} to {self.origin}>"


class Discard(NamedTuple):
    """Give this response up, for a second one. Answered with False, and not done, if the body cannot be sent again."""

    response: Any
    body: Any


class Relay(NamedTuple):
    """The outcome: this response goes to the caller, with these fields, of which one may be its Content-Length."""

    response: Any
    fields: list[Field]
    has_length: bool


Step = Authenticate | Resolve | Admit | Obtain | Clock | Refresh | Judge | Probe | Collect | Forward | Discard
Steps = Generator[Step, Any, Relay]

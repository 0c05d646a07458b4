"""What a token store is: tokens by connection, versions that make stale writers fail, and leases.

A store is plain synchronous code that many threads, processes and hosts use at once; under ASGI it runs in worker
threads. Whoever refreshes takes the connection's lease, looks at the stored version again, asks the token endpoint, and
saves under the version it saw. A process that slept through its lease cannot overwrite what came after: its save fails.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol

__all__ = ["Stored", "TokenStore", "Tokens"]


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a token endpoint gave (RFC 6749 section 5.1). Secrets are masked in `repr`, and pickling is refused.

    Attributes:
        access_token: Goes upstream; None where only a refresh token is known yet.
        refresh_token: Obtains the next access token; None if there is none.
        expires_at: When the access token expires, in Unix seconds; None if that is not known.
        scope: As granted, where the endpoint said.
        extra: Further members of the token response that a host wants to keep, such as `instance_url`.
    """

    access_token: str | None = field(default=None, repr=False)
    refresh_token: str | None = field(default=None, repr=False)
    expires_at: float | None = None
    scope: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __reduce__(self) -> NoReturn:
        raise TypeError("Tokens cannot be pickled")


@dataclass(frozen=True, slots=True)
class Stored:
    """A stored record.

    Attributes:
        tokens: The tokens.
        version: Grows with every save and put, also across a delete; what a save has to name.
        dead: The token endpoint has refused the grant for good (`invalid_grant`): there is no use in asking again
            before the version changes.
    """

    tokens: Tokens
    version: int
    dead: bool = False


class TokenStore(Protocol):
    """Keeps tokens. Every method raises `StoreUnavailable` when the store cannot be reached."""

    def load(self, connection_id: str, /) -> Stored | None:
        """The record, or None; raises StoreCorrupted if it cannot be decrypted or is not what was stored."""

    def save(self, connection_id: str, tokens: Tokens, expected: int, /) -> int | None:
        """Replaces the record if its version is still `expected` (0: there is none); not dead any more.

        Returns:
            The new version, or None if the version has changed, and nothing was saved.
        """

    def put(self, connection_id: str, tokens: Tokens, /) -> int:
        """Stores tokens whatever was there, for the host application; returns the new version."""

    def delete(self, connection_id: str, /) -> None:
        """Forgets the record; a save by someone who loaded it before fails."""

    def mark_dead(self, connection_id: str, expected: int, /) -> None:
        """Notes that the grant of this version is dead; does nothing if the version has changed."""

    def acquire(self, connection_id: str, owner: str, seconds: float, /) -> bool:
        """Takes the connection's lease for so long, unless another owner holds it; the store's clock counts."""

    def renew(self, connection_id: str, owner: str, seconds: float, /) -> bool:
        """Prolongs a lease that this owner still holds; False if it is lost."""

    def release(self, connection_id: str, owner: str, /) -> None:
        """Gives the lease back, if this owner holds it."""

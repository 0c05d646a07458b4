"""Credentials, or providers of them, that are known at start."""

from collections.abc import Awaitable, Mapping

from proxy_middleware._credential import Credential
from proxy_middleware.errors import CredentialUnavailable
from proxy_middleware.models import Connection, EgressPolicy
from proxy_middleware.protocols import CredentialProvider, hand_egress

__all__ = ["StaticCredentials"]


class StaticCredentials:
    """Says which credential, or which provider, a connection has.

    Args:
        entries: By connection id or integration key; the id comes first.

    Raises:
        TypeError: An entry is neither a Credential nor has an `obtain` method.
    """

    def __init__(self, entries: Mapping[str, Credential | CredentialProvider]) -> None:
        for name, entry in entries.items():
            if not isinstance(entry, Credential) and not callable(getattr(entry, "obtain", None)):
                raise TypeError(f"StaticCredentials: the entry {name!r} is neither a Credential nor a provider")
        self._entries = dict(entries)

    def select(self, connection: Connection) -> Credential | CredentialProvider:
        """The entry for this connection; raises CredentialUnavailable if there is none."""
        entry = self._entries.get(connection.id, self._entries.get(connection.integration_key or ""))
        if entry is None:
            raise CredentialUnavailable
        if isinstance(entry, StaticCredentials) and type(entry).obtain is StaticCredentials.obtain:
            return entry.select(connection)
        return entry

    def obtain(self, connection: Connection) -> Credential | Awaitable[Credential]:
        """The credential to use now; raises CredentialUnavailable if there is none."""
        entry = self.select(connection)
        return entry if isinstance(entry, Credential) else entry.obtain(connection)

    def use_egress(self, policy: EgressPolicy) -> None:
        """Tells the policy to every provider among the entries, once."""
        for provider in self._providers().values():
            hand_egress(provider, policy)

    def _providers(self) -> dict[int, CredentialProvider]:
        """By their ids, each of them once, with those of nested StaticCredentials."""
        found: dict[int, CredentialProvider] = {}
        for entry in self._entries.values():
            if isinstance(entry, StaticCredentials) and type(entry).use_egress is StaticCredentials.use_egress:
                found |= entry._providers()
            elif not isinstance(entry, Credential):
                found[id(entry)] = entry
        return found

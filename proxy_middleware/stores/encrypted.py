"""What the stores that keep encrypted records have in common: reading one, and changing the key of all."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from proxy_middleware.errors import StoreCorrupted
from proxy_middleware.stores.encryption import Keyring
from proxy_middleware.stores.protocol import Stored


class EncryptedStore(ABC):
    """A store whose records are rows of encrypted fields.

    Args:
        keys: The first encrypts, all decrypt.
    """

    def __init__(self, keys: Sequence[str | bytes]) -> None:
        self._ring = Keyring(keys)

    def load(self, connection_id: str, /) -> Stored | None:
        """See `TokenStore.load`."""
        row = self._read(connection_id)
        return None if row is None else self._ring.unseal(connection_id, row)

    def rotate(self) -> int:
        """Encrypts every record with the first key, without a new version, and without losing what others save.

        A new key goes last into every process' ring first, then to the front, then this is called; when it is done,
        the old key can go.

        Returns:
            How many records were encrypted with another key.

        Raises:
            StoreCorrupted: A record could not be read; all others were encrypted nevertheless.
            StoreUnavailable: The store cannot be reached.
        """
        changed, failure = 0, None
        for connection_id in self._ids():
            try:
                changed += self._rotate(connection_id)
            except StoreCorrupted as error:
                failure = failure or error
        if failure is not None:
            raise failure
        return changed

    def _rotate(self, connection_id: str) -> bool:
        # Whoever saves in between may have another first key: the record is looked at again.
        while (row := self._read(connection_id)) is not None:
            fields = self._ring.reseal(connection_id, row)
            if fields is None:
                return False
            if self._rewrite(connection_id, int(row["version"]), fields):
                return True
        return False

    @abstractmethod
    def _ids(self) -> Iterator[str]:
        """The connection ids of all records."""

    @abstractmethod
    def _read(self, connection_id: str) -> Mapping[str, Any] | None:
        """The record's row as the database gives it, if there is one."""

    @abstractmethod
    def _rewrite(self, connection_id: str, version: int, fields: Mapping[str, bytes]) -> bool:
        """Replaces fields, and nothing else, if the version is still this one; tells whether it was."""

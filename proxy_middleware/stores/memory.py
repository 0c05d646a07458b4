"""A store that lives as long as its process: for tests, and for hosts that keep nothing."""

import threading
import time
from dataclasses import dataclass, field

from proxy_middleware._forks import tell_after_fork
from proxy_middleware.stores.protocol import Stored, Tokens
from proxy_middleware.stores.records import check_id, check_lease, dump, restore


@dataclass(slots=True)
class _Entry:
    """One connection; without fields there is no record, but its version, or a lease."""

    version: int = 0
    fields: dict[str, bytes] | None = field(default=None, repr=False)
    expires_at: float | None = None
    dead: bool = False
    owner: str | None = None
    until: float = 0

    def replace(self, fields: dict[str, bytes], expires_at: float | None) -> int:
        self.fields, self.expires_at, self.dead = fields, expires_at, False
        self.version += 1
        return self.version

    def holds(self, owner: str) -> bool:
        return self.owner == owner and self.until > time.monotonic()


class MemoryStore:
    """Keeps tokens in memory, for the threads of one process: another one has its own, also after a fork."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._lock = threading.Lock()
        tell_after_fork(self)

    def load(self, connection_id: str, /) -> Stored | None:
        """See `TokenStore.load`."""
        check_id(connection_id)
        with self._lock:
            entry = self._entries.get(connection_id)
            if entry is None or entry.fields is None:
                return None
            return Stored(restore(entry.fields, entry.expires_at), entry.version, entry.dead)

    def save(self, connection_id: str, tokens: Tokens, expected: int, /) -> int | None:
        """See `TokenStore.save`."""
        check_id(connection_id)
        fields = dump(tokens)
        with self._lock:
            entry = self._entry(connection_id)
            if expected != (0 if entry.fields is None else entry.version):
                return None
            return entry.replace(fields, tokens.expires_at)

    def put(self, connection_id: str, tokens: Tokens, /) -> int:
        """See `TokenStore.put`."""
        check_id(connection_id)
        fields = dump(tokens)
        with self._lock:
            return self._entry(connection_id).replace(fields, tokens.expires_at)

    def delete(self, connection_id: str, /) -> None:
        """See `TokenStore.delete`."""
        check_id(connection_id)
        with self._lock:
            self._entry(connection_id).fields = None

    def mark_dead(self, connection_id: str, expected: int, /) -> None:
        """See `TokenStore.mark_dead`."""
        check_id(connection_id)
        with self._lock:
            entry = self._entry(connection_id)
            entry.dead = entry.dead or (entry.fields is not None and entry.version == expected)

    def acquire(self, connection_id: str, owner: str, seconds: float, /) -> bool:
        """See `TokenStore.acquire`."""
        check_lease(connection_id, owner, seconds)
        with self._lock:
            entry = self._entry(connection_id)
            if entry.owner not in (None, owner) and entry.until > time.monotonic():
                return False
            entry.owner, entry.until = owner, time.monotonic() + seconds
            return True

    def renew(self, connection_id: str, owner: str, seconds: float, /) -> bool:
        """See `TokenStore.renew`."""
        check_lease(connection_id, owner, seconds)
        with self._lock:
            entry = self._entry(connection_id)
            if not entry.holds(owner):
                return False
            entry.until = time.monotonic() + seconds
            return True

    def release(self, connection_id: str, owner: str, /) -> None:
        """See `TokenStore.release`."""
        check_id(connection_id)
        with self._lock:
            entry = self._entry(connection_id)
            if entry.owner == owner:
                entry.owner = None

    def after_fork(self) -> None:
        """A thread of the parent may have held the lock."""
        self._lock = threading.Lock()

    def _entry(self, connection_id: str) -> _Entry:
        return self._entries.setdefault(connection_id, _Entry())

"""Tokens in a SQLite file or in PostgreSQL."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from proxy_middleware.stores.database import Database
from proxy_middleware.stores.encrypted import EncryptedStore
from proxy_middleware.stores.encryption import SEALED
from proxy_middleware.stores.protocol import Tokens
from proxy_middleware.stores.records import check_id, check_lease
from proxy_middleware.stores.tables import tokens as table

_PAGE = 100
_HAS = table.c
_NEXT = _HAS.version + 1


class SQLStore(EncryptedStore):
    """Keeps tokens, encrypted, in a SQLite file (one host) or in PostgreSQL (any number of hosts).

    Nothing is opened before the first use. Threads, processes and forked processes may share one store; each process
    has connections of its own. Only a SQLite file is not safe from a fork while another thread is in a call. `create`
    has to be called once for a database.

    Args:
        url: `sqlite:///relative.db`, `sqlite:////absolute.db` or `postgresql://user:password@host/database`, in
            SQLAlchemy's spelling; PostgreSQL is spoken to with psycopg 3.
        keys: The first encrypts, all decrypt; each 32 bytes, or their base64 text as `generate_key` makes it.

    Raises:
        ImportError: The extra "sql", or "postgresql" for such a URL, is not installed.
        ValueError: The URL is of another kind, or a key is malformed.
    """

    def __init__(self, url: str, keys: Sequence[str | bytes]) -> None:
        super().__init__(keys)
        self._database = Database(url)

    def create(self) -> None:
        """Makes the tables unless they are there; any number of processes may call this, at once, too.

        Raises:
            StoreUnavailable: The database cannot be reached, or its tables are of another release.
        """
        self._database.create()

    def close(self) -> None:
        """Closes this process' connections; using the store again opens new ones."""
        self._database.close()

    def save(self, connection_id: str, tokens: Tokens, expected: int, /) -> int | None:
        """See `TokenStore.save`."""
        if not expected:
            return self._version(self._upsert(connection_id, tokens, ~_HAS.present))
        values = {**self._values(connection_id, tokens), "version": _NEXT}
        return self._version(_at(connection_id, expected).values(values))

    def put(self, connection_id: str, tokens: Tokens, /) -> int:
        """See `TokenStore.put`."""
        version = self._version(self._upsert(connection_id, tokens, None))
        assert version is not None, "an unconditional upsert returns its row"
        return version

    def delete(self, connection_id: str, /) -> None:
        """See `TokenStore.delete`."""
        check_id(connection_id)
        empty = dict.fromkeys((*SEALED, "expires_at"))
        self._version(_of(connection_id).values(present=False, dead=False, **empty))

    def mark_dead(self, connection_id: str, expected: int, /) -> None:
        """See `TokenStore.mark_dead`."""
        check_id(connection_id)
        self._version(_at(connection_id, expected).values(dead=True))

    def acquire(self, connection_id: str, owner: str, seconds: float, /) -> bool:
        """See `TokenStore.acquire`."""
        check_lease(connection_id, owner, seconds)
        now = self._database.now()
        lease = {"lease_owner": owner, "lease_until": now + seconds}
        first = self._database.insert(table).values(connection_id=connection_id, **_NOTHING, **lease)
        free = sa.or_(_HAS.lease_owner.is_(None), _HAS.lease_owner == owner, _HAS.lease_until <= now)
        return self._version(first.on_conflict_do_update(**_CONFLICT, set_=lease, where=free)) is not None

    def renew(self, connection_id: str, owner: str, seconds: float, /) -> bool:
        """See `TokenStore.renew`."""
        check_lease(connection_id, owner, seconds)
        now = self._database.now()
        held = _of(connection_id).where(_HAS.lease_owner == owner, _HAS.lease_until > now)
        return self._version(held.values(lease_until=now + seconds)) is not None

    def release(self, connection_id: str, owner: str, /) -> None:
        """See `TokenStore.release`."""
        check_id(connection_id)
        held = _of(connection_id).where(_HAS.lease_owner == owner)
        self._version(held.values(lease_owner=None, lease_until=None))

    def _rewrite(self, connection_id: str, version: int, fields: Mapping[str, bytes]) -> bool:
        return self._version(_at(connection_id, version).values(fields)) is not None

    def _ids(self) -> Iterator[str]:
        last = ""
        while True:
            more = sa.select(_HAS.connection_id).where(_HAS.present, _HAS.connection_id > last)
            rows = self._database.execute(more.order_by(_HAS.connection_id).limit(_PAGE))
            yield from (row.connection_id for row in rows)
            if len(rows) < _PAGE:
                return
            last = rows[-1].connection_id

    def _read(self, connection_id: str) -> dict[str, Any] | None:
        check_id(connection_id)
        wanted = sa.select(*_COLUMNS).where(_HAS.connection_id == connection_id, _HAS.present)
        rows = self._database.execute(wanted)
        return dict(rows[0]._mapping) if rows else None

    def _upsert(self, connection_id: str, tokens: Tokens, where: sa.ColumnElement[bool] | None) -> Any:
        values = self._values(connection_id, tokens)
        first = self._database.insert(table).values(connection_id=connection_id, version=1, **values)
        return first.on_conflict_do_update(**_CONFLICT, set_={**values, "version": _NEXT}, where=where)

    def _values(self, connection_id: str, tokens: Tokens) -> dict[str, Any]:
        check_id(connection_id)
        sealed = self._ring.seal(connection_id, tokens)
        return {**sealed, "expires_at": tokens.expires_at, "present": True, "dead": False}

    def _version(self, statement: Any) -> int | None:
        """Executes it, and tells the version of the row that it has changed; None if it has changed none."""
        rows = self._database.execute(statement.returning(_HAS.version))
        return rows[0].version if rows else None


_CONFLICT: dict[str, Any] = {"index_elements": [_HAS.connection_id]}
_NOTHING = {"version": 0, "present": False, "dead": False}
# Without the column types: a value that was tampered with is for the key ring to refuse.
_COLUMNS = [
    sa.type_coerce(_HAS[name], sa.types.NullType()).label(name) for name in ("version", "dead", "expires_at", *SEALED)
]


def _of(connection_id: str) -> sa.Update:
    return sa.update(table).where(_HAS.connection_id == connection_id)


def _at(connection_id: str, version: int) -> sa.Update:
    return _of(connection_id).where(_HAS.version == version, _HAS.present)

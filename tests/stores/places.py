"""Where tokens can be kept, each with a back door to read and change what is stored there."""

import sqlite3
import traceback
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

import psycopg
from psycopg import sql

from proxy_middleware.stores import MemoryStore, RedisStore, SQLStore, Tokens, TokenStore
from tests.services import Postgres, Redis

KEY = bytes(range(32))
FULL = Tokens(
    access_token="canary-access-ä",
    refresh_token="canary-refresh",
    expires_at=1_900_000_000.5,
    scope="canary-scope read",
    extra={"instance_url": "https://canary-extra.example", "deep": [1, None, {"ü": 0.5}]},
)

SharedStore = SQLStore | RedisStore


class Place(Protocol):
    """A kind of store, and one place of that kind; what is opened has to be closed by `close`."""

    url: str

    def open(self, keys: Sequence[str | bytes] = (KEY,)) -> SharedStore:
        """A further store object for this place, as another process would have it, without `create()`."""
        ...

    def close(self) -> None:
        """Closes what was opened."""
        ...

    def read(self, connection_id: str, field: str) -> Any:
        """What is stored."""
        ...

    def write(self, connection_id: str, field: str, value: Any) -> None:
        """Tampers with it; None removes it."""
        ...

    def set_schema(self, version: int) -> None:
        """Pretends to be of another release."""
        ...

    def everything(self) -> bytes:
        """All bytes that are, or would be, on a disk."""
        ...


class _Shared:
    def __init__(self, url: str) -> None:
        self.url = url
        self._opened: list[SharedStore] = []

    def open(self, keys: Sequence[str | bytes] = (KEY,)) -> SharedStore:
        store = RedisStore(self.url, keys) if self.url.startswith("redis") else SQLStore(self.url, keys)
        self._opened.append(store)
        return store

    def close(self) -> None:
        for store in self._opened:
            store.close()


class SQLitePlace(_Shared):
    """A SQLite file."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"sqlite:///{path}")
        self.path = path

    def read(self, connection_id: str, field: str) -> Any:
        (row,) = self._execute(f"SELECT {field} FROM proxy_middleware_tokens WHERE connection_id = ?", connection_id)
        return row[0]

    def write(self, connection_id: str, field: str, value: Any) -> None:
        self._execute(f"UPDATE proxy_middleware_tokens SET {field} = ? WHERE connection_id = ?", value, connection_id)

    def set_schema(self, version: int) -> None:
        self._execute("UPDATE proxy_middleware_meta SET value = ?", version)

    def everything(self) -> bytes:
        return b"".join(path.read_bytes() for path in self.path.parent.glob(f"{self.path.name}*"))

    def _execute(self, statement: str, *values: Any) -> list[Any]:
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            return connection.execute(statement, values).fetchall()


class PostgresPlace(_Shared):
    """The database of a PostgreSQL server that is always there."""

    def __init__(self, server: Postgres) -> None:
        super().__init__(server.url)
        with psycopg.connect(self.url) as connection:
            connection.execute("DROP TABLE IF EXISTS proxy_middleware_tokens, proxy_middleware_meta")

    def read(self, connection_id: str, field: str) -> Any:
        with psycopg.connect(self.url) as connection:
            query = sql.SQL("SELECT {} FROM proxy_middleware_tokens WHERE connection_id = %s")
            row = connection.execute(query.format(sql.Identifier(field)), [connection_id]).fetchone()
        assert row is not None
        return row[0]

    def write(self, connection_id: str, field: str, value: Any) -> None:
        with psycopg.connect(self.url) as connection:
            query = sql.SQL("UPDATE proxy_middleware_tokens SET {} = %s WHERE connection_id = %s")
            connection.execute(query.format(sql.Identifier(field)), [value, connection_id])

    def set_schema(self, version: int) -> None:
        with psycopg.connect(self.url) as connection:
            connection.execute("UPDATE proxy_middleware_meta SET value = %s", [version])

    def everything(self) -> bytes:
        whole = "COPY proxy_middleware_tokens TO STDOUT WITH (FORMAT binary)"
        with psycopg.connect(self.url) as connection, connection.cursor().copy(whole) as copy:
            return b"".join(map(bytes, copy))


class RedisPlace(_Shared):
    """The first database of a Redis server."""

    def __init__(self, server: Redis) -> None:
        super().__init__(server.fresh_url())
        self._server = server

    def read(self, connection_id: str, field: str) -> Any:
        with self._server.client() as client:
            return client.hget(f"proxy_middleware:tokens:{connection_id}", field)

    def write(self, connection_id: str, field: str, value: Any) -> None:
        with self._server.client() as client:
            key = f"proxy_middleware:tokens:{connection_id}"
            client.hdel(key, field) if value is None else client.hset(key, field, value)

    def set_schema(self, version: int) -> None:
        with self._server.client() as client:
            client.set("proxy_middleware:schema", version)

    def everything(self) -> bytes:
        return self._server.dump()


def package_frames(error: BaseException) -> str:
    """All that a traceback with local variables shows of the package's own frames, and of errors behind this one."""
    assert error.__context__ is None
    frames = traceback.TracebackException.from_exception(error, capture_locals=True).stack
    return "".join(f"{frame.name} {frame.locals}" for frame in frames if "/proxy_middleware/" in frame.filename)


def memory() -> TokenStore:
    """The store that has no place; the annotation lets the type checker compare it with the protocol."""
    return MemoryStore()

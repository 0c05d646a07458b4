"""SQLite or PostgreSQL: an engine per process, statements one by one, errors without what was in them.

Every statement is a transaction of its own. So there is none to be left open, and in SQLite no reader that wants to
become a writer, which could not wait for its turn.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from proxy_middleware.errors import StoreUnavailable
from proxy_middleware.stores.tables import SCHEMA, meta, metadata

CONNECT = 2  # Seconds that connecting to PostgreSQL may take.
POOL = 3.0  # Seconds that a thread waits for a connection of the pool.
LOCKED = 3.0  # Seconds that a locked SQLite file is waited for.

_POSTGRESQL_DRIVERS = ("postgresql", "postgresql+psycopg")
_OPTIONS: dict[str, Any] = {"isolation_level": "AUTOCOMMIT", "hide_parameters": True}
_CREATING = 0x70726F7879  # An arbitrary number, of an advisory lock.


class Database:
    """Where the tables are.

    Raises:
        ImportError: The URL is PostgreSQL's, and psycopg is missing.
        ValueError: It is none that the store can use.
    """

    def __init__(self, url: str) -> None:
        self._url = _parse(url)
        self._postgresql = self._url.get_backend_name() == "postgresql"
        self._connect = _postgresql_connect() if self._postgresql else None
        # By process: what a fork inherits is not used, and neither closed, since its sockets are the parent's.
        self._engines: dict[int, sa.Engine] = {}
        self._checked = False

    def insert(self, table: sa.Table) -> Any:
        """An INSERT that knows `on_conflict_do_update`, for which SQLAlchemy has one type per dialect."""
        return postgresql.insert(table) if self._postgresql else sqlite.insert(table)

    def now(self) -> sa.ColumnElement[float]:
        """The clock that leases go by, in Unix seconds: the server's, or for a SQLite file the host's."""
        if self._postgresql:
            # Not now(), which stands still while a statement waits for another one.
            return cast("sa.ColumnElement[float]", sa.extract("epoch", sa.func.clock_timestamp()))
        return sa.literal(time.time())

    def execute(self, statement: sa.Executable) -> Sequence[sa.Row[Any]]:
        """All rows that a SELECT, or a statement with RETURNING, gives.

        Raises:
            StoreUnavailable: The database cannot be reached, does not answer, or has other tables.
        """
        try:
            return self._execute(statement)
        except SQLAlchemyError as error:
            reason = _reason(error)
        raise StoreUnavailable(f"The token store cannot be used ({reason})")

    def create(self) -> None:
        """Makes the tables, unless they are there.

        Raises:
            StoreUnavailable: The database cannot be reached, or its tables are of another release.
        """
        try:
            return self._create()
        except SQLAlchemyError as error:
            reason = _reason(error)
        raise StoreUnavailable(f"The token store's tables cannot be made ({reason})")

    def close(self) -> None:
        """Closes this process' connections; using the database again opens new ones."""
        engine = self._engines.pop(os.getpid(), None)
        if engine is not None:
            engine.dispose()

    def _execute(self, statement: sa.Executable) -> Sequence[sa.Row[Any]]:
        with self._engine().connect() as connection:
            if not self._checked:
                _check_schema(connection)
                self._checked = True
            return connection.execute(statement).all()

    def _create(self) -> None:
        with self._engine().connect() as connection:
            if self._postgresql:
                connection.exec_driver_sql("BEGIN")
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_CREATING)))
            else:
                _use_wal(connection)
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            if not sa.inspect(connection).has_table(meta.name):
                metadata.create_all(connection)
                connection.execute(sa.insert(meta).values(name="schema", value=SCHEMA))
            _check_schema(connection)
            connection.exec_driver_sql("COMMIT")

    def _engine(self) -> sa.Engine:
        pid = os.getpid()
        # An engine that loses a race between threads has opened nothing yet.
        return self._engines.get(pid) or self._engines.setdefault(pid, self._make_engine())

    def _make_engine(self) -> sa.Engine:
        return _postgresql_engine(self._url, self._connect) if self._connect else _sqlite_engine(self._url)


def _parse(text: str) -> sa.URL:
    try:
        url = sa.make_url(text)
    except (SQLAlchemyError, ValueError):
        url = None
    # The messages do not quote the URL: it may hold a password.
    if url is None or url.drivername not in (*_POSTGRESQL_DRIVERS, "sqlite", "sqlite+pysqlite"):
        raise ValueError("SQLStore takes a URL like sqlite:///file.db or postgresql://user:password@host/database")
    if url.drivername in _POSTGRESQL_DRIVERS:
        return url.set(drivername="postgresql+psycopg")
    if url.database in (None, "", ":memory:") or url.query.get("mode") == "memory":
        raise ValueError("SQLStore keeps a file: use MemoryStore for what stays in memory")
    if sqlite3.sqlite_version_info < (3, 35):
        raise ValueError(f"SQLStore needs SQLite 3.35 or newer, not {sqlite3.sqlite_version}")
    return url


def _postgresql_connect() -> Callable[..., Any]:
    try:
        from proxy_middleware.stores.postgresql import BoundedConnection
    except ImportError as missing:
        message = 'PostgreSQL needs the extra "postgresql": pip install "proxy_middleware[postgresql]"'
        raise ImportError(message) from missing
    return BoundedConnection.connect


def _postgresql_engine(url: sa.URL, connect: Callable[..., Any]) -> sa.Engine:
    # PgBouncer may give every statement another server connection, which has not seen what was prepared.
    arguments = {"connect_timeout": CONNECT, "prepare_threshold": None}
    # A connection that the server has closed is noticed before it is used: no statement has to be sent twice.
    engine = sa.create_engine(url, connect_args=arguments, pool_pre_ping=True, pool_timeout=POOL, **_OPTIONS)
    sa.event.listen(engine, "do_connect", lambda dialect, record, args, kwargs: connect(*args, **kwargs))
    return engine


def _sqlite_engine(url: sa.URL) -> sa.Engine:
    # No connection is kept: SQLite's locks break if a process forks while it has one open, even if the child never
    # touches it (sqlite.org/howtocorrupt.html section 2.6).
    engine = sa.create_engine(url, connect_args={"timeout": LOCKED}, poolclass=sa.NullPool, **_OPTIONS)
    sa.event.listen(engine, "connect", _be_durable)
    return engine


def _be_durable(connection: sqlite3.Connection, record: Any) -> None:
    # Some builds default to NORMAL in WAL mode: a power cut could then undo the save of a rotated refresh token.
    connection.execute("PRAGMA synchronous = FULL").close()


def _use_wal(connection: sa.Connection) -> None:
    """From now on readers and writers do not wait for each other; the file remembers it."""
    deadline = time.monotonic() + LOCKED
    while True:  # SQLite does not wait by itself here, whatever its time-out, while somebody else is in the file.
        try:
            connection.exec_driver_sql("PRAGMA journal_mode = WAL").close()
            return
        except sa.exc.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _check_schema(connection: sa.Connection) -> None:
    if not sa.inspect(connection).has_table(meta.name):
        raise StoreUnavailable("The token store has no tables yet: call create() once")
    found = connection.scalar(sa.select(meta.c.value).where(meta.c.name == "schema"))
    if found != SCHEMA:
        raise StoreUnavailable(f"The token store's tables are of version {found}, this release knows {SCHEMA}")


def _reason(error: SQLAlchemyError) -> str:
    """The driver's kind of error: its message might quote values, or the connection string."""
    return type(getattr(error, "orig", None) or error).__name__

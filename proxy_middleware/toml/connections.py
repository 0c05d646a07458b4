"""The connections that a TOML file lists."""

import os
from collections.abc import Iterator

from proxy_middleware.models import Connection, Timeouts
from proxy_middleware.resolvers import StaticResolver
from proxy_middleware.toml.reader import (
    Key,
    Table,
    TomlError,
    anything,
    flag,
    mapping,
    number,
    pairs,
    read_file,
    text,
    texts,
)

__all__ = ["TomlResolver"]

# The tables of a file; each is looked into by whoever needs it.
TOP = {name: Key(anything) for name in ("connections", "callers", "store", "proxy")}
TIMEOUTS = {name: Key(number) for name in ("pool", "connect", "head", "idle")}
_CONNECTION = {
    "base_url": Key(text, True),
    "integration_key": Key(text),
    "integration_id": Key(text),
    "allowed_origins": Key(texts),
    "headers": Key(pairs),
    "methods": Key(texts),
    "paths": Key(texts),
    "timeouts": Key(anything),
    "rewrite_links": Key(flag),
    "attributes": Key(mapping),
    "credential": Key(anything),
}


class TomlResolver(StaticResolver):
    """The connections in a TOML file, for every caller; see `proxy_middleware.toml`.

    Args:
        path: The file, which is read once.

    Raises:
        OSError: It cannot be read.
        TomlError: It is not as it should be.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        file = read_file(path)
        connections = read_connections(file)
        if file.problems:
            raise TomlError(path, file.problems)
        super().__init__(connections)


def read_connections(file: Table) -> list[Connection]:
    """The connections of a file; notes what is wrong with them."""
    file.values(TOP)
    found = [_read_connection(name, table) for name, table in connection_tables(file)]
    return [connection for connection in found if connection is not None]


def connection_tables(file: Table) -> Iterator[tuple[str, Table]]:
    """The table of each connection, by its id."""
    connections = file.table("connections")
    if not connections.data and not file.problems:
        file.note("connections", "has none")
    for name in connections.data:
        yield name, connections.table(name)


def _read_connection(name: str, table: Table) -> Connection | None:
    settings: dict[str, object] = {}
    if "timeouts" in table.data:
        settings["timeouts"] = table.table("timeouts").make(TIMEOUTS, Timeouts)

    def make(credential: object = None, timeouts: object = None, **values: object) -> Connection:
        return Connection(name, **{**values, **settings})  # type: ignore[arg-type]

    return table.make(_CONNECTION, make)

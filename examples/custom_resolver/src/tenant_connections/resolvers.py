"""Resolvers over the table: one that blocks, for WSGI, and one for asyncio."""

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from proxy_middleware import Connection, ProxyRequest
from tenant_connections.table import candidates, choose


@dataclass(frozen=True)
class Caller:
    """Whom an authenticator of this application returns; anything with a `tenant` will do.

    Attributes:
        name: Who it is.
        tenant: Whose connections they may use.
    """

    name: str
    tenant: str


def tenant_of(request: ProxyRequest) -> str:
    """The caller's tenant: never anything that the caller can choose, such as a header field or the target."""
    tenant = request.caller.tenant
    if not isinstance(tenant, str) or not tenant:
        raise TypeError("a caller without a tenant has no connections")
    return tenant


class SQLResolver:
    """Finds a tenant's connections in a database, with a driver that blocks. Threads may share it.

    Nothing is opened before the first request, so that it may be made before a server forks its workers.

    Args:
        url: Of the database, in SQLAlchemy's spelling, such as `sqlite:///connections.db`.
    """

    def __init__(self, url: str | sa.URL) -> None:
        # The values in a statement are the tenants' own, and no log's business.
        self._engine = sa.create_engine(url, hide_parameters=True)

    def resolve(self, selector: str, request: ProxyRequest) -> Connection:
        """The caller's connection; raises ConnectionNotFound or AmbiguousSelector."""
        with self._engine.connect() as connection:
            rows = connection.execute(candidates(tenant_of(request), selector)).all()
        return choose(rows, selector)

    def close(self) -> None:
        """Closes the idle connections to the database; using the resolver again opens new ones."""
        self._engine.dispose()


class AsyncSQLResolver:
    """The same with an asynchronous driver. Any number of event loops may share it.

    A connection belongs to the event loop on which it was opened, and so would a pool of them. So none is kept: behind
    a CachedResolver the database is asked seldom. There is nothing to close, and nothing that a fork could inherit.

    Args:
        url: Of the database, such as `sqlite+aiosqlite:///connections.db`.
    """

    def __init__(self, url: str | sa.URL) -> None:
        self._engine = create_async_engine(url, poolclass=sa.NullPool, hide_parameters=True)

    async def resolve(self, selector: str, request: ProxyRequest) -> Connection:
        """The caller's connection; raises ConnectionNotFound or AmbiguousSelector."""
        async with self._engine.connect() as connection:
            rows = (await connection.execute(candidates(tenant_of(request), selector))).all()
        return choose(rows, selector)

"""A WSGI application with both resolvers of the example package, each under a prefix of its own.

`UPSTREAM_URL` is the connections' base URL, `DIRECTORY` where the database is made and the secrets are.
"""

import os
from pathlib import Path

import sqlalchemy as sa
from tenant_connections import Caller, connections, metadata

from proxy_middleware import (
    EgressPolicy,
    ProxyRequest,
    WSGIProxyMiddleware,
    bearer_tokens,
    load_credentials,
    load_resolver,
)
from proxy_middleware.resolvers import CachedResolver
from proxy_middleware.wsgi import WSGIApp
from tests.hosts import host_wsgi

TENANTS = ("acme", "umbrella")

directory = Path(os.environ["DIRECTORY"])
engine = sa.create_engine(f"sqlite:///{directory}/connections.db")


def make_database() -> None:
    """Each tenant has a connection of the same key."""
    rows = [{"id": f"{tenant}-crm", "tenant": tenant, "integration_key": "crm"} for tenant in TENANTS]
    with engine.begin() as connection:
        metadata.create_all(connection)
        connection.execute(sa.insert(connections), [{**row, "base_url": os.environ["UPSTREAM_URL"]} for row in rows])
    engine.dispose()


def key(selector: str, request: ProxyRequest) -> tuple[str, str]:
    """Everything that the resolvers go by."""
    return request.caller.tenant, selector


def proxied(app: WSGIApp, prefix: str, name: str, driver: str) -> WSGIProxyMiddleware:
    """The application with a proxy whose plugins are found by name."""
    return WSGIProxyMiddleware(
        app,
        resolver=CachedResolver(load_resolver(name, url=f"{driver}:///{directory}/connections.db"), 60, key),
        credentials=load_credentials("vault-file", directory=directory),
        authenticate=bearer_tokens({tenant: Caller("somebody", tenant) for tenant in (*TENANTS, "nobody")}),
        egress=EgressPolicy(allow=("127.0.0.0/8",)),
        prefix=prefix,
    )


make_database()
wsgi_app = proxied(
    proxied(host_wsgi, "/connections", "tenant-sql", "sqlite"), "/later", "tenant-sql-async", "sqlite+aiosqlite"
)

"""An application with several tenants that uses this package's plugins by name, offline, on loopback.

    pip install -e '.[examples]' ./examples/custom_resolver
    python examples/custom_resolver/app.py

Connections are rows of a SQLite file, credentials are files as Vault's agent renders them. Two tenants call a stand-in
for a third-party CRM; what comes of it is printed and checked.
"""

import json
import os
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sa
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse
from tenant_connections import Caller, connections, metadata

from proxy_middleware import (
    ASGIProxyMiddleware,
    EgressPolicy,
    ProxyRequest,
    bearer_tokens,
    load_credentials,
    load_resolver,
)
from proxy_middleware.resolvers import CachedResolver

# --- the host application: this part is what you would write ----------------------------------------------------------


def cache_key(selector: str, request: ProxyRequest) -> tuple[str, str]:
    """Everything that the resolver goes by; without the tenant, one would be shown another one's connection."""
    return request.caller.tenant, selector


def host_application(database: str, secrets: Path, callers: Mapping[str, Caller], egress: EgressPolicy) -> FastAPI:
    """A FastAPI application with the proxy mounted under /connections.

    Args:
        database: File with the table of connections.
        secrets: Directory with the secrets.
        callers: Who may call: `{bearer token: caller}`.
        egress: The addresses that may be dialled.
    """
    resolver = load_resolver("tenant-sql-async", url=f"sqlite+aiosqlite:///{database}")
    app = FastAPI()
    app.add_middleware(
        ASGIProxyMiddleware,
        resolver=CachedResolver(resolver, ttl=30, key=cache_key),
        credentials=load_credentials("vault-file", directory=secrets),
        authenticate=bearer_tokens(callers),
        egress=egress,
    )
    return app


# --- what stands around it here: the database, Vault's agent and the CRM ----------------------------------------------


def make_database(path: Path, crm_url: str) -> None:
    """Two tenants, each with a CRM; one of them with two mailboxes, which share a key."""
    rows = [
        {"id": "acme-crm", "tenant": "acme", "integration_key": "crm"},
        {"id": "acme-sales", "tenant": "acme", "integration_key": "mail"},
        {"id": "acme-support", "tenant": "acme", "integration_key": "mail"},
        {"id": "umbrella-crm", "tenant": "umbrella", "integration_key": "crm"},
    ]
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        metadata.create_all(connection)
        connection.execute(sa.insert(connections), [{**row, "base_url": crm_url} for row in rows])
    engine.dispose()


def render(secrets: Path, connection_id: str, token: str, version: int) -> None:
    """What Vault's agent does with `perms = "0600"`: the whole file is there, or the one before."""
    document = {"data": {"data": {"token": token}, "metadata": {"version": version}}}
    new = secrets / f"{connection_id}.new"
    with open(new, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        json.dump(document, file)
    new.replace(secrets / f"{connection_id}.json")


class CRM:
    """A third-party API that says who is calling, as long as the token is one that it knows."""

    def __init__(self) -> None:
        self.accounts: dict[str, str] = {}
        self.rejected = 0
        self.app = FastAPI()
        self.app.add_api_route("/me", self.me)

    async def me(self, request: Request) -> PlainTextResponse:
        """Whose token it is."""
        account = self.accounts.get(request.headers.get("authorization", "").removeprefix("Bearer "))
        if account is None:
            self.rejected += 1
            return PlainTextResponse("unknown token", 401)
        return PlainTextResponse(account)


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """Serves an application on a free loopback port, in a thread of its own; gives its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none", timeout_graceful_shutdown=2))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def show(client: httpx.Client, tenant: str, selector: str, status: int, wanted: str) -> None:
    """Makes a call as a tenant, prints what comes, and ends the program where that is not as it should be."""
    answer = client.get(f"/connections/{selector}/proxy/me", headers={"Authorization": f"Bearer {tenant}-caller"})
    text = answer.json()["key"] if answer.headers["content-type"] == "application/problem+json" else answer.text
    print(f"{tenant:9} GET /connections/{selector}/proxy/me".ljust(55), answer.status_code, text)
    if (answer.status_code, text) != (status, wanted):
        sys.exit(f"app failed: expected {status} {wanted!r}, got {answer.status_code} {text!r}")


def play(client: httpx.Client, crm: CRM, secrets: Path) -> None:
    """The calls, one after the other."""
    print("\nThe same selector leads each tenant to their own connection:\n")
    show(client, "acme", "crm", 200, "Acme Inc.")
    show(client, "umbrella", "crm", 200, "Umbrella Corp.")
    print("\nA connection of somebody else is not there, as one that does not exist:\n")
    show(client, "umbrella", "acme-crm", 404, "not_found")
    show(client, "umbrella", "no-such-one", 404, "not_found")
    print("\nA key that two connections of a tenant have is ambiguous; an id never is:\n")
    show(client, "acme", "mail", 409, "ambiguous_selector")
    show(client, "acme", "acme-sales", 200, "Acme Inc.")
    print("\nThe CRM wants another token, which Vault's agent has rendered: the proxy reads it when it is rejected:\n")
    render(secrets, "acme-crm", "acme-2", 2)
    crm.accounts["acme-2"] = crm.accounts.pop("acme-1")
    show(client, "acme", "crm", 200, "Acme Inc.")
    if crm.rejected != 1:
        sys.exit(f"app failed: the CRM should have rejected one request, not {crm.rejected}")


def main() -> None:
    """Runs both servers, makes the calls, and checks what was seen."""
    crm = CRM()
    crm.accounts = {"acme-1": "Acme Inc.", "umbrella-1": "Umbrella Corp."}
    callers = {f"{tenant}-caller": Caller("somebody", tenant) for tenant in ("acme", "umbrella")}
    with tempfile.TemporaryDirectory() as directory, serving(crm.app) as crm_url:
        database, secrets = Path(directory, "connections.db"), Path(directory)
        make_database(database, crm_url)
        for tenant, connection_id in (("acme", "acme-crm"), ("acme", "acme-sales"), ("umbrella", "umbrella-crm")):
            render(secrets, connection_id, f"{tenant}-1", 1)
        app = host_application(str(database), secrets, callers, EgressPolicy(allow=("127.0.0.0/8",)))
        # trust_env=False: a proxy named in the environment has no business on loopback.
        with serving(app) as url, httpx.Client(base_url=url, trust_env=False) as client:
            play(client, crm, secrets)
    print("\nEverything was as expected.")


if __name__ == "__main__":
    main()

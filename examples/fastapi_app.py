"""A FastAPI application whose users call their own GitHub accounts through it.

    ALICE_GITHUB_TOKEN=... uvicorn examples.fastapi_app:app
    curl -H 'Authorization: Bearer alice-token' http://127.0.0.1:8000/connections/github/proxy/user

Every user writes the same selector, `github`; the resolver gives each their own connection. That is what keeps tenants
apart, so it looks at `request.caller` and at nothing that the caller can choose.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass

from fastapi import FastAPI

from proxy_middleware import (
    ASGIProxyMiddleware,
    Connection,
    ConnectionNotFound,
    Credential,
    EgressPolicy,
    ProxyRequest,
    bearer_tokens,
    nonblocking,
)


@dataclass(frozen=True)
class Account:
    """A user's account at a third-party API: a row of the application's own table."""

    owner: str
    app: str
    base_url: str
    token: str


class Accounts:
    """The connection resolver and the credential provider, over the application's own records."""

    def __init__(self, accounts: Iterable[Account]) -> None:
        self._connections: dict[tuple[object, str], Connection] = {}
        self._credentials: dict[str, Credential] = {}
        for account in accounts:
            connection = Connection(f"{account.app}:{account.owner}", account.base_url, integration_key=account.app)
            self._connections[account.owner, account.app] = connection
            self._credentials[connection.id] = Credential.bearer(account.token)

    @nonblocking  # a look-up in memory; without this mark a plain `def` runs in a worker thread
    def resolve(self, selector: str, request: ProxyRequest) -> Connection:
        """Gives the caller's own connection, never somebody else's."""
        try:
            return self._connections[request.caller, selector]
        except KeyError:
            raise ConnectionNotFound from None

    @nonblocking
    def obtain(self, connection: Connection) -> Credential:
        """Gives the stored credential of a connection."""
        return self._credentials[connection.id]


def create_app(accounts: Iterable[Account], callers: dict[str, str], egress: EgressPolicy | None = None) -> FastAPI:
    """Makes the application.

    Args:
        accounts: The users' accounts.
        callers: Who may call: `{bearer token: user name}`.
        egress: The addresses that may be dialled; public ones by default.
    """
    app = FastAPI()
    records = Accounts(accounts)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    app.add_middleware(
        ASGIProxyMiddleware,
        resolver=records,
        credentials=records,
        authenticate=bearer_tokens(callers),
        egress=egress or EgressPolicy(),
    )
    return app


GITHUB = os.environ.get("GITHUB_API_URL", "https://api.github.com")

app = create_app(
    [
        Account("alice", "github", GITHUB, os.environ.get("ALICE_GITHUB_TOKEN", "")),
        Account("bob", "github", GITHUB, os.environ.get("BOB_GITHUB_TOKEN", "")),
    ],
    {"alice-token": "alice", "bob-token": "bob"},
    EgressPolicy(allow=os.environ.get("GITHUB_NETWORKS", "").split()),
)

"""What the proxy asks of every resolver and every credential provider, asked of these."""

import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from tenant_connections import AsyncSQLResolver, Caller, SQLResolver, VaultFile
from test_vault import write

from proxy_middleware import Connection, Credential
from proxy_middleware.resolvers import CachedResolver
from proxy_middleware.testing import CredentialProviderContract, ResolverContract

CRM = Connection("a-crm", "https://api.example.com")
OTHER = Connection("u-crm", "https://api.example.com")


class OfAcme(ResolverContract):
    """Selectors of the database of these tests."""

    known_selector = "crm"
    other_tenant_selector = "u-crm"
    caller = Caller("somebody", "acme")


class TestSQLResolver(OfAcme):
    """The one that blocks."""

    @pytest.fixture
    def resolver(self, database: Path) -> Iterator[SQLResolver]:
        """With connections that it keeps."""
        resolver = SQLResolver(f"sqlite:///{database}")
        yield resolver
        resolver.close()


class TestAsyncSQLResolver(OfAcme):
    """The one for asyncio."""

    @pytest.fixture
    def resolver(self, database: Path) -> AsyncSQLResolver:
        """With a connection for each question."""
        return AsyncSQLResolver(f"sqlite+aiosqlite:///{database}")


class TestCached(OfAcme):
    """The way an application uses them."""

    @pytest.fixture
    def resolver(self, database: Path) -> CachedResolver:
        """With tenant and selector for a key."""
        resolver = AsyncSQLResolver(f"sqlite+aiosqlite:///{database}")
        return CachedResolver(resolver, 30, lambda selector, request: (request.caller.tenant, selector))


class Rotated(VaultFile):
    """The provider where Vault's agent renders a new secret as soon as one is rejected."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._lock = threading.Lock()
        self._numbers = count(1)
        for connection in (CRM, OTHER):
            self._render(connection)

    def refresh(self, connection: Connection, rejected: Credential) -> Credential:
        """The next secret."""
        with self._lock:
            if self.obtain(connection) == rejected:
                self._render(connection)
        return super().refresh(connection, rejected)

    def _render(self, connection: Connection) -> None:
        write(self._directory / f"{connection.id}.json", {"token": f"token-{next(self._numbers)}"})


class TestVaultFile(CredentialProviderContract):
    """The credential provider."""

    connection = CRM
    other_connection = OTHER

    @pytest.fixture
    def provider(self, tmp_path: Path) -> VaultFile:
        """A provider with the secrets of two connections."""
        return Rotated(tmp_path)

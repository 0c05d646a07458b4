"""The contracts pass for the plugins of the package, and for those of the kit."""

from collections.abc import Iterator
from typing import ClassVar

import pytest

from proxy_middleware import (
    Connection,
    ConnectionNotFound,
    Credential,
    ProxyRequest,
    ResponseHead,
    StaticCredentials,
    StaticResolver,
)
from proxy_middleware.credentials import SLACK, AWSSigV4, OAuth2
from proxy_middleware.stores import MemoryStore
from proxy_middleware.stores.protocol import Tokens
from proxy_middleware.testing import CredentialProviderContract, ExpiringCredentials, Reply, ResolverContract
from tests.credentials.oauth2 import provider as oauth2_provider
from tests.token_endpoint import TokenEndpoint


class TestStaticResolver(ResolverContract):
    known_selector = "acme"

    @pytest.fixture
    def resolver(self) -> StaticResolver:
        """Two connections; only POST may be sent to the known one, and only there."""
        return StaticResolver(
            [
                Connection("acme", "https://api.example.com/v3", methods=["POST"], paths=["/owners/*"]),
                Connection("other", "https://api.example.com"),
            ]
        )

    path = "/owners/1?x=2"
    method = "POST"


class TenantsResolver:
    """An asynchronous resolver that keeps tenants apart."""

    async def resolve(self, selector: str, request: ProxyRequest) -> Connection:
        """The caller's own connection."""
        if selector.partition("-")[0] != request.caller or request.header("x-team") != "1":
            raise ConnectionNotFound
        return Connection(selector, "http://10.0.0.1", attributes={"tenant": request.caller})


class TestTenantsResolver(ResolverContract):
    known_selector = "acme-crm"
    other_tenant_selector = "globex-crm"
    caller = "acme"
    headers: ClassVar[dict[str, str]] = {"X-Team": "1"}

    @pytest.fixture
    def resolver(self) -> TenantsResolver:
        """One of these."""
        return TenantsResolver()


class TestStaticCredentials(CredentialProviderContract):
    connection = Connection("acme", "https://api.example.com")
    other_connection = Connection("globex", "https://api.example.com")

    @pytest.fixture
    def provider(self) -> StaticCredentials:
        """A credential of either kind."""
        return StaticCredentials(
            {"acme": Credential.query("key", "a-secret"), "globex": Credential.basic("user", "another-secret")}
        )


class TestExpiringCredentials(CredentialProviderContract):
    other_connection = Connection("globex", "https://api.example.com")

    @pytest.fixture
    def provider(self) -> ExpiringCredentials:
        """Tokens that live for an hour."""
        return ExpiringCredentials(lifetime=3600)


class TestFailingRefresh(CredentialProviderContract):
    @pytest.fixture
    def provider(self) -> ExpiringCredentials:
        """Tokens that cannot be refreshed."""
        return ExpiringCredentials(fail_refresh=True)


class TestSigningCredentials(CredentialProviderContract):
    secrets: ClassVar[tuple[str, ...]] = ("secret-access-key",)

    @pytest.fixture
    def provider(self) -> StaticCredentials:
        """Signatures for AWS."""
        return StaticCredentials({"contract": AWSSigV4("eu-central-1", "s3", "access-key", "secret-access-key")})


class TestJudge(CredentialProviderContract):
    rejection = Reply(400, fields={"X-Token-State": "expired"})

    @pytest.fixture
    def provider(self) -> "Judge":
        """One of these."""
        return Judge()


class Judge(ExpiringCredentials):
    """A provider of an API that says so in a field of its own."""

    async def is_rejected(self, connection: Connection, response: ResponseHead) -> bool:
        """Whether the field is there."""
        return response.header("x-token-state") == "expired"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[TokenEndpoint]:
    """A strict token endpoint, which ends the grant when a refresh token is used twice."""
    with TokenEndpoint() as endpoint:
        endpoint.register("client", key="a-client-secret")
        yield endpoint


class TestOAuth2(CredentialProviderContract):
    connection = Connection("acme", "https://api.example.com")
    other_connection = Connection("globex", "https://api.example.com")
    rejection = Reply(200, b'{"ok": false, "error": "token_expired"}', {"Content-Type": "application/json"})
    secrets: ClassVar[tuple[str, ...]] = ("a-client-secret",)

    @pytest.fixture
    def provider(self, endpoint: TokenEndpoint) -> OAuth2:
        """Connected for both connections."""
        store = MemoryStore()
        for connection in (self.connection, self.other_connection):
            given = endpoint.connect()
            store.put(connection.id, Tokens(given["access_token"], given["refresh_token"]))
        return oauth2_provider(endpoint, secret="a-client-secret", store=store, is_rejected=SLACK)

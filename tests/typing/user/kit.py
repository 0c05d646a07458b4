"""Tests of one's own plugins and application, by the testing kit."""

import logging
from typing import assert_type

import httpx
import pytest

from proxy_middleware import Connection, EgressPolicy, Proxy, ProxyRequest, StaticResolver, anyone
from proxy_middleware.testing import (
    CredentialProviderContract,
    ExpiringCredentials,
    FakeClock,
    FakeUpstream,
    ReceivedRequest,
    Reply,
    ResolverContract,
    assert_no_credentials,
)


class Resolver:
    """Under test."""

    async def resolve(self, selector: str, request: ProxyRequest) -> Connection:
        return Connection(selector, "https://api.example.com")


class TestResolver(ResolverContract):
    """What every resolver has to do."""

    known_selector = "crm"
    caller = "alice"

    @pytest.fixture
    def resolver(self) -> Resolver:
        return Resolver()


class TestProvider(CredentialProviderContract):
    """What every provider has to do."""

    connection = Connection("crm", "https://api.example.com")
    other_connection = Connection("mail", "https://api.example.com")
    rejection = Reply(403, b'{"error": "expired"}', {"content-type": "application/json"})

    @pytest.fixture
    def provider(self) -> ExpiringCredentials:
        return ExpiringCredentials(lifetime=3600)


def answer(request: ReceivedRequest) -> Reply:
    """What the upstream says."""
    assert_type(request.header("authorization"), str | None)
    return Reply(200, [request.body, b"!"])


def test_refresh(caplog: pytest.LogCaptureFixture) -> None:
    """A refresh, without a word of the tokens."""
    credentials = ExpiringCredentials()
    with FakeClock().installed() as clock, FakeUpstream(Reply(401), answer, b"HTTP/1.1 204 No Content\r\n\r\n") as fake:
        fake.demand(credentials.accepts)
        proxy = Proxy(
            resolver=StaticResolver([Connection("crm", fake.url)]),
            credentials=credentials,
            authenticate=anyone,
            egress=EgressPolicy(allow=("127.0.0.0/8",)),
        )
        with httpx.Client(transport=proxy.transport("crm"), base_url="http://crm.invalid") as client:
            response = client.get("/me")
        clock.advance(60)
        credentials.expire()
        assert_type(fake.requests, list[ReceivedRequest])
        assert_no_credentials(caplog, response, secrets=["another secret", *credentials.tokens])
        assert_no_credentials([logging.makeLogRecord({})], secrets=[b"another secret"])

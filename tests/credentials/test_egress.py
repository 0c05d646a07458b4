"""The egress policy of a proxy, as its credential providers are told, and what OAuth2 makes of it."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import httpx2
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from proxy_middleware import (
    Connection,
    Credential,
    CredentialProvider,
    EgressPolicy,
    Proxy,
    RefreshFailed,
    StaticCredentials,
)
from proxy_middleware.credentials.oauth2 import JWTBearer, OAuth2
from tests.credentials.oauth2 import CONNECTION, LOOPBACK, connect
from tests.credentials.test_oauth2_clients import private, public
from tests.test_public_api import app, every_maker, required
from tests.token_endpoint import TokenEndpoint

PUBLIC = EgressPolicy()
DENYING = EgressPolicy(allow=["127.0.0.0/8"], deny=["127.0.0.1/32"])


@pytest.fixture
def endpoint() -> Iterator[TokenEndpoint]:
    """A token endpoint of this test's own."""
    with TokenEndpoint() as running:
        yield running


class Told:
    """A provider that keeps what it is told."""

    def __init__(self) -> None:
        self.policies: list[EgressPolicy] = []

    def obtain(self, connection: Connection) -> Credential:
        """A credential."""
        return Credential.bearer("token")

    def use_egress(self, policy: EgressPolicy) -> None:
        """Keeps it."""
        self.policies.append(policy)


class Untold:
    """A provider that has no use for the policy."""

    use_egress = None

    def obtain(self, connection: Connection) -> Credential:
        """A credential."""
        return Credential.bearer("token")


def robot(endpoint: TokenEndpoint, **options: Any) -> OAuth2:
    """A provider that asks for a token at its first use."""
    return OAuth2(endpoint.token_url, "client", "secret", grant="client_credentials", **options)


def dials(endpoint: TokenEndpoint, oauth2: OAuth2) -> bool:
    """Whether the provider gets a token, or else is refused before anything is dialled."""
    before = endpoint.state().get("token calls", 0)
    try:
        oauth2.obtain(CONNECTION)
    except RefreshFailed:
        assert endpoint.state().get("token calls", 0) == before
        return False
    return True


# Who is told.


@every_maker
def test_told_once(make: Callable[..., object]) -> None:
    """A provider is told the policy when the engine, or a door, is made: once, and not for every door of an engine."""
    told = Told()
    made = make(**required() | {"credentials": told}, egress=LOOPBACK)
    if isinstance(made, Proxy):
        made.asgi(app)
        made.wsgi(app)
        made.close()
    assert told.policies == [LOOPBACK]


@every_maker
def test_told_the_default(make: Callable[..., object]) -> None:
    """Where no policy is given, providers are told the default one."""
    told = Told()
    make(**required() | {"credentials": told})
    assert told.policies == [PUBLIC]


def test_entries_are_told() -> None:
    """StaticCredentials pass the policy on to every provider in them, however deep and under however many names."""
    told, deep = Told(), Told()
    nested = StaticCredentials({"a": deep, "b": told, "c": Credential.bearer("token"), "d": Untold()})
    entries: dict[str, Credential | CredentialProvider]
    entries = {"a": told, "b": told, "c": nested, "d": nested, "e": StaticCredentials({"a": nested}), "f": Untold()}
    Proxy(**required() | {"credentials": StaticCredentials(entries)}, egress=LOOPBACK)
    assert told.policies == deep.policies == [LOOPBACK]


def test_subclass_of_static_credentials_is_told() -> None:
    """StaticCredentials within others are told by their own `use_egress`, where they have one."""

    class Guarded(StaticCredentials):
        def use_egress(self, policy: EgressPolicy) -> None:
            super().use_egress(DENYING)

    told = Told()
    StaticCredentials({"a": StaticCredentials({"a": Guarded({"a": told})})}).use_egress(LOOPBACK)
    assert told.policies == [DENYING]


def test_settings_that_make_no_sense_are_told_to_nobody() -> None:
    """A proxy that does not come about has told its policy to nobody."""
    told = Told()
    with pytest.raises(ValueError, match="spool_unframed"):
        Proxy(**required() | {"credentials": told, "spool_unframed": "sometimes"})
    assert told.policies == []


@every_maker
@pytest.mark.parametrize("nested", [False, True])
def test_whoever_would_be_awaited(make: Callable[..., object], nested: bool) -> None:
    """An `async def use_egress` would never run, and is a TypeError."""

    class Later(Untold):
        async def use_egress(self, policy: EgressPolicy) -> None:  # type: ignore[override]
            raise AssertionError

    with pytest.raises(TypeError, match=r"Later\.use_egress cannot be an async def"):
        make(**required() | {"credentials": StaticCredentials({"a": Later()}) if nested else Later()})


# What OAuth2 makes of it.


def test_default_until_told(endpoint: TokenEndpoint) -> None:
    """Before it is told a policy, OAuth2 dials public addresses only."""
    oauth2 = robot(endpoint)
    assert not dials(endpoint, oauth2)
    oauth2.use_egress(LOOPBACK)
    assert dials(endpoint, oauth2)


@pytest.mark.parametrize(("policy", "dialled"), [(LOOPBACK, True), (PUBLIC, False), (DENYING, False)])
def test_policy_of_the_proxy(endpoint: TokenEndpoint, policy: EgressPolicy, dialled: bool) -> None:
    """OAuth2 dials what the policy of the proxy allows, and nothing that it denies."""
    oauth2 = robot(endpoint)
    Proxy(**required() | {"credentials": StaticCredentials({"crm": oauth2})}, egress=policy)
    assert dials(endpoint, oauth2) == dialled


def test_refresh_tokens(endpoint: TokenEndpoint) -> None:
    """The policy holds for refresh tokens; what was refused before the proxy was made is tried again."""
    oauth2 = OAuth2(endpoint.token_url, "client", "secret")
    rejected = Credential.bearer(connect(endpoint, oauth2).access_token or "")
    with pytest.raises(RefreshFailed):
        oauth2.refresh(CONNECTION, rejected)
    assert "token calls" not in endpoint.state()
    oauth2.use_egress(LOOPBACK)
    assert oauth2.refresh(CONNECTION, rejected) != rejected


def test_signed_assertions(endpoint: TokenEndpoint) -> None:
    """The policy holds for the grant by signed assertion."""
    key = rsa.generate_private_key(65537, 2048)
    endpoint.trust("robot", public(key))
    oauth2 = OAuth2(endpoint.token_url, grant=JWTBearer("robot", endpoint.token_url, private(key)))
    assert not dials(endpoint, oauth2)
    oauth2.use_egress(LOOPBACK)
    assert dials(endpoint, oauth2)


@pytest.mark.parametrize(("own", "dialled"), [(LOOPBACK, True), (PUBLIC, False), (DENYING, False)])
@pytest.mark.parametrize("told", [LOOPBACK, PUBLIC, DENYING])
def test_own_policy_wins(endpoint: TokenEndpoint, own: EgressPolicy, dialled: bool, told: EgressPolicy) -> None:
    """An OAuth2 with a policy of its own keeps it, whatever the proxies say."""
    oauth2 = robot(endpoint, egress=own)
    oauth2.use_egress(told)
    oauth2.use_egress(EgressPolicy(deny=["10.0.0.0/8"]))
    assert dials(endpoint, oauth2) == dialled


@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
def test_transport_decides_itself(endpoint: TokenEndpoint, library: Any) -> None:
    """An OAuth2 with a transport of its own asks that, whatever the proxies say."""
    with library.HTTPTransport() as transport:
        oauth2 = robot(endpoint, transport=transport)
        oauth2.use_egress(PUBLIC)
        oauth2.use_egress(DENYING)
        assert dials(endpoint, oauth2)


def test_two_policies(endpoint: TokenEndpoint) -> None:
    """Proxies with different policies cannot share an OAuth2 that has none; the first one stays in force."""
    oauth2 = robot(endpoint)
    Proxy(**required() | {"credentials": oauth2}, egress=LOOPBACK)
    for other in (PUBLIC, DENYING):
        with pytest.raises(ValueError, match=r"different egress policies.*egress="):
            Proxy(**required() | {"credentials": StaticCredentials({"crm": oauth2})}, egress=other)
    assert dials(endpoint, oauth2)


@pytest.mark.parametrize("equal", [LOOPBACK, EgressPolicy(["127.0.0.0/8"]), EgressPolicy(("127.0.0.0/8",))])
def test_equal_policies(endpoint: TokenEndpoint, equal: EgressPolicy) -> None:
    """Proxies with the same policy, however it is spelled, share an OAuth2."""
    oauth2 = robot(endpoint)
    for policy in (LOOPBACK, equal):
        Proxy(**required() | {"credentials": oauth2}, egress=policy)
    assert dials(endpoint, oauth2)

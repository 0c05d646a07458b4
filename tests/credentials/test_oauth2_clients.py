"""How an OAuth2 client says who it is, the grants without a user, and what is refused at construction."""

import json
import ssl
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import httpx2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from joserfc.jwk import RSAKey

from proxy_middleware import Connection, Credential, EgressPolicy, RefreshFailed
from proxy_middleware.credentials.oauth2 import JWTBearer, OAuth2
from proxy_middleware.stores.memory import MemoryStore
from proxy_middleware.stores.protocol import Tokens
from tests.credentials.oauth2 import CONNECTION, connect, provider, stored
from tests.token_endpoint import TokenEndpoint

RSA_KEY = rsa.generate_private_key(65537, 2048)
CURVES: dict[str, ec.EllipticCurve] = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
EC_KEYS = {algorithm: ec.generate_private_key(curve) for algorithm, curve in CURVES.items()}
AWKWARD = "a:b%2Fc+d e&f=gé€~"


@pytest.fixture
def endpoint() -> Iterator[TokenEndpoint]:
    """A token endpoint of this test's own."""
    with TokenEndpoint() as running:
        yield running


def private(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    """PEM."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def public(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    """PEM."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def key_for(algorithm: str) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    """A key that fits."""
    return EC_KEYS.get(algorithm, RSA_KEY)


def refreshed_twice(endpoint: TokenEndpoint, oauth2: OAuth2, client_id: str) -> None:
    """Two refreshes that the endpoint accepts, with the API accepting the result."""
    connect(endpoint, oauth2, client_id)
    for _ in range(2):
        oauth2.refresh(CONNECTION, Credential.bearer(stored(oauth2).tokens.access_token or ""))
    assert endpoint.accepts(stored(oauth2).tokens.access_token or "")
    assert endpoint.state()["refresh_token"] == 2


# Client authentication.


@pytest.mark.parametrize("way", ["client_secret_basic", "client_secret_post"])
@pytest.mark.parametrize("client_id", ["client", AWKWARD])
@pytest.mark.parametrize("secret", ["s3cret", AWKWARD, "%", "+", ":"])
def test_secrets(endpoint: TokenEndpoint, way: Any, client_id: str, secret: str) -> None:
    """Ids and secrets reach the endpoint whatever characters they have, in either way."""
    endpoint.register(client_id, way, secret)
    refreshed_twice(endpoint, provider(endpoint, client_id, secret, client_auth=way), client_id)


def test_no_authentication(endpoint: TokenEndpoint) -> None:
    """A public client gives its id only."""
    endpoint.register("public", "none")
    refreshed_twice(endpoint, provider(endpoint, "public", None), "public")
    assert endpoint.forms[0].keys() == {"grant_type", "refresh_token", "client_id"}


def test_secret_goes_into_the_header_by_default(endpoint: TokenEndpoint) -> None:
    """With a secret and nothing else said, it is `client_secret_basic`."""
    refreshed_twice(endpoint, provider(endpoint), "client")
    assert endpoint.forms[0].keys() == {"grant_type", "refresh_token"}


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"])
def test_private_key_jwt(endpoint: TokenEndpoint, algorithm: str) -> None:
    """A client may sign who it is; each assertion has an id of its own, and the key's id goes along."""
    key = key_for(algorithm)
    endpoint.register("signer", "private_key_jwt", public(key))
    oauth2 = provider(endpoint, "signer", None, private_key=private(key), key_id="key-1", algorithm=algorithm)
    refreshed_twice(endpoint, oauth2, "signer")
    assert endpoint.state()["kid key-1"] == 2
    assert endpoint.forms[0]["client_id"] == "signer"


@pytest.mark.parametrize(
    "form", [lambda key: private(key).encode(), lambda key: RSAKey.import_key(private(key)).as_dict(private=True)]
)
def test_private_key_as_bytes_or_jwk(endpoint: TokenEndpoint, form: Callable[[rsa.RSAPrivateKey], Any]) -> None:
    """A key may come as PEM bytes or as a JWK."""
    endpoint.register("signer", "private_key_jwt", public(RSA_KEY))
    refreshed_twice(endpoint, provider(endpoint, "signer", None, private_key=form(RSA_KEY)), "signer")


def test_another_key(endpoint: TokenEndpoint) -> None:
    """An endpoint that knows another key refuses the client, not the grant."""
    endpoint.register("signer", "private_key_jwt", public(rsa.generate_private_key(65537, 2048)))
    oauth2 = provider(endpoint, "signer", None, private_key=private(RSA_KEY))
    connect(endpoint, oauth2, "signer")
    with pytest.raises(RefreshFailed):
        oauth2.refresh(CONNECTION, oauth2.obtain(CONNECTION))
    assert not stored(oauth2).dead


# Grants without a user.


def test_client_credentials(endpoint: TokenEndpoint) -> None:
    """The first use asks for a token, which is stored and used until it is rejected."""
    oauth2 = provider(endpoint, grant="client_credentials", scope=["read", "write"])
    first = oauth2.obtain(CONNECTION)
    assert oauth2.obtain(CONNECTION) == first
    second = oauth2.refresh(CONNECTION, first)
    assert second != first
    assert endpoint.accepts(stored(oauth2).tokens.access_token or "")
    assert [form.get("scope") for form in endpoint.forms] == ["read write"] * 2
    assert endpoint.state()["client_credentials"] == 2


def test_client_credentials_without_refresh_token(endpoint: TokenEndpoint) -> None:
    """A refresh token beside client credentials is left where it is."""
    endpoint.settle(members={"refresh_token": "needless"})
    oauth2 = provider(endpoint, grant="client_credentials")
    oauth2.obtain(CONNECTION)
    assert stored(oauth2).tokens.refresh_token is None


def test_grant_without_a_user_never_dies(endpoint: TokenEndpoint) -> None:
    """A refused grant without a user is asked for again later: no host would put new tokens."""
    oauth2 = provider(endpoint, grant="client_credentials")
    endpoint.misbehave("answer", times=1, status=400, body='{"error": "invalid_grant"}')
    with pytest.raises(RefreshFailed):
        oauth2.obtain(CONNECTION)
    assert oauth2.obtain(CONNECTION) == oauth2.obtain(CONNECTION)


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256"])
def test_jwt_bearer(endpoint: TokenEndpoint, algorithm: str) -> None:
    """A signed assertion is a grant; every request has a new one, and needs no client."""
    key = key_for(algorithm)
    endpoint.trust("robot", public(key))
    grant = JWTBearer("robot", endpoint.token_url, private(key), key_id="key-2", algorithm=algorithm, subject="user")
    oauth2 = provider(endpoint, None, None, grant=grant)
    first = oauth2.obtain(CONNECTION)
    assert oauth2.refresh(CONNECTION, first) != first
    assert endpoint.state()["kid key-2"] == 2
    assert endpoint.forms[0].keys() == {"grant_type", "assertion"}


def test_jwt_bearer_of_a_client(endpoint: TokenEndpoint) -> None:
    """A client may authenticate beside the assertion."""
    endpoint.trust("robot", public(RSA_KEY))
    oauth2 = provider(endpoint, grant=JWTBearer("robot", endpoint.token_url, private(RSA_KEY)))
    oauth2.obtain(CONNECTION)
    assert endpoint.accepts(stored(oauth2).tokens.access_token or "")


def test_service_account(endpoint: TokenEndpoint) -> None:
    """The content of a Google key file makes a grant, with the scope among the claims."""
    endpoint.trust("robot@project.iam.gserviceaccount.com", public(RSA_KEY))
    info = {
        "type": "service_account",
        "private_key_id": "key-3",
        "private_key": private(RSA_KEY),
        "client_email": "robot@project.iam.gserviceaccount.com",
        "token_uri": endpoint.token_url,
    }
    grant = JWTBearer.from_service_account(info, scope=["drive", "mail"], subject="user@example.com")
    provider(endpoint, None, None, grant=grant).obtain(CONNECTION)
    assert endpoint.state()["kid key-3"] == 1
    assert endpoint.claims[0]["scope"] == "drive mail"
    assert endpoint.claims[0]["sub"] == "user@example.com"
    assert endpoint.claims[0]["exp"] - endpoint.claims[0]["iat"] == 300


def test_service_account_without_a_key() -> None:
    """A key file that lacks something is refused with the names of what it lacks."""
    with pytest.raises(ValueError, match="no private_key, token_uri"):
        JWTBearer.from_service_account({"client_email": "robot"}, scope="drive")


# Further parameters.


def test_params(endpoint: TokenEndpoint) -> None:
    """Further parameters go along with every request."""
    oauth2 = provider(endpoint, grant="client_credentials", params={"audience": "https://api/?a=b&c", "empty": ""})
    oauth2.obtain(CONNECTION)
    assert endpoint.forms[0]["audience"] == "https://api/?a=b&c"
    assert endpoint.forms[0]["empty"] == ""


def test_params_by_connection(endpoint: TokenEndpoint) -> None:
    """A function gives the parameters of each connection."""
    oauth2 = provider(endpoint, grant="client_credentials", params=lambda c: {"account": c.attributes["account"]})
    for account in ("1", "2"):
        oauth2.obtain(Connection(account, CONNECTION.base_url, attributes={"account": account}))
    assert [form["account"] for form in endpoint.forms] == ["1", "2"]


def test_params_that_fail(endpoint: TokenEndpoint) -> None:
    """Whatever that function raises comes out, and the lease is given back."""
    oauth2 = provider(endpoint, grant="client_credentials", params=lambda c: {"grant_type": "password"})
    for _ in range(2):
        with pytest.raises(ValueError, match="cannot set grant_type"):
            oauth2.obtain(CONNECTION)
    assert oauth2.store.acquire(CONNECTION.id, "another", 1)


# What is refused at construction.

URL = "https://auth.example.com/token"
REFUSED: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {
    "relative URL": ("absolute", ("/token", "client"), {}),
    "another scheme": ("absolute", ("ftp://auth.example.com/token", "client"), {}),
    "user in the URL": ("user information", ("https://me:pw@auth.example.com/token", "client"), {}),
    "fragment": ("fragment", (URL + "#a", "client"), {}),
    "no URL": ("no URL", (None, "client"), {}),
    "no client": ("needs a client_id", (URL,), {}),
    "secret without client": ("needs a client_id", (URL, None, "secret"), {}),
    "unknown authentication": ("client_auth is one of", (URL, "client", "secret"), {"client_auth": "magic"}),
    "basic without secret": ("needs a client_secret", (URL, "client"), {"client_auth": "client_secret_basic"}),
    "post without secret": ("needs a client_secret", (URL, "client", ""), {"client_auth": "client_secret_post"}),
    "none with secret": ("no use for a client_secret", (URL, "client", "s"), {"client_auth": "none"}),
    "jwt without key": ("needs a private_key", (URL, "client"), {"client_auth": "private_key_jwt"}),
    "secret and key": ("no use for a client_secret", (URL, "client", "s"), {"private_key": private(RSA_KEY)}),
    "key id without key": ("needs a private_key", (URL, "client"), {"key_id": "1"}),
    "unknown grant": ("grant is", (URL, "client", "s"), {"grant": "password"}),
    "anonymous client credentials": ("needs a client_secret", (URL, "client"), {"grant": "client_credentials"}),
    "own parameter": ("cannot set scope", (URL, "client"), {"params": {"scope": "a"}}),
    "unknown algorithm": ("algorithm is one of", (URL, "client"), {"private_key": "-", "algorithm": "none"}),
    "symmetric algorithm": ("algorithm is one of", (URL, "client"), {"private_key": "-", "algorithm": "HS256"}),
}


@pytest.mark.parametrize(("message", "args", "options"), REFUSED.values(), ids=REFUSED.keys())
def test_bad_combinations(message: str, args: tuple[Any, ...], options: dict[str, Any]) -> None:
    """What cannot work is refused when the provider is made, in clear words."""
    with pytest.raises(ValueError, match=message):
        OAuth2(*args, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"transport": httpx.HTTPTransport},
        {"transport": httpx.AsyncHTTPTransport()},
        {"transport": httpx2.HTTPTransport},
        {"transport": httpx2.AsyncHTTPTransport()},
        {"transport": "http://127.0.0.1:3128"},
        {"transport": httpx.MockTransport(lambda _: httpx.Response(200)), "egress": EgressPolicy()},
        {"transport": httpx.MockTransport(lambda _: httpx.Response(200)), "ssl_context": ssl.create_default_context()},
        {"store": "sqlite:///tokens.db"},
        {"store": MemoryStore},
        {"params": {"number": 1}},
    ],
)
def test_wrong_types(options: dict[str, Any]) -> None:
    """What is of the wrong type, or beside what replaces it, is a TypeError."""
    with pytest.raises(TypeError, match="OAuth2"):
        OAuth2(URL, "client", **options)


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        ("-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----", "RS256"),
        ({"kty": "RSA", "d": "c2VjcmV0"}, "RS256"),
        ({"d": "c2VjcmV0"}, "RS256"),
        (private(RSA_KEY), "ES256"),
        (private(EC_KEYS["ES256"]), "RS256"),
        (private(EC_KEYS["ES256"]), "ES384"),
        (public(RSA_KEY), "RS256"),
    ],
)
def test_bad_keys(key: Any, algorithm: str) -> None:
    """A key that cannot sign is refused when the provider is made, and its content is not shown."""
    with pytest.raises(ValueError, match=f"no private key .* for {algorithm}") as failure:
        OAuth2(URL, "client", private_key=key, algorithm=algorithm)
    assert "c2VjcmV0" not in "".join(traceback.format_exception_only(failure.value))
    assert failure.value.__suppress_context__


def test_bad_lifetime() -> None:
    """An assertion has to live."""
    with pytest.raises(ValueError, match="lifetime"):
        JWTBearer("robot", URL, private(RSA_KEY), lifetime=0)


def test_reprs_hide_keys() -> None:
    """A grant does not show its key."""
    shown = repr(JWTBearer("robot", URL, private(RSA_KEY), claims={"scope": "canary"}))
    assert "PRIVATE" not in shown
    assert "canary" not in shown


# The way there.

each_library = pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])


@each_library
def test_given_transport(library: Any) -> None:
    """A given transport is used as it is, and meets one plain request without cookies or credentials of its own."""
    seen: list[Any] = []

    def answer(request: Any) -> Any:
        assert isinstance(request, library.Request)
        seen.append(request)
        return library.Response(200, content=json.dumps({"access_token": "new", "token_type": "bearer"}))

    oauth2 = OAuth2(URL + "?tenant=1", "client", "secret", transport=library.MockTransport(answer))
    oauth2.store.put(CONNECTION.id, Tokens("old", "refresh"))
    assert oauth2.refresh(CONNECTION, Credential.bearer("old")) == Credential.bearer("new")
    assert [(request.method, str(request.url)) for request in seen] == [("POST", URL + "?tenant=1")]
    assert seen[0].content == b"grant_type=refresh_token&refresh_token=refresh"
    assert sorted(seen[0].headers) == [
        *("accept", "accept-encoding", "authorization", "content-length", "content-type", "host", "user-agent")
    ]


@each_library
def test_transport_that_fails(caplog: pytest.LogCaptureFixture, library: Any) -> None:
    """Whatever a transport raises fails the refresh, and shows up with its type only."""

    def fail(request: Any) -> Any:
        raise RuntimeError(request.content.decode())

    oauth2 = OAuth2(URL, "client", "secret", transport=library.MockTransport(fail))
    oauth2.store.put(CONNECTION.id, Tokens("old", "canary"))
    with pytest.raises(RefreshFailed):
        oauth2.refresh(CONNECTION, Credential.bearer("old"))
    assert "no answer (RuntimeError)" in caplog.text
    assert "canary" not in caplog.text

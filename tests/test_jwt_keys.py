"""The keys of `jwt_bearer`: what it takes for one, and those that are fetched."""

import hmac
import json
import threading
from contextlib import suppress
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from proxy_middleware import access
from proxy_middleware._plugins import for_asgi
from proxy_middleware.access import jwt_bearer
from proxy_middleware.jwt import FRESH, PAUSE, _FetchedKeys
from tests.jwt_tokens import AUTHENTICATORS, EC_KEY, RSA_KEY, SECRET, caller, claims, encoded, jwk, pem, signed
from tests.upstreams import Exchange, ScriptedUpstream, response
from tests.wire import Fields

SMALL_RSA_KEY = rsa.generate_private_key(65537, 1024)


def private_pem(private: Any) -> str:
    """The private key in PEM."""
    data: bytes = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return data.decode()


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"secret": SECRET, "public_key": pem(EC_KEY)},
        {"secret": SECRET, "jwks": {"keys": [jwk("ES256", EC_KEY)]}},
        {"secret": ""},
        {"secret": SECRET[:31]},
        {"secret": pem(EC_KEY)},
        {"secret": pem(RSA_KEY).replace("\n", "\\n")},
        {"secret": RSA_KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)},
        {"secret": RSA_KEY.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)},
        {"secret": json.dumps(jwk("RS256", RSA_KEY))},
        {"public_key": SECRET},
        {"public_key": ""},
        {"public_key": pem(EC_KEY)[:60]},
        {"public_key": private_pem(EC_KEY)},
        {"public_key": pem(SMALL_RSA_KEY)},
        {"public_key": pem(ec.generate_private_key(ec.SECP256K1()))},
        {"public_key": pem(ed25519.Ed25519PrivateKey.generate())},
        {"public_key": "ключ"},
        {"jwks": {}},
        {"jwks": {"keys": []}},
        {"jwks": {"keys": {"kty": "RSA"}}},
        {"jwks": {"keys": [1, {}, {"kty": "oct", "k": encoded(SECRET.encode()).decode()}]}},
        {"jwks": {"keys": [jwk("RS256", SMALL_RSA_KEY)]}},
        {"jwks": {"keys": [jwk("RS256", RSA_KEY, use="enc")]}},
        {"jwks": {"keys": [jwk("RS256", RSA_KEY, alg="RSA-OAEP")]}},
        {"jwks": {"keys": [jwk("RS256", RSA_KEY, alg="ES256")]}},
        {"jwks": {"keys": [jwk("RS256", RSA_KEY, n=1)]}},
        {"jwks": {"keys": [jwt.get_algorithm_by_name("RS256").to_jwk(RSA_KEY, as_dict=True)]}},
        {"jwks": "keys.json"},
        {"jwks": "ftp://host/keys"},
        {"jwks": "https://user:password@host/keys"},
        {"jwks": "https://host:x/"},
        {"secret": SECRET, "leeway": -1},
        {"secret": SECRET, "leeway": float("nan")},
        {"secret": SECRET, "leeway": float("inf")},
    ],
)
def test_what_cannot_be_a_key(keys: dict[str, Any]) -> None:
    """No key, two, one of the wrong kind or one too short is a ValueError that does not show it."""
    with pytest.raises(ValueError, match="jwt_bearer") as caught:
        jwt_bearer(**keys)
    assert not any(str(value) in str(caught.value) for value in keys.values() if len(str(value)) > 20)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(("size", "known"), [(32, {"HS256"}), (48, {"HS256", "HS384"})])
def test_short_secret(size: int, known: set[str]) -> None:
    """A secret is used with no hash that is longer than it is (RFC 7518 section 3.2)."""
    authenticate, short = jwt_bearer(secret=SECRET[:size]), SECRET[:size].encode()
    for algorithm, name in (("HS256", "sha256"), ("HS384", "sha384"), ("HS512", "sha512")):
        text = b".".join(encoded(json.dumps(part).encode()) for part in ({"alg": algorithm}, claims()))
        token = text + b"." + encoded(hmac.digest(short, text, name))
        assert (caller(authenticate, token) is not None) == (algorithm in known)


def test_only_a_fetch_needs_a_thread() -> None:
    """The event loop itself calls an authenticator that has its key, and a thread one that may fetch it."""
    given = [AUTHENTICATORS[kind]() for kind in AUTHENTICATORS]
    assert all(for_asgi(authenticate) is authenticate for authenticate in given)
    fetching = jwt_bearer(jwks="https://issuer.example/keys")
    assert for_asgi(fetching) is not fetching


def test_other_names_of_the_module() -> None:
    """The module has no other lazy name."""
    with pytest.raises(AttributeError, match="jwt_beard"):
        access.jwt_beard  # noqa: B018


# Keys behind a URL


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def key_set(*kids: str, status: int = 200, fields: Fields = ()) -> bytes:
    """A response with the same key under these names."""
    return response(status, fields, json.dumps({"keys": [jwk("ES256", EC_KEY, kid=kid) for kid in kids]}).encode())


def named(kid: str) -> bytes:
    """A token that names its key."""
    return signed(EC_KEY, "ES256", kid)


def test_fetched_once(upstream: ScriptedUpstream) -> None:
    """The URL is asked when the first token comes, and not again for the next ones."""
    upstream.answer(key_set("1", "2"))
    authenticate = jwt_bearer(jwks=f"{upstream.url}/keys?x=1")
    assert upstream.requests == []
    for kid in ("1", "2", "1"):
        assert caller(authenticate, named(kid))["id"] == "alice"
    (seen,) = upstream.requests
    assert (seen.method, seen.target) == (b"GET", b"/keys?x=1")


def test_nothing_is_fetched_for_what_is_no_token(upstream: ScriptedUpstream) -> None:
    """What cannot be a token causes no request."""
    authenticate = jwt_bearer(jwks=upstream.url)
    assert [caller(authenticate, token) for token in (b"", b"a.b.c", b"\xff")] == [None] * 3
    assert upstream.requests == []


def test_unknown_name_is_looked_up_now_and_then(upstream: ScriptedUpstream) -> None:
    """A name that is not there causes a request, and the next one half a minute later."""
    upstream.answer(key_set("1"), key_set("1"), key_set("1", "2"))
    clock = Clock()
    keys = _FetchedKeys(upstream.url, clock)
    assert keys.find(named("1")) is not None
    for seconds, count in ((PAUSE - 1, 1), (1, 2), (PAUSE - 1, 2)):
        clock.now += seconds
        assert [keys.find(named("2")) for _ in range(3)] == [None] * 3
        assert len(upstream.requests) == count
    clock.now += 1
    assert keys.find(named("2")) is not None
    assert len(upstream.requests) == 3


def test_fetched_again_after_a_while(upstream: ScriptedUpstream) -> None:
    """After five minutes the set is fetched again, and a key that is gone from it counts no longer."""
    upstream.answer(key_set("1"), key_set("2"))
    clock = Clock()
    keys = _FetchedKeys(upstream.url, clock)
    assert keys.find(named("1")) is not None
    clock.now += FRESH - 1
    assert keys.find(named("1")) is not None
    clock.now += 1
    assert keys.find(named("1")) is None
    assert len(upstream.requests) == 2


BAD_ANSWERS = {
    "error": key_set("2", status=500),
    "redirect": key_set("2", status=302, fields=((b"Location", b"/elsewhere"),)),
    "no JSON": response(body=b"<html>"),
    "no UTF-8": response(body=b"\xff\xfe\xff"),
    "no set": response(body=b"[]"),
    "no keys": response(body=b'{"keys": []}'),
    "deep": response(body=b"[" * 50_000),
    "long": response(body=b" " * 1024 * 1024 + json.dumps({"keys": [jwk("ES256", EC_KEY, kid="1")]}).encode()),
    "cut": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\n{",
}


@pytest.mark.parametrize("answer", BAD_ANSWERS.values(), ids=list(BAD_ANSWERS))
def test_url_in_trouble(upstream: ScriptedUpstream, caplog: pytest.LogCaptureFixture, answer: bytes) -> None:
    """What was fetched last goes on being used, the log says so, and the URL is left in peace for half a minute."""
    upstream.answer(key_set("1"))
    clock = Clock()
    keys = _FetchedKeys(upstream.url, clock)
    assert keys.find(named("1")) is not None
    upstream.answer(answer)
    clock.now += FRESH
    for _ in range(3):
        assert keys.find(named("1")) is not None
    assert len(upstream.requests) == 2
    (record,) = (record for record in caplog.records if record.name == "proxy_middleware")
    assert (record.levelname, "127.0.0.1" in record.getMessage()) == ("WARNING", True)


def test_no_keys_at_all(upstream: ScriptedUpstream) -> None:
    """Before anything was fetched nobody can be judged, which is no fault of the caller's: it raises."""
    upstream.answer(response(503, reason=b"No"), key_set("1"))
    clock = Clock()
    keys = _FetchedKeys(upstream.url, clock)
    for _ in range(3):
        with pytest.raises(RuntimeError, match="could not be fetched"):
            keys.find(named("1"))
    assert len(upstream.requests) == 1
    clock.now += PAUSE
    assert keys.find(named("1")) is not None


def test_fork_during_a_fetch(upstream: ScriptedUpstream) -> None:
    """A fetch that was under way when the process was forked does not keep the new process waiting."""
    upstream.answer(key_set("1"))
    keys = _FetchedKeys(upstream.url)
    with keys._lock:
        keys.after_fork()
        assert keys.find(named("1")) is not None


def test_environment_is_not_asked(
    upstream: ScriptedUpstream, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy in the environment is not used."""
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port}")
    upstream.answer(key_set("1"))
    assert caller(jwt_bearer(jwks=upstream.url), named("1")) is not None


@pytest.mark.parametrize("odd", [{"kty": "oct"}, jwk("ES256", EC_KEY, kid="2", alg="none")])
def test_odd_member_is_passed_over(odd: dict[str, Any]) -> None:
    """A member that PyJWT stumbles over leaves the other keys of the set good."""
    authenticate = jwt_bearer(jwks={"keys": [odd, jwk("ES256", EC_KEY, kid="1")]})
    assert caller(authenticate, named("1")) is not None


def test_authorities_that_cannot_be_read(upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no descriptor is left for a fetch, what was fetched last goes on being used, and the pause holds."""
    upstream.answer(key_set("1"))
    clock, tried = Clock(), []
    keys = _FetchedKeys(upstream.url, clock)
    assert keys.find(named("1")) is not None

    def no_descriptor() -> None:
        tried.append(clock.now)
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("proxy_middleware.jwt.default_ssl_context", no_descriptor)
    clock.now += FRESH
    assert [keys.find(named("1")) is not None for _ in range(3)] == [True] * 3
    assert len(tried) == 1


def test_old_key_waits_for_nobody(upstream: ScriptedUpstream) -> None:
    """While another fetches, whoever names a key that is merely old is given it."""
    upstream.answer(key_set("1"))
    clock = Clock()
    keys = _FetchedKeys(upstream.url, clock)
    assert keys.find(named("1")) is not None
    clock.now += FRESH
    with keys._lock:
        assert keys.find(named("1")) is not None


def test_drip(upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that comes byte by byte is given up when the time is over."""
    monkeypatch.setattr("proxy_middleware.jwt.TIMEOUT", 0.3)
    given_up = threading.Event()

    @upstream.script
    def drip(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        with suppress(OSError):
            while not given_up.wait(0.05):
                exchange.send(b" ")

    try:
        with pytest.raises(RuntimeError, match="could not be fetched"):
            _FetchedKeys(upstream.url).find(named("1"))
    finally:
        given_up.set()

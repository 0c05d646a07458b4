"""The authenticator for JSON Web Tokens: whom it lets in, and everybody whom it does not."""

import hashlib
import hmac
import json
import logging
import time
from typing import Any

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy_middleware.access import jwt_bearer
from tests.jwt_tokens import (
    AUTHENTICATORS,
    EC_KEY,
    OTHER_EC_KEY,
    PRIVATE_KEYS,
    RSA_KEY,
    SECRET,
    caller,
    claims,
    encoded,
    jwk,
    pem,
    request,
    signed,
)

# Signatures


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_token_signed_with_the_secret(algorithm: str) -> None:
    """The caller is the claims, whichever hash the signer took."""
    token = signed(SECRET, algorithm, iss="key", name="Alice", fields={"a": 1})
    found = caller(jwt_bearer(secret=SECRET, issuer="key"), token)
    assert found == jwt.decode(token, options={"verify_signature": False})
    assert (found["id"], found["fields"]) == ("alice", {"a": 1})


def test_secret_as_bytes() -> None:
    """A text stands for its UTF-8 bytes."""
    assert caller(jwt_bearer(secret=SECRET.encode()), signed())["id"] == "alice"


@pytest.mark.parametrize("algorithm", PRIVATE_KEYS)
def test_token_signed_with_the_private_key(algorithm: str) -> None:
    """A public key in PEM, and the same one out of a JWK Set, verify what the private one signed."""
    private = PRIVATE_KEYS[algorithm]
    for authenticate in (
        jwt_bearer(public_key=pem(private)),
        jwt_bearer(public_key=pem(private).encode()),
        jwt_bearer(jwks={"keys": [jwk(algorithm, private)]}),
        jwt_bearer(jwks={"keys": [jwk(algorithm, private, alg=algorithm, use="sig", kid="1")]}),
    ):
        assert caller(authenticate, signed(private, algorithm))["id"] == "alice"


def test_wrong_key() -> None:
    """What another key signed is nobody's."""
    assert caller(jwt_bearer(secret=SECRET), signed(SECRET[::-1])) is None
    assert caller(jwt_bearer(public_key=pem(EC_KEY)), signed(OTHER_EC_KEY, "ES256")) is None
    assert caller(jwt_bearer(jwks={"keys": [jwk("ES256", EC_KEY)]}), signed(OTHER_EC_KEY, "ES256")) is None


def forged(algorithm: object, key: bytes = b"", **header: Any) -> bytes:
    """A token that says this algorithm and is signed with HMAC-SHA256 and these bytes, or not at all."""
    parts = ({"alg": algorithm, **header}, claims())
    text = b".".join(encoded(json.dumps(part).encode()) for part in parts)
    return text + b"." + (encoded(hmac.digest(key, text, hashlib.sha256)) if key else b"")


every_key = pytest.mark.parametrize("kind", AUTHENTICATORS)


@every_key
@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "", None, 1, [], {}, "HS1", "EdDSA"])
def test_no_algorithm(kind: str, algorithm: object) -> None:
    """An algorithm that is none, or none of the key's, is refused, with and without a signature."""
    authenticate = AUTHENTICATORS[kind]()
    assert caller(authenticate, forged(algorithm)) is None
    assert caller(authenticate, forged(algorithm, SECRET.encode())) is None


@pytest.mark.parametrize("kind", ["rsa", "ec", "jwks"])
@pytest.mark.parametrize("algorithm", ["HS256", "RS256", "ES256"])
def test_public_key_is_no_secret(kind: str, algorithm: str) -> None:
    """What is signed with the public key's own bytes is refused, whatever it says of itself."""
    for private in (RSA_KEY, EC_KEY):
        for data in (pem(private), pem(private).strip(), json.dumps(jwk("RS256", RSA_KEY))):
            assert caller(AUTHENTICATORS[kind](), forged(algorithm, data.encode())) is None


@pytest.mark.parametrize("kind", ["rsa", "jwks", "secret"])
def test_header_brings_no_key(kind: str) -> None:
    """A key in the token's own header, or a URL of one, counts for nothing."""
    header = {"jwk": jwk("ES256", OTHER_EC_KEY), "jku": "http://127.0.0.1:1/", "x5u": "http://127.0.0.1:1/"}
    token = jwt.encode(claims(), OTHER_EC_KEY, "ES256", header)
    assert caller(AUTHENTICATORS[kind](), token.encode()) is None


def test_key_with_an_algorithm_of_its_own() -> None:
    """A JWK that says what it is for verifies nothing else."""
    authenticate = jwt_bearer(jwks={"keys": [jwk("PS256", RSA_KEY, alg="PS256")]})
    assert caller(authenticate, signed(RSA_KEY, "PS256")) is not None
    assert caller(authenticate, signed(RSA_KEY, "RS256")) is None


def test_critical_header() -> None:
    """A header that has to be understood, and is not, is refused (RFC 7515 section 4.1.11)."""
    assert caller(jwt_bearer(secret=SECRET), forged("HS256", SECRET.encode(), crit=["x"], x=1)) is None


# Claims


@pytest.mark.parametrize(
    ("options", "members", "good"),
    [
        ({}, {"exp": int(time.time()) - 5}, False),
        ({"leeway": 600}, {"exp": int(time.time()) - 5}, True),
        ({}, {"exp": None}, False),
        ({"require_exp": False}, {"exp": None}, True),
        ({"require_exp": False}, {"exp": int(time.time()) - 5}, False),
        ({}, {"exp": "soon"}, False),
        ({"require_exp": False}, {"exp": [1]}, False),
        ({}, {"nbf": int(time.time()) + 600}, False),
        ({"leeway": 900}, {"nbf": int(time.time()) + 600}, True),
        ({}, {"nbf": {}}, False),
        ({}, {"iat": int(time.time()) + 600}, True),
        ({}, {"iss": "anyone"}, True),
        ({"issuer": "key"}, {"iss": "key"}, True),
        ({"issuer": "key"}, {}, False),
        ({"issuer": "key"}, {"iss": "ke"}, False),
        ({"issuer": ["a", "key"]}, {"iss": "key"}, True),
        ({"issuer": ["a", "key"]}, {"iss": "k"}, False),
        ({}, {"aud": "others"}, False),
        ({"audience": "us"}, {"aud": "us"}, True),
        ({"audience": "us"}, {"aud": ["others", "us"]}, True),
        ({"audience": "us"}, {"aud": "u"}, False),
        ({"audience": "us"}, {"aud": [["us"]]}, False),
        ({"audience": "us"}, {}, False),
        ({"audience": iter(["us", "we"])}, {"aud": "we"}, True),
        ({}, {"sub": 1}, False),
    ],
)
def test_claims(options: dict[str, Any], members: dict[str, Any], good: bool) -> None:
    """Expiry, start, issuer and audience are what is looked at, twice alike."""
    text = [encoded(json.dumps(part).encode()) for part in ({"alg": "HS256"}, claims(**members))]
    signature = hmac.digest(SECRET.encode(), b".".join(text), hashlib.sha256)
    authenticate = jwt_bearer(secret=SECRET, **options)
    for _ in range(2):
        assert (caller(authenticate, b".".join([*text, encoded(signature)])) is not None) == good


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "1e308", "9" * 400])
def test_numbers_out_of_this_world(number: str) -> None:
    """An expiry that is no point in time does not raise."""
    text = b".".join(encoded(part) for part in (b'{"alg":"HS256"}', f'{{"exp":{number},"nbf":{number}}}'.encode()))
    authenticate = jwt_bearer(secret=SECRET)
    assert caller(authenticate, text + b"." + encoded(hmac.digest(SECRET.encode(), text, hashlib.sha256))) is None


# Fields


def test_authorization_field() -> None:
    """The scheme is read without regard to case; no field, two of them, or another scheme is nobody."""
    authenticate, token = jwt_bearer(secret=SECRET), signed()
    assert authenticate(request(b"bearer  " + token + b" ")) is not None
    for fields in (
        (),
        (b"Bearer " + token, b"Bearer " + token),
        (b"Bearer " + token + b", Bearer " + token,),
        (b"Basic " + token,),
        (token,),
        (b"Bearer",),
        (b"Bearer ",),
    ):
        assert authenticate(request(*fields)) is None


@every_key
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_garbage(kind: str, data: st.DataObject) -> None:
    """No token makes it raise: any bytes, any header and claims, and a good token with a byte changed."""
    authenticate, good = AUTHENTICATORS[kind](), signed()
    json_text = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["alg", "kid", "b64"]), inner),
        max_leaves=4,
    ).map(lambda value: encoded(json.dumps(value).encode()))
    at = st.integers(0, len(good) - 2)
    token = data.draw(
        st.binary(max_size=60)
        | st.tuples(json_text, json_text, json_text).map(b".".join)
        | st.tuples(at, st.binary(max_size=2)).map(lambda cut: good[: cut[0]] + cut[1] + good[cut[0] + 1 :])
    )
    assert caller(authenticate, token) is None or token == good


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_deep_nesting(opening: bytes) -> None:
    """A header or claims of 50,000 lists in one another are refused."""
    deep = encoded(opening * 50_000)
    assert caller(jwt_bearer(secret=SECRET), b".".join((deep, deep, deep))) is None
    text = encoded(b'{"alg":"HS256"}') + b"." + deep
    signature = encoded(hmac.digest(SECRET.encode(), text, hashlib.sha256))
    assert caller(jwt_bearer(secret=SECRET), text + b"." + signature) is None


def test_log_is_silent_about_the_token(caplog: pytest.LogCaptureFixture) -> None:
    """Why a token is refused is for the debug log, without the token."""
    token = signed(exp=1, id="canary")
    with caplog.at_level(logging.DEBUG):
        assert caller(jwt_bearer(secret=SECRET), token) is None
    assert [record.levelname for record in caplog.records] == ["DEBUG"]
    assert "ExpiredSignatureError" in caplog.text
    assert not any(part in caplog.text for part in (token.decode(), "canary", SECRET))

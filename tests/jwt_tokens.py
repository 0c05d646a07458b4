"""Keys, and tokens signed with them, for the tests of `jwt_bearer`."""

import base64
import time
from collections.abc import Callable
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from proxy_middleware import Authenticator, ProxyRequest
from proxy_middleware.access import jwt_bearer

SECRET = "a5f7bb51f93a3e46adf2a24e69e679c1c60bfb66df92fa8a0ead5b6c8fc49302"  # 64 bytes
RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEYS = {
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "ES512": ec.generate_private_key(ec.SECP521R1()),
}
EC_KEY, OTHER_EC_KEY = EC_KEYS["ES256"], ec.generate_private_key(ec.SECP256R1())
PRIVATE_KEYS: dict[str, Any] = dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), RSA_KEY) | EC_KEYS


def pem(private: Any) -> str:
    """The public key in PEM."""
    data: bytes = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return data.decode()


def jwk(algorithm: str, private: Any, **members: Any) -> dict[str, Any]:
    """The public key as a JWK."""
    made = jwt.get_algorithm_by_name(algorithm).to_jwk(private.public_key(), as_dict=True)
    return {**made, **members}


def claims(**members: Any) -> dict[str, Any]:
    """Claims that are good for a minute; a member that is None is left out."""
    made = {"id": "alice", "exp": int(time.time()) + 60, **members}
    return {name: value for name, value in made.items() if value is not None}


def signed(key: Any = SECRET, algorithm: str = "HS256", kid: str | None = None, **members: Any) -> bytes:
    """A token with these claims."""
    return jwt.encode(claims(**members), key, algorithm, {"kid": kid} if kid else None).encode()


def request(*authorization: bytes) -> ProxyRequest:
    """A caller's request with these Authorization fields."""
    fields = [(b"accept", b"*/*"), *((b"authorization", value) for value in authorization)]
    return ProxyRequest("GET", "c", b"/", fields)


def caller(authenticate: Authenticator, token: bytes) -> Any:
    """Who shows this token."""
    return authenticate(request(b"Bearer " + token))


def encoded(value: bytes) -> bytes:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(value).rstrip(b"=")


AUTHENTICATORS: dict[str, Callable[[], Authenticator]] = {
    "secret": lambda: jwt_bearer(secret=SECRET),
    "rsa": lambda: jwt_bearer(public_key=pem(RSA_KEY)),
    "ec": lambda: jwt_bearer(public_key=pem(EC_KEY)),
    "jwks": lambda: jwt_bearer(jwks={"keys": [jwk("RS256", RSA_KEY, kid="1")]}),
}

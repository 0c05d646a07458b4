"""Callers who show a JSON Web Token (RFC 7519) as their bearer token; signatures and claims are PyJWT's work.

A key decides which algorithms it verifies, before any token is looked at (RFC 8725 section 3.1): a public key is never
taken for a secret, and `none` is no algorithm of any key.
"""

import json
import logging
import math
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from proxy_middleware._forks import tell_after_fork
from proxy_middleware.access import bearer_token
from proxy_middleware.errors import ProxyError
from proxy_middleware.models import EgressPolicy, ProxyRequest
from proxy_middleware.protocols import Authenticator, nonblocking
from proxy_middleware.upstream.dial import default_ssl_context
from proxy_middleware.upstream.httpx_egress import answer_of, one_call_transport
from proxy_middleware.upstream.httpx_library import own_library

try:
    import jwt
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from jwt.algorithms import HMACAlgorithm
except ImportError as error:
    raise ImportError('jwt_bearer needs the extra "jwt": pip install "proxy_middleware[jwt]"') from error

__all__ = ["jwt_bearer"]

_logger = logging.getLogger("proxy_middleware")

# Seconds: how old fetched keys may get before they are fetched again, and how long no other fetch is tried.
FRESH, PAUSE = 300.0, 30.0
TIMEOUT = 5.0
MAX_BODY = 1024 * 1024

_FIELDS = {"accept": "application/json", "accept-encoding": "identity", "user-agent": "proxy_middleware"}
# The URL is the application's own: an issuer may well be inside.
_ANYWHERE = EgressPolicy(allow=("0.0.0.0/0", "::/0"))

_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_RSA_BITS = 2048  # RFC 7518 section 3.3
_CURVES = {"secp256r1": ("ES256",), "secp384r1": ("ES384",), "secp521r1": ("ES512",)}


class _Key(NamedTuple):
    """A secret or a public key, and all that it verifies."""

    value: bytes | RSAPublicKey | EllipticCurvePublicKey
    algorithms: tuple[str, ...]


Keys = Mapping[str | None, _Key]  # by `kid`


def jwt_bearer(
    *,
    secret: str | bytes | None = None,
    public_key: str | bytes | None = None,
    jwks: Mapping[str, Any] | str | None = None,
    issuer: str | Collection[str] | None = None,
    audience: str | Collection[str] | None = None,
    leeway: float = 0,
    require_exp: bool = True,
) -> Authenticator:
    """An authenticator for `Authorization: Bearer {JWT}`. The caller is the token's claims, a dict.

    Exactly one of `secret`, `public_key` and `jwks` is given. What kind of key it is, and nothing that a token says,
    decides on the algorithms: HS256 for a secret, HS384 for one of 48 bytes or more, HS512 for one of 64; RS256, PS256
    and their kin with 384 and 512 for an RSA key; ES256, ES384 or ES512, by its curve, for an elliptic one.

    A token that is malformed, expired, not yet valid (`nbf`), meant for others (`aud`) or not signed with the key is
    nobody's, and the answer is a 401. So is one with an `aud` where no audience is given (RFC 7519 section 4.1.3).

    Args:
        secret: Shared with whoever signs, 32 bytes or more; text stands for its UTF-8 bytes.
        public_key: PEM of an RSA key of 2048 bits or more, or of one on P-256, P-384 or P-521.
        jwks: A JWK Set (RFC 7517): the document, or the URL that it is at. A URL is fetched when the first token comes,
            and again after five minutes, or when a token names a key (`kid`) that is not in it, but twice a minute at
            the most. What was fetched last goes on being used where the URL does not answer; where there is nothing
            yet, the authenticator raises, which is a 500. It waits for the fetch, so that ASGI calls it in a thread.
        issuer: What `iss` has to be, or several of which it has to be one. None does not look at it.
        audience: Who `aud` has to name, or several of whom it has to name one.
        leeway: Seconds by which the clocks may differ, for `exp` and `nbf`.
        require_exp: False accepts tokens without `exp`, which are good for ever; an `exp` that is there counts.

    Raises:
        ValueError: Not exactly one key is given, it is too short or of the wrong kind, or `leeway` is negative.
    """
    if sum(given is not None for given in (secret, public_key, jwks)) != 1:
        raise ValueError("jwt_bearer takes exactly one of secret, public_key and jwks")
    if not 0 <= leeway < math.inf:
        raise ValueError(f"jwt_bearer: leeway is a number of seconds, not {leeway!r}")
    expected: dict[str, Any] = {
        "issuer": _one_or_several(issuer),
        "audience": _one_or_several(audience),
        "leeway": leeway,
        # When a token was issued says nothing against it, and the issuer's clock may be ahead.
        "options": {"require": ["exp"] if require_exp else [], "verify_iat": False},
    }
    find = _finder(secret, public_key, jwks)

    def authenticate(request: ProxyRequest) -> object | None:
        token = bearer_token(request)
        return None if token is None else _claims(token, find, expected)

    return authenticate if isinstance(jwks, str) else nonblocking(authenticate)


def _claims(token: bytes, find: Callable[[bytes], _Key | None], expected: Mapping[str, Any]) -> dict[str, Any] | None:
    try:
        key = find(token)
        return None if key is None else jwt.decode(token, key.value, key.algorithms, **expected)
    # PyJWT's own, and what its parsers let through.
    except (jwt.PyJWTError, ValueError, TypeError, ArithmeticError, RecursionError) as error:
        _logger.debug("jwt_bearer refuses a token: %s", type(error).__name__)
        return None


def _one_or_several(value: str | Collection[str] | None) -> str | tuple[str, ...] | None:
    return value if value is None or isinstance(value, str) else tuple(value)


def _finder(
    secret: str | bytes | None, public_key: str | bytes | None, jwks: Mapping[str, Any] | str | None
) -> Callable[[bytes], _Key | None]:
    """What finds the key of a token."""
    if isinstance(jwks, str):
        return _FetchedKeys(jwks).find
    if jwks is not None:
        keys = _read_set(jwks)
        return lambda token: _pick(keys, _kid(token))
    key = _read_secret(secret) if secret is not None else _read_pem(public_key or b"")
    return lambda token: key


def _read_secret(secret: str | bytes) -> _Key:
    data = secret.encode("utf-8") if isinstance(secret, str) else bytes(secret)
    try:
        if b"-----BEGIN" in data:  # also where its line breaks were lost on the way through an environment variable
            raise jwt.InvalidKeyError
        HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(data)
    except jwt.InvalidKeyError:
        raise ValueError("jwt_bearer: secret is empty, or a key of another kind (PEM, DER, SSH, JWK)") from None
    # RFC 7518 section 3.2: a key is as long as the hash, or longer.
    algorithms = tuple(f"HS{8 * size}" for size in (32, 48, 64) if len(data) >= size)
    if not algorithms:
        raise ValueError("jwt_bearer: secret has to have 32 bytes or more (RFC 7518 section 3.2)")
    return _Key(data, algorithms)


def _read_pem(pem: str | bytes) -> _Key:
    try:
        key = _public(load_pem_public_key(pem.encode("ascii") if isinstance(pem, str) else pem))
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if key is None:
        raise ValueError(f"jwt_bearer: public_key is no RSA ({_RSA_BITS} bits) or EC (P-256, P-384, P-521) key in PEM")
    return key


def _public(key: object) -> _Key | None:
    if isinstance(key, RSAPublicKey) and key.key_size >= _RSA_BITS:
        return _Key(key, _RSA)
    if isinstance(key, EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return _Key(key, _CURVES[key.curve.name])
    return None


def _read_set(document: object) -> Keys:
    """The public keys of a JWK Set; members of other kinds, secrets among them, are passed over.

    Raises:
        ValueError: There is none.
    """
    members = document.get("keys") if isinstance(document, Mapping) else None
    keys: dict[str | None, _Key] = {}
    for member in members if isinstance(members, list | tuple) else ():
        if isinstance(member, Mapping) and (key := _read_jwk(dict(member))) is not None:
            kid = member.get("kid")
            keys.setdefault(kid if isinstance(kid, str) else None, key)
    if not keys:
        raise ValueError("jwt_bearer: jwks holds no public key for signatures (RSA or EC)")
    return keys


def _read_jwk(member: dict[str, Any]) -> _Key | None:
    if member.get("use", "sig") != "sig":
        return None
    try:
        key = _public(jwt.PyJWK(member).key)
    # The last two are of PyJWT's parsers: a member that is missing, the algorithm `none`.
    except (jwt.PyJWTError, ValueError, TypeError, LookupError, NotImplementedError):
        return None
    if key is None or "alg" not in member:
        return key
    return key._replace(algorithms=(member["alg"],)) if member["alg"] in key.algorithms else None


def _kid(token: bytes) -> str | None:
    """Which key the token names: nothing that is to be believed, but a place to look."""
    kid: str | None = jwt.get_unverified_header(token).get("kid")
    return kid


def _pick(keys: Keys, kid: str | None) -> _Key | None:
    """The key of this name; a token that names none fits a set of one."""
    if kid is None and len(keys) == 1:
        return next(iter(keys.values()))
    return keys.get(kid)


class _FetchedKeys:
    """The keys behind a URL. Whoever needs a fetch waits for it, and for that of another instead of a second one.

    Args:
        url: http or https.
        clock: Gives seconds.

    Raises:
        ValueError: That is no such URL.
    """

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._library = own_library()
        httpx = self._library.httpx
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL:
            parsed = httpx.URL()
        if parsed.scheme not in ("http", "https") or not parsed.host or parsed.userinfo:
            raise ValueError("jwt_bearer: jwks is an absolute http or https URL without user information")
        self._url = parsed
        self._clock = clock
        self._keys: Keys | None = None
        self._fetched = self._tried = -math.inf
        self._lock = threading.Lock()
        tell_after_fork(self)

    def after_fork(self) -> None:
        """A fetch that was under way stayed with the parent."""
        self._lock = threading.Lock()

    def find(self, token: bytes) -> _Key | None:
        """The key that a token names; None if there is no such key.

        Raises:
            RuntimeError: The URL has not given any keys yet.
        """
        kid = _kid(token)
        key = None if self._keys is None else _pick(self._keys, kid)
        if key is None or self._clock() - self._fetched >= FRESH:
            # Whose key is merely old does not wait for the fetch of another.
            self._renew(wait=key is None)
            key = _pick(self._current(), kid)
        return key

    def _current(self) -> Keys:
        if self._keys is None:
            raise RuntimeError("jwt_bearer: the JWK Set could not be fetched")
        return self._keys

    def _renew(self, wait: bool) -> None:
        lock = self._lock
        if not lock.acquire(blocking=wait):
            return
        try:
            if self._clock() - self._tried >= PAUSE:
                self._try()
        finally:
            lock.release()

    def _try(self) -> None:
        try:
            self._keys = _read_set(self._fetch())
            self._fetched = self._clock()
        except (self._library.httpx.HTTPError, ProxyError, OSError, ValueError, RecursionError) as error:
            _logger.warning("jwt_bearer: no JWK Set from %s: %s", self._url.host, type(error).__name__)
        finally:
            self._tried = self._clock()

    def _fetch(self) -> object:
        """The JSON document, by way of no proxy and no redirect, all of it within `TIMEOUT`."""
        deadline = time.monotonic() + TIMEOUT
        timeouts = dict.fromkeys(("connect", "read", "write", "pool"), TIMEOUT)
        request = self._library.httpx.Request("GET", self._url, headers=_FIELDS, extensions={"timeout": timeouts})
        with one_call_transport(self._library, _ANYWHERE, default_ssl_context(), deadline) as transport:
            status, body = answer_of(self._library, transport, request, MAX_BODY, deadline)
        if status != 200:
            raise ValueError(f"status {status}")
        if body is None:
            raise ValueError(f"longer than {MAX_BODY} bytes")
        return json.loads(body)

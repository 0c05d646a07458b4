"""Assertions that are signed with a private key: as a grant, or to say who a client is (RFC 7523)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

try:
    from authlib.oauth2.rfc7523.assertion import sign_jwt_bearer_assertion  # type: ignore[import-untyped]
    from joserfc.errors import JoseError
    from joserfc.jwk import ECKey, RSAKey
except ImportError as error:
    raise ImportError('OAuth2 needs the extra "oauth2": pip install "proxy_middleware[oauth2]"') from error

__all__ = ["JWTBearer", "PrivateKey", "SigningKey"]

PrivateKey = str | bytes | Mapping[str, Any]

# Seconds that a signed assertion is good for; several endpoints refuse more than five minutes.
LIFETIME = 300

_KEY_TYPES: dict[str, type[RSAKey | ECKey]] = {"RS": RSAKey, "PS": RSAKey, "ES": ECKey}
_ALGORITHMS = frozenset(kind + bits for kind in _KEY_TYPES for bits in ("256", "384", "512"))


class SigningKey:
    """A private key and how it signs.

    Args:
        private_key: PEM, or a JWK.
        algorithm: RS256, PS256, ES256, or their kin with 384 or 512 bits.
        key_id: Goes into the header as `kid`.

    Raises:
        ValueError: The key cannot be read, or does not fit the algorithm.
    """

    def __init__(self, private_key: PrivateKey, algorithm: str, key_id: str | None) -> None:
        if algorithm not in _ALGORITHMS:
            raise ValueError(f"algorithm is one of {', '.join(sorted(_ALGORITHMS))}, not {algorithm!r}")
        self._header = {"kid": key_id} if key_id else {}
        self.algorithm = algorithm
        try:
            data = private_key if isinstance(private_key, str | bytes) else dict(private_key)
            self.key = _KEY_TYPES[algorithm[:2]].import_key(data)
            sign_jwt_bearer_assertion(self.key, "", "", alg=algorithm)
        except (ValueError, TypeError, JoseError):
            # What these say may show parts of the key.
            raise ValueError(f"private_key is no private key (PEM or JWK) for {algorithm}") from None

    @property
    def header(self) -> dict[str, str]:
        """A new dict, since Authlib writes into it."""
        return dict(self._header)


@dataclass(frozen=True, slots=True)
class JWTBearer:
    """A grant by signed assertion instead of a user's consent (RFC 7523 section 2.1), such as a service account's.

    Attributes:
        issuer: `iss`: who signs.
        audience: `aud`: mostly the token endpoint's URL.
        private_key: PEM, or a JWK.
        subject: `sub`: whom the tokens are to stand for; None leaves it out.
        key_id: `kid`.
        algorithm: RS256, PS256, ES256, or their kin with 384 or 512 bits.
        claims: Further claims.
        lifetime: Seconds that each assertion is good for.

    Raises:
        ValueError: The key cannot be read or does not fit the algorithm, or the lifetime is not above zero.
    """

    issuer: str
    audience: str
    private_key: PrivateKey = field(repr=False)
    subject: str | None = field(default=None, kw_only=True)
    key_id: str | None = field(default=None, kw_only=True)
    algorithm: str = field(default="RS256", kw_only=True)
    claims: Mapping[str, Any] = field(default_factory=dict, kw_only=True, repr=False)
    lifetime: int = field(default=LIFETIME, kw_only=True)
    _signing: SigningKey = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.lifetime > 0:
            raise ValueError(f"JWTBearer.lifetime must be above zero, not {self.lifetime!r}")
        object.__setattr__(self, "_signing", SigningKey(self.private_key, self.algorithm, self.key_id))

    @classmethod
    def from_service_account(
        cls, info: Mapping[str, Any], *, scope: str | Sequence[str], subject: str | None = None
    ) -> "JWTBearer":
        """The grant of a Google service account; the token URL is its `token_uri`.

        Args:
            info: The content of the account's JSON key file.
            scope: What to ask for; a text separated by blanks, or a list.
            subject: The user to act for, with domain-wide delegation.

        Raises:
            ValueError: A member of `info` is missing, or its key cannot be read.
        """
        missing = [name for name in ("client_email", "private_key", "token_uri") if not info.get(name)]
        if missing:
            raise ValueError(f"JWTBearer.from_service_account: the key file has no {', '.join(missing)}")
        return cls(
            info["client_email"],
            info["token_uri"],
            info["private_key"],
            subject=subject,
            key_id=info.get("private_key_id"),
            claims={"scope": scope if isinstance(scope, str) else " ".join(scope)},
        )

    def assertion(self) -> str:
        """A new assertion, with an id (`jti`) of its own."""
        signed: str = sign_jwt_bearer_assertion(
            self._signing.key,
            self.issuer,
            self.audience,
            subject=self.subject,
            claims=dict(self.claims),
            header=self._signing.header,
            alg=self._signing.algorithm,
            expires_in=self.lifetime,
        )
        return signed

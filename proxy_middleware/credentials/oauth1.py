"""OAuth 1.0 (RFC 5849): requests signed with a client's and a token's secrets; the encoding is Authlib's."""

import base64
import hmac
from collections.abc import Callable
from typing import Literal, get_args
from urllib.parse import unquote_to_bytes

from proxy_middleware._credential import Credential, Pair
from proxy_middleware.errors import InvalidRequest
from proxy_middleware.models import Connection, UpstreamRequest, first_value
from proxy_middleware.protocols import nonblocking

try:
    from authlib.oauth1.rfc5849.client_auth import generate_nonce, generate_timestamp  # type: ignore[import-untyped]
    from authlib.oauth1.rfc5849.parameters import prepare_headers  # type: ignore[import-untyped]
    from authlib.oauth1.rfc5849.signature import normalize_parameters, plaintext_signature  # type: ignore[import-untyped]
    from authlib.oauth1.rfc5849.util import escape  # type: ignore[import-untyped]
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.hashes import SHA1
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
except ImportError as error:
    raise ImportError('OAuth1 needs the extra "oauth1": pip install "proxy_middleware[oauth1]"') from error

__all__ = ["OAuth1"]

SignatureMethod = Literal["HMAC-SHA1", "HMAC-SHA256", "RSA-SHA1", "PLAINTEXT"]
# From the text that is signed to the signature.
Sign = Callable[[str], str]


class OAuth1:
    """Signs requests in the Authorization field (RFC 5849 section 3.5.1). Tokens of OAuth 1.0 do not expire.

    Signed are the method, the URL, its query, and the body where it is a form; the body stays as it is. A form has to
    be collected for that, and may be no longer than the replay limits; other bodies pass as they come. A caller that
    sends protocol parameters of its own (`oauth_signature` and its like) in query or form gets a 400.

    Args:
        client_key: The client's identifier, also called consumer key.
        client_secret: The client's shared secret, or its private RSA key as PEM for `RSA-SHA1`.
        token: The token that stands for the account; None for requests that are the client's own.
        token_secret: The token's shared secret.
        signature_method: `HMAC-SHA1`, `RSA-SHA1` or `PLAINTEXT` (RFC 5849 section 3.4), or `HMAC-SHA256`, which some
            APIs ask for. `PLAINTEXT` sends the secrets themselves: over https only.
        realm: The protection realm, where the API asks for one.

    Raises:
        ValueError: The key is empty, the method unknown, the private key unreadable, or the realm needs quoting.
        ImportError: The extra "oauth1" is not installed.
    """

    def __init__(
        self,
        client_key: str,
        client_secret: str,
        token: str | None = None,
        token_secret: str | None = None,
        *,
        signature_method: SignatureMethod = "HMAC-SHA1",
        realm: str | None = None,
    ) -> None:
        if not client_key:
            raise ValueError("OAuth1: client_key cannot be empty")
        if signature_method not in get_args(SignatureMethod):
            methods = ", ".join(get_args(SignatureMethod))
            raise ValueError(f"OAuth1: signature_method is one of {methods}, not {signature_method!r}")
        if realm is not None and ('"' in realm or "\\" in realm):
            raise ValueError("OAuth1: realm cannot have quotes or backslashes")
        self._known = [("oauth_consumer_key", client_key), ("oauth_signature_method", signature_method)]
        self._known += [("oauth_token", token)] if token else []
        self._signature = _signature(signature_method, client_secret, token_secret)
        self._covers_form = signature_method != "PLAINTEXT"
        self._realm = realm
        self._credential = Credential.signed(self._sign, needs_body=self._needs_body)

    @nonblocking
    def obtain(self, connection: Connection) -> Credential:
        """The credential that signs."""
        return self._credential

    def _needs_body(self, request: UpstreamRequest) -> bool:
        # RFC 5849 section 3.4.1.3.1: only forms are signed.
        media_type = (first_value(request.fields, "content-type") or "").partition(";")[0]
        return self._covers_form and media_type.strip().lower() == "application/x-www-form-urlencoded"

    def _sign(self, request: UpstreamRequest) -> list[Pair]:
        protocol = [*self._known, ("oauth_timestamp", generate_timestamp()), ("oauth_nonce", generate_nonce())]
        protocol.append(("oauth_version", "1.0"))
        url, _, query = request.url.partition("?")
        given = _parameters(query.encode())
        if self._needs_body(request):
            given += _parameters(request.body or b"")
        _check(given, {name.encode() for name, _ in protocol})
        # RFC 5849 section 3.4.1. Not Authlib's own: it decodes values twice that begin with "oauth_", and leaves out a
        # caller's "realm". The URL's host is in lower case already, and its port there only if it is not the default.
        text = "&".join(map(escape, (request.method.upper(), url, normalize_parameters([*protocol, *given]))))
        protocol.append(("oauth_signature", self._signature(text)))
        return [("authorization", prepare_headers(protocol, realm=self._realm)["Authorization"])]


def _parameters(encoded: bytes) -> list[tuple[bytes, bytes]]:
    """The decoded pairs of a query or form, in any spelling; bytes, since they need not be UTF-8."""
    pairs = [part.replace(b"+", b" ").partition(b"=") for part in encoded.split(b"&") if part]
    return [(unquote_to_bytes(name), unquote_to_bytes(value)) for name, _, value in pairs]


def _check(given: list[tuple[bytes, bytes]], protocol: set[bytes]) -> None:
    # RFC 5849 section 3.5: in one place only.
    if any(name in protocol or name == b"oauth_signature" for name, _ in given):
        raise InvalidRequest("The request has OAuth parameters of its own: the connection's are added here")


def _signature(method: str, client_secret: str, token_secret: str | None) -> Sign:
    if method == "RSA-SHA1":
        return _rsa_signature(client_secret)
    secrets: str = plaintext_signature(client_secret, token_secret)
    if method == "PLAINTEXT":
        return lambda text: secrets
    digest = method.removeprefix("HMAC-")
    return lambda text: base64.b64encode(hmac.digest(secrets.encode(), text.encode(), digest)).decode("ascii")


def _rsa_signature(private_key: str) -> Sign:
    try:
        key = load_pem_private_key(private_key.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # What these say may show parts of the key.
        raise ValueError("OAuth1: client_secret is no private key in PEM, or has a passphrase") from None
    if not isinstance(key, RSAPrivateKey):
        raise ValueError("OAuth1: client_secret is no RSA key")
    return lambda text: base64.b64encode(key.sign(text.encode(), PKCS1v15(), SHA1())).decode("ascii")  # noqa: S303

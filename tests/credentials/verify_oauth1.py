"""What a server does with an OAuth 1.0 signature, written from RFC 5849, on the standard library alone."""

import base64
import hmac
import re
import time

from tests.credentials.proxied import Sent

_PARAMETER = re.compile(r'([a-z_]+)="([^"]*)"')
_UNRESERVED = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
SKEW = 300


def protocol_parameters(sent: Sent) -> dict[str, str]:
    """The parameters in the Authorization field, decoded; the realm as it is (section 3.5.1)."""
    (authorization,) = sent.values(b"authorization")
    scheme, _, rest = authorization.decode().partition(" ")
    assert scheme == "OAuth"
    pairs = [_PARAMETER.fullmatch(item) for item in rest.split(", ")]
    assert all(pairs), authorization
    found = {pair[1]: _decode(pair[2].encode()).decode() for pair in pairs if pair}
    assert len(found) == len(pairs), "a parameter came twice"
    return found


def base_string(sent: Sent, scheme: str) -> bytes:
    """The text that is signed (section 3.4.1)."""
    path, _, query = sent.target.partition(b"?")
    (host,) = sent.values(b"host")
    default = {"http": b":80", "https": b":443"}[scheme]
    uri = scheme.encode() + b"://" + host.lower().removesuffix(default) + path
    pairs = [*_form(query), *_protocol(sent)]
    if any(value.lower().startswith(b"application/x-www-form-urlencoded") for value in sent.values(b"content-type")):
        pairs += _form(sent.body)
    joined = b"&".join(b"=".join(pair) for pair in sorted((_encode(name), _encode(value)) for name, value in pairs))
    return b"&".join(map(_encode, (sent.method.upper(), uri, joined)))


def verify(sent: Sent, *, scheme: str, client_secret: str, token_secret: str = "", now: float | None = None) -> None:
    """Checks a request with an HMAC or in plain text as the server does.

    Raises:
        AssertionError: The signature is wrong, or the time.
    """
    found = protocol_parameters(sent)
    key = _encode(client_secret.encode()) + b"&" + _encode(token_secret.encode())
    method = found["oauth_signature_method"]
    assert abs(int(found["oauth_timestamp"]) - (now or time.time())) < SKEW
    assert found.get("oauth_version", "1.0") == "1.0"
    if method == "PLAINTEXT":
        expected = key.decode()
    else:
        digest = {"HMAC-SHA1": "sha1", "HMAC-SHA256": "sha256"}[method]
        expected = base64.b64encode(hmac.digest(key, base_string(sent, scheme), digest)).decode()
    assert found["oauth_signature"] == expected, base_string(sent, scheme)


def _protocol(sent: Sent) -> list[tuple[bytes, bytes]]:
    """Section 3.4.1.3.1: all of them but the realm; and never the signature."""
    found = protocol_parameters(sent)
    return [(name.encode(), found[name].encode()) for name in found if name not in ("realm", "oauth_signature")]


def _form(encoded: bytes) -> list[tuple[bytes, bytes]]:
    pairs = [part.replace(b"+", b" ").partition(b"=") for part in encoded.split(b"&") if part]
    return [(_decode(name), _decode(value)) for name, _, value in pairs]


def _decode(text: bytes) -> bytes:
    return re.sub(rb"%([0-9A-Fa-f]{2})", lambda found: bytes([int(found[1], 16)]), text)


def _encode(text: bytes) -> bytes:
    return b"".join(bytes([byte]) if byte in _UNRESERVED else b"%%%02X" % byte for byte in text)

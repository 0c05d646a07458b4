"""AWS Signature Version 4 over the request exactly as it is sent; the calculation is botocore's.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html, and for S3
https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
"""

import re
import time
from hashlib import sha256
from typing import Literal, get_args
from urllib.parse import quote, unquote_to_bytes, urlsplit

from proxy_middleware._credential import Credential, Pair
from proxy_middleware._fields import canonical
from proxy_middleware.credentials.expiry import AWS
from proxy_middleware.errors import InvalidRequest
from proxy_middleware.models import Connection, UpstreamRequest, first_value
from proxy_middleware.protocols import nonblocking

try:
    from botocore.auth import S3SigV4Auth, SigV4Auth  # type: ignore[import-untyped]
    from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]
    from botocore.credentials import Credentials  # type: ignore[import-untyped]
except ImportError as error:
    raise ImportError('AWSSigV4 needs the extra "aws": pip install "proxy_middleware[aws]"') from error

__all__ = ["AWSSigV4"]

Payload = Literal["auto", "signed", "unsigned"]

# Services that encode the path once only, as it is on the wire.
_S3 = frozenset({"s3", "s3-object-lambda", "s3-outposts", "s3express"})
_UNSIGNED = "UNSIGNED-PAYLOAD"
_UNSIGNED_CHUNKS = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_TOKEN = b"x-amz-security-token"
_OURS = frozenset({b"x-amz-content-sha256", b"x-amz-date", _TOKEN})
# The marks of a presigned URL. With them and an Authorization, S3 answers "Only one auth mechanism allowed".
_PRESIGNED = frozenset(
    b"x-amz-algorithm x-amz-credential x-amz-date x-amz-expires x-amz-security-token x-amz-signature "
    b"x-amz-signedheaders".split()
)


class AWSSigV4:
    """Signs requests to AWS, and to what speaks its protocol, with one pair of keys. Keys are not refreshed.

    Signed are Host, Content-Type and the caller's `X-Amz-*` fields: nothing that a hop on the way may change. The
    caller's own signature, date and session token are replaced; a presigned URL is refused with a 400, since AWS takes
    one signature only. Where S3 is meant, a `+` in the path is a plus sign: clients spell it `%2B`.

    A caller's `X-Amz-Content-SHA256` is kept where it is the body's SHA-256, or `STREAMING-UNSIGNED-PAYLOAD-TRAILER`
    (the chunks that AWS's SDKs upload in); such bodies pass as they come. Chunks that are signed themselves are refused
    with a 400: they were signed with other keys.

    Args:
        region: Such as `"eu-central-1"`.
        service: Its name in signatures: `"s3"`, `"dynamodb"`, `"execute-api"`.
        access_key: The access key id.
        secret_key: The secret access key.
        session_token: What comes with temporary keys.
        payload: `"signed"`: the signature covers the body, so that it is collected before it is sent, and may be no
            longer than the replay limits, unless the caller gave its SHA-256. `"unsigned"`: it does not, and bodies
            pass as they come. `"auto"`: unsigned for S3 over https, else signed, which all other services insist on.

    Attributes:
        is_rejected: A 401, or one of AWS's ways to say that temporary keys have expired.

    Raises:
        ValueError: An argument is empty, or `payload` none of the three.
        ImportError: The extra "aws" is not installed.
    """

    is_rejected = AWS

    def __init__(
        self,
        region: str,
        service: str,
        access_key: str,
        secret_key: str,
        session_token: str | None = None,
        *,
        payload: Payload = "auto",
    ) -> None:
        if not (region and service and access_key and secret_key):
            raise ValueError("AWSSigV4: region, service, access_key and secret_key cannot be empty")
        if payload not in get_args(Payload):
            raise ValueError(f"AWSSigV4: payload is one of {', '.join(get_args(Payload))}, not {payload!r}")
        self._is_s3 = service in _S3
        self._payload = payload
        self._session_token = session_token or None
        kind = S3SigV4Auth if self._is_s3 else SigV4Auth
        self._signer = kind(Credentials(access_key, secret_key, session_token), service, region)
        self._credential = Credential.signed(self._sign, needs_body=self._needs_body)

    @nonblocking
    def obtain(self, connection: Connection) -> Credential:
        """The credential that signs."""
        return self._credential

    def _needs_body(self, request: UpstreamRequest) -> bool:
        return self._stated_payload(request) is None

    def _stated_payload(self, request: UpstreamRequest) -> str | None:
        """What X-Amz-Content-SHA256 says; None if it is the SHA-256 of a body that has to be read for it."""
        given = first_value(request.fields, "x-amz-content-sha256") or ""
        if given == _UNSIGNED_CHUNKS:
            return given
        if given.startswith("STREAMING-"):
            raise InvalidRequest(
                f"The chunks are signed with keys that are not the connection's; use {_UNSIGNED_CHUNKS}"
            )
        if self._payload == "unsigned":
            return _UNSIGNED
        if _DIGEST.fullmatch(given):
            return given
        return _UNSIGNED if self._payload == "auto" and self._is_s3 and request.url.startswith("https:") else None

    def _sign(self, request: UpstreamRequest) -> list[Pair]:
        # Not botocore's add_auth, which logs what it signs, session token and all.
        ours = self._fields(request)
        signed = AWSRequest(request.method, self._canonical_url(request.url))
        signed.context["timestamp"] = ours["x-amz-date"]
        for name, value in [*_signed_fields(request), *ours.items()]:
            signed.headers[name] = value  # Adds, and keeps what there is of the name.
        text = self._signer.string_to_sign(signed, self._signer.canonical_request(signed))
        pairs: list[Pair] = [*ours.items(), ("authorization", self._authorization(signed, text))]
        if self._session_token is None and any(canonical(name) == _TOKEN for name, _ in request.fields):
            pairs.append((_TOKEN, None))
        return pairs

    def _fields(self, request: UpstreamRequest) -> dict[str, str]:
        fields = {
            "x-amz-date": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()),
            "x-amz-content-sha256": self._stated_payload(request) or sha256(request.body or b"").hexdigest(),
        }
        if self._session_token is not None:
            fields["x-amz-security-token"] = self._session_token
        return fields

    def _canonical_url(self, url: str) -> str:
        """The URL as AWS reads it: percent-encoded anew, in the one way that counts."""
        scheme, authority, path, query, _ = urlsplit(url)
        if self._is_s3:
            path = quote(unquote_to_bytes(path), safe="/")
        # The path for other services is the wire's, which botocore encodes once more.
        return f"{scheme}://{authority}{path}?{_canonical_query(query)}"

    def _authorization(self, signed: AWSRequest, text: str) -> str:
        names = self._signer.signed_headers(self._signer.headers_to_sign(signed))
        signature = self._signer.signature(text, signed)
        return f"AWS4-HMAC-SHA256 Credential={self._signer.scope(signed)}, SignedHeaders={names}, Signature={signature}"


def _signed_fields(request: UpstreamRequest) -> list[tuple[str, str]]:
    fields = [(name.lower(), value) for name, value in request.fields]
    try:
        return [
            (name.decode(), value.decode())
            for name, value in fields
            if name in (b"host", b"content-type") or (name.startswith(b"x-amz-") and canonical(name) not in _OURS)
        ]
    except UnicodeDecodeError:
        raise InvalidRequest("A field that has to be signed is not UTF-8") from None


def _canonical_query(query: str) -> str:
    """Each name and value encoded anew, with an `=` in between; botocore sorts them.

    Raises:
        InvalidRequest: The URL is presigned.
    """
    pairs = [tuple(map(_decoded, part.partition("=")[::2])) for part in query.split("&") if part]
    if any(name.lower() in _PRESIGNED for name, _ in pairs):
        raise InvalidRequest("The URL is presigned: AWS would not take another signature beside that")
    return "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in pairs)


def _decoded(text: str) -> bytes:
    return unquote_to_bytes(text.replace("+", " "))

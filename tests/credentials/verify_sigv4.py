"""What AWS does with a signature, written from its documentation, on the standard library alone.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html and
https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
"""

import hashlib
import hmac
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from tests.credentials.proxied import Sent

_AUTHORIZATION = re.compile(
    rb"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/([^/]+)/aws4_request, ?"
    rb"SignedHeaders=([a-z0-9;-]+), ?Signature=([0-9a-f]{64})"
)
_UNRESERVED = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
SKEW = timedelta(minutes=5)


class SignatureDoesNotMatch(AssertionError):
    """AWS would answer 403; the message holds the canonical request, as AWS's own does."""


def verify(sent: Sent, secret_key: str, *, scope: tuple[str, str, str], dated: datetime | None = None) -> set[str]:
    """Checks a request as the service does; gives the names of the fields that are signed.

    Args:
        sent: The request.
        secret_key: The secret access key.
        scope: Access key, region and service that the signature must name.
        dated: When it came; now, if not given.

    Raises:
        SignatureDoesNotMatch: For any reason.
    """
    (authorization,) = sent.values(b"authorization")
    found = _AUTHORIZATION.fullmatch(authorization)
    if found is None:
        raise SignatureDoesNotMatch(authorization)
    access_key, day, region, service, listed, signature = found.groups()
    names = listed.split(b";")
    _check_names(sent, names)
    (date,) = sent.values(b"x-amz-date")
    when = datetime.strptime(date.decode(), "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    if abs((dated or datetime.now(UTC)) - when) > SKEW or not date.startswith(day):
        raise SignatureDoesNotMatch(f"dated {date!r}")
    if scope != (access_key.decode(), region.decode(), service.decode()):
        raise SignatureDoesNotMatch(f"for {found.groups()}, not for {scope}")
    canonical = _canonical_request(sent, names, service)
    lines = [b"AWS4-HMAC-SHA256", date, b"/".join([day, region, service, b"aws4_request"]), _hex(canonical)]
    key = b"AWS4" + secret_key.encode()
    for part in (day, region, service, b"aws4_request"):
        key = hmac.digest(key, part, "sha256")
    if hmac.digest(key, b"\n".join(lines), "sha256").hex().encode() != signature:
        raise SignatureDoesNotMatch(canonical.decode())
    return {name.decode() for name in names}


def _check_names(sent: Sent, names: Sequence[bytes]) -> None:
    required = {name.lower() for name, _ in sent.fields if name.lower().startswith(b"x-amz-")} | {b"host"}
    if not required <= set(names) or list(names) != sorted(names):
        raise SignatureDoesNotMatch(f"{required - set(names)} are not signed, or {names} are not sorted")


def _canonical_request(sent: Sent, names: Sequence[bytes], service: bytes) -> bytes:
    path, _, query = sent.target.partition(b"?")
    fields = [name + b":" + b",".join(_trimmed(value) for value in sent.values(name)) for name in names]
    parts = [sent.method, _canonical_path(path, service), _canonical_query(query), *fields, b""]
    return b"\n".join([*parts, b";".join(names), _payload(sent)])


def _canonical_path(path: bytes, service: bytes) -> bytes:
    if service == b"s3":
        return _encode(_decode(path), b"/")
    # All others: no empty segments, and encoded a second time.
    return re.sub(b"/+", b"/", _encode(path, b"/"))


def _canonical_query(query: bytes) -> bytes:
    pairs = [part.replace(b"+", b" ").partition(b"=") for part in query.split(b"&") if part]
    return b"&".join(
        b"=".join(pair) for pair in sorted((_encode(_decode(a)), _encode(_decode(b))) for a, _, b in pairs)
    )


def _payload(sent: Sent) -> bytes:
    stated = sent.values(b"x-amz-content-sha256")
    digest = hashlib.sha256(sent.body).hexdigest().encode()
    if not stated:
        return digest
    (payload,) = stated
    if payload not in (digest, b"UNSIGNED-PAYLOAD", b"STREAMING-UNSIGNED-PAYLOAD-TRAILER"):
        raise SignatureDoesNotMatch(f"XAmzContentSHA256Mismatch: {payload!r}")
    return payload


def _trimmed(value: bytes) -> bytes:
    return re.sub(b" +", b" ", value.strip())


def _decode(text: bytes) -> bytes:
    return re.sub(rb"%([0-9A-Fa-f]{2})", lambda found: bytes([int(found[1], 16)]), text)


def _encode(text: bytes, safe: bytes = b"") -> bytes:
    return b"".join(bytes([byte]) if byte in _UNRESERVED + safe else b"%%%02X" % byte for byte in text)


def _hex(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest().encode()

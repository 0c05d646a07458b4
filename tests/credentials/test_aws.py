"""AWS Signature Version 4, checked by a verifier that is itself checked by AWS's published examples."""

import hashlib
import logging
import ssl
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.session import get_session  # type: ignore[import-untyped]

from proxy_middleware import Connection, Replay, ResponseHead
from proxy_middleware.credentials.aws import AWSSigV4
from proxy_middleware.errors import InvalidRequest
from proxy_middleware.protocols import is_nonblocking
from tests.credentials.proxied import Sent, forwarded, proxied, received
from tests.credentials.verify_sigv4 import SignatureDoesNotMatch, verify
from tests.upstreams import ScriptedUpstream, response

KEYS = ("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
CHUNKS = b"STREAMING-UNSIGNED-PAYLOAD-TRAILER"
HTTP = Connection("c", "http://s3.example.com")


def signer(service: str = "s3", session_token: str | None = None, **options: Any) -> AWSSigV4:
    """A provider with these options."""
    return AWSSigV4("eu-central-1", service, *KEYS, session_token, **options)


def check(sent: Sent, service: str = "s3") -> set[str]:
    """Verifies a request of `signer`'s; the names of what is signed."""
    return verify(sent, KEYS[1], scope=(KEYS[0], "eu-central-1", service))


def payload_of(sent: Sent) -> bytes:
    """What the request says of its payload."""
    (value,) = sent.values(b"x-amz-content-sha256")
    return value


def digest(body: bytes) -> bytes:
    """A body's SHA-256 in hexadecimal."""
    return hashlib.sha256(body).hexdigest().encode()


# The verifier


def published(
    target: bytes, signed: str, signature: str, *, method: bytes = b"GET", body: bytes = b"", **fields: str
) -> Sent:
    """An example of the S3 documentation, as it is on the wire."""
    scope = "AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request"
    authorization = f"AWS4-HMAC-SHA256 Credential={scope},SignedHeaders={signed},Signature={signature}"
    given = {"x-amz-content-sha256": digest(body).decode(), "x-amz-date": "20130524T000000Z"}
    given |= {"host": "examplebucket.s3.amazonaws.com", "authorization": authorization}
    given |= {name.replace("_", "-"): value for name, value in fields.items()}
    return Sent(method, target, [(name.encode(), value.encode()) for name, value in given.items()], body)


USUAL = "host;x-amz-content-sha256;x-amz-date"
PUBLISHED = [
    published(
        b"/test.txt",
        "host;range;x-amz-content-sha256;x-amz-date",
        "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        range="bytes=0-9",
    ),
    published(
        b"/test$file.text",
        "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
        "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        method=b"PUT",
        body=b"Welcome to Amazon S3.",
        date="Fri, 24 May 2013 00:00:00 GMT",
        x_amz_storage_class="REDUCED_REDUNDANCY",
    ),
    published(b"/?lifecycle", USUAL, "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
    published(b"/?max-keys=2&prefix=J", USUAL, "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
]


@pytest.mark.parametrize("example", PUBLISHED, ids=lambda example: example.target.decode())
def test_published_examples(example: Sent) -> None:
    """The verifier takes the examples of the S3 documentation, and none of them with a bit changed."""
    secret, scope = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", ("AKIAIOSFODNN7EXAMPLE", "us-east-1", "s3")
    when = datetime(2013, 5, 24, tzinfo=UTC)
    assert verify(example, secret, scope=scope, dated=when)
    with pytest.raises(SignatureDoesNotMatch):
        verify(example._replace(target=example.target + b"x"), secret, scope=scope, dated=when)


# URL and fields

TARGETS = [
    b"/",
    b"/bucket/key",
    b"/bucket/a%20b%2Bc%c3%a9",
    b"/bucket/a$b(c)'d;e=f,g:h@i!j*",
    b"/bucket//double///",
    b"/bucket/a%2Fb/%252e",
    b"/~user/-._~",
    b"/x?a",
    b"/x?a=",
    b"/x?a=&b",
    b"/x?x=1&x=2&x=1",
    b"/x?b=2&a=1&A=0",
    b"/x?q=a+b&q=a%20b&q=a%2Bb",
    b"/x?list-type=2&prefix=a/b&delimiter=/",
    b"/x?filter[a]=it's|this&t=~",
    b"/x?n%41me=%c3%a9%ff",
    b"/x?&&a=1&",
    b"/x?a=b=c",
    b"/x?",
]


@pytest.mark.parametrize("service", ["s3", "execute-api"])
@pytest.mark.parametrize("target", TARGETS)
def test_targets(target: bytes, service: str) -> None:
    """Whatever the path and query, they go out byte for byte, and the signature is the one that AWS computes."""
    sent, _ = forwarded(signer(service), "GET", target)
    assert sent.target == target
    check(sent, service)


def test_signed_fields() -> None:
    """Only Host, Content-Type and X-Amz-* are signed, all of a name's in order; what a hop may change is not."""
    given = [
        (b"content-type", b"text/plain"),
        (b"x-amz-meta-tag", b"  one   two "),
        (b"user-agent", b"me"),
        (b"x-amz-meta-tag", b"three"),
        (b"accept-encoding", b"gzip"),
        (b"X-Amz-ACL", b"private"),
        (b"x-amz-meta-name", "Zoë".encode()),
        (b"date", b"Fri, 24 May 2013 00:00:00 GMT"),
        (b"range", b"bytes=0-9"),
    ]
    sent, _ = forwarded(signer(), "PUT", b"/b/k", *given, body=b"content")
    ours = {"x-amz-content-sha256", "x-amz-date"}
    assert check(sent) == {"host", "content-type", "x-amz-meta-tag", "x-amz-acl", "x-amz-meta-name"} | ours
    assert [pair for pair in given if pair in sent.fields] == given


def test_field_that_is_no_text() -> None:
    """A field that would have to be signed, but is not UTF-8, is a 400."""
    with pytest.raises(InvalidRequest, match="UTF-8"):
        forwarded(signer(), "GET", b"/", (b"x-amz-meta-name", b"\xff"))


def test_callers_own_signature_is_replaced() -> None:
    """A caller's SDK signs with keys that do not count: its date, hash and session token do not stay."""
    given = [
        (b"x-amz-date", b"20130524T000000Z"),
        (b"X-Amz-Security-Token", b"theirs"),
        (b"x-amz-content-sha256", b"UNSIGNED-PAYLOAD"),
        (b"x_amz_date", b"20130524T000000Z"),
        (b"authorization", b"AWS4-HMAC-SHA256 theirs"),
    ]
    sent, _ = forwarded(signer("dynamodb", "ours"), "POST", b"/", *given, body=b"{}")
    assert "x-amz-security-token" in check(sent, "dynamodb")
    assert sent.values(b"x-amz-security-token") == [b"ours"]
    assert payload_of(sent) == digest(b"{}")
    assert not sent.values(b"x_amz_date")


def test_callers_session_token_goes() -> None:
    """A caller's session token does not go upstream with keys that have none."""
    sent, _ = forwarded(signer(), "GET", b"/", (b"X-Amz-Security-Token", b"theirs"))
    assert check(sent) == {"host", "x-amz-content-sha256", "x-amz-date"}
    assert not sent.values(b"x-amz-security-token")


@pytest.mark.parametrize("name", [b"X-Amz-Signature", b"x-amz-credential", b"X%2DAmz-Algorithm"])
def test_presigned_urls(name: bytes) -> None:
    """A presigned URL is a 400: AWS takes one signature only."""
    with pytest.raises(InvalidRequest, match="presigned"):
        forwarded(signer(), "GET", b"/b/k?" + name + b"=x")


# Payloads


@pytest.mark.parametrize(
    ("service", "connection", "options", "payload", "collected"),
    [
        ("s3", "https", {}, b"UNSIGNED-PAYLOAD", False),
        ("s3", "http", {}, digest(b"content"), True),
        ("s3", "https", {"payload": "signed"}, digest(b"content"), True),
        ("s3", "http", {"payload": "unsigned"}, b"UNSIGNED-PAYLOAD", False),
        ("dynamodb", "https", {}, digest(b"content"), True),
        ("vpc-lattice-svcs", "https", {"payload": "unsigned"}, b"UNSIGNED-PAYLOAD", False),
    ],
)
def test_payloads(service: str, connection: str, options: Any, payload: bytes, collected: bool) -> None:
    """The body is hashed, and read for that, where the service insists on it, or no TLS protects it."""
    there = Connection("c", f"{connection}://s3.example.com")
    sent, read = forwarded(signer(service, **options), "PUT", b"/b/k", body=b"content", connection=there)
    check(sent, service)
    assert (payload_of(sent), read) == (payload, collected)


@pytest.mark.parametrize("options", [{}, {"payload": "signed"}])
@pytest.mark.parametrize("service", ["s3", "dynamodb"])
def test_callers_digest_is_kept(service: str, options: Any) -> None:
    """A caller that says what its body's SHA-256 is spares the proxy from reading it; AWS compares."""
    given = (b"x-amz-content-sha256", digest(b"content"))
    sent, read = forwarded(signer(service, **options), "PUT", b"/b/k", given, body=b"content")
    check(sent, service)
    assert (payload_of(sent), read) == (digest(b"content"), False)


@pytest.mark.parametrize("payload", ["auto", "signed", "unsigned"])
def test_unsigned_chunks(payload: Any) -> None:
    """The chunks with a checksum that AWS's SDKs upload in pass as they come, and are announced as what they are."""
    given = [
        (b"x-amz-content-sha256", CHUNKS),
        (b"content-encoding", b"aws-chunked"),
        (b"x-amz-decoded-content-length", b"7"),
        (b"x-amz-trailer", b"x-amz-checksum-crc32"),
    ]
    body = b"7\r\ncontent\r\n0\r\nx-amz-checksum-crc32:SWuFzA==\r\n\r\n"
    sent, read = forwarded(signer(payload=payload), "PUT", b"/b/k", *given, body=body, connection=HTTP)
    assert {"x-amz-trailer", "x-amz-decoded-content-length"} <= check(sent)
    assert [pair for pair in given if pair in sent.fields] == given
    assert not read


@pytest.mark.parametrize("kind", ["PAYLOAD", "PAYLOAD-TRAILER"])
@pytest.mark.parametrize("payload", ["auto", "signed", "unsigned"])
def test_signed_chunks(kind: str, payload: Any) -> None:
    """Chunks that the caller signed with its own keys are a 400 that says what to send instead."""
    given = (b"x-amz-content-sha256", f"STREAMING-AWS4-HMAC-SHA256-{kind}".encode())
    with pytest.raises(InvalidRequest, match=CHUNKS.decode()):
        forwarded(signer(payload=payload), "PUT", b"/b/k", given, body=b"chunks")


# The rest


def test_through_a_server(upstream: ScriptedUpstream) -> None:
    """What arrives at the socket is signed: body, raw path, query, duplicate fields."""
    target, fields = "/b/a%20b$c//d?x=1&x=2&q=a+b", [("X-Amz-Meta-A", "1"), ("x-amz-meta-a", "2")]
    with proxied(upstream, signer()) as call:
        assert call("PUT", target, fields, b"content").status == 200
    sent = received(upstream)
    assert check(sent) == {"host", "x-amz-content-sha256", "x-amz-date", "x-amz-meta-a"}
    assert (sent.target, sent.body, payload_of(sent)) == (target.encode(), b"content", digest(b"content"))


def test_body_beyond_the_limits(upstream: ScriptedUpstream) -> None:
    """A body that has to be read for its signature, and is longer than the replay limits, is a 413."""
    with proxied(upstream, signer(), replay=Replay(memory=1000, disk=0)) as call:
        assert call("PUT", "/b/k", body=b"x" * 1001).status == 413
    assert not upstream.requests


def test_large_upload_over_tls(tls_upstream: ScriptedUpstream, trusting_context: ssl.SSLContext) -> None:
    """Over https a body of any length passes to S3."""
    body = b"x" * 1_000_000
    small = Replay(memory=1000, disk=0)
    with proxied(tls_upstream, signer(), replay=small, ssl_context=trusting_context) as call:
        assert call("PUT", "/b/k", body=body).status == 200
    sent = received(tls_upstream)
    check(sent)
    assert (payload_of(sent), sent.body) == (b"UNSIGNED-PAYLOAD", body)


def test_secrets_stay_out_of_logs(caplog: pytest.LogCaptureFixture) -> None:
    """The session token is not logged, although botocore logs what it signs."""
    caplog.set_level(logging.DEBUG)
    provider = signer("dynamodb", "session-token")
    forwarded(provider, "POST", b"/", body=b"{}")
    seen = caplog.text + repr(provider) + repr(provider.obtain(HTTP))
    assert "session-token" not in seen
    assert KEYS[1] not in seen


def test_one_credential() -> None:
    """The credential is made once, without waiting, and two providers' are not the same."""
    provider = signer()
    assert provider.obtain(HTTP) is provider.obtain(HTTP)
    assert provider.obtain(HTTP) != signer().obtain(HTTP)
    assert is_nonblocking(provider.obtain)


def test_expired_keys() -> None:
    """Temporary keys that have expired are told by S3's error as by a 401."""
    document = b"<Error><Code>ExpiredToken</Code></Error>"
    assert signer().is_rejected(HTTP, ResponseHead(401, ()))
    assert signer().is_rejected(HTTP, ResponseHead(400, ((b"content-type", b"application/xml"),), document))


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (("", "s3", *KEYS), {}),
        (("eu-central-1", "", *KEYS), {}),
        (("eu-central-1", "s3", "", KEYS[1]), {}),
        (("eu-central-1", "s3", KEYS[0], ""), {}),
        (("eu-central-1", "s3", *KEYS), {"payload": "streaming"}),
    ],
)
def test_bad_arguments(arguments: Sequence[Any], options: Any) -> None:
    """Empty names and keys, and an unknown way to sign the payload, are a ValueError without the keys in it."""
    with pytest.raises(ValueError, match="AWSSigV4") as raised:
        AWSSigV4(*arguments, **options)
    assert KEYS[1] not in str(raised.value)


def test_without_the_extra() -> None:
    """Without its library, importing the provider says which extra it needs."""
    code = "import sys; sys.modules['botocore'] = None; import proxy_middleware.credentials.aws"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert 'ImportError: AWSSigV4 needs the extra "aws": pip install "proxy_middleware[aws]"' in ran.stderr


def test_amazons_own_sdk(upstream: ScriptedUpstream) -> None:
    """An SDK that signs with keys of its own, temporary ones, works through the proxy with the connection's."""
    upstream.answer(response(200))
    with proxied(upstream, signer()) as call:
        keys = {"aws_access_key_id": "theirs", "aws_secret_access_key": "x", "aws_session_token": "x"}
        s3 = get_session().create_client("s3", "eu-central-1", endpoint_url=f"{call.url}/", **keys)
        s3.put_object(Bucket="bucket", Key="a b+c/é(1).txt", Body=b"content", Metadata={"tag": "x"})
    sent = received(upstream)
    assert {"x-amz-checksum-crc32", "x-amz-meta-tag"} <= check(sent)
    assert (sent.target, sent.body) == (b"/bucket/a%20b%2Bc/%C3%A9%281%29.txt", b"content")

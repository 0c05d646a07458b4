"""OAuth 1.0, checked by a verifier that is itself checked by the examples of RFC 5849."""

import base64
import subprocess
import sys
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from proxy_middleware import Connection, Replay
from proxy_middleware.credentials.oauth1 import OAuth1
from proxy_middleware.errors import InvalidRequest
from proxy_middleware.protocols import is_nonblocking
from tests.credentials.proxied import Sent, forwarded, proxied, received
from tests.credentials.verify_oauth1 import base_string, protocol_parameters, verify
from tests.upstreams import ScriptedUpstream

FORM = (b"content-type", b"application/x-www-form-urlencoded")


def signer(**options: Any) -> OAuth1:
    """A provider whose keys and secrets all need percent-encoding."""
    return OAuth1("key%2F&", "c/s+&%", "to/ken%25", "t s%2F", **options)


def check(sent: Sent, scheme: str = "https") -> None:
    """Verifies a request of `signer`'s."""
    verify(sent, scheme=scheme, client_secret="c/s+&%", token_secret="t s%2F")


# The verifier


CONSUMER = b'OAuth realm="Photos", oauth_consumer_key="dpf43f3p2l4k3l03", oauth_signature_method="HMAC-SHA1", '
TEMPORARY = CONSUMER + (
    b'oauth_timestamp="137131200", oauth_nonce="wIjqoS", oauth_callback="http%3A%2F%2Fprinter.example.com%2Fready", '
    b'oauth_signature="74KNZJeDHnMBp0EMJ9ZHt%2FXKycU%3D"'
)
PHOTOS = CONSUMER + (
    b'oauth_timestamp="137131202", oauth_nonce="chapoH", oauth_token="nnch734d00sl2jdk", '
    b'oauth_signature="MdpQcU8iPSUjWoN%2FUDMsK2sui9I%3D"'
)


@pytest.mark.parametrize(
    ("method", "scheme", "target", "authorization", "token_secret"),
    [
        (b"POST", "https", b"/initiate", TEMPORARY, ""),
        (b"GET", "http", b"/photos?file=vacation.jpg&size=original", PHOTOS, "pfkkdhi9sl3r4s00"),
    ],
)
def test_published_examples(method: bytes, scheme: str, target: bytes, authorization: bytes, token_secret: str) -> None:
    """The verifier takes the examples of RFC 5849 section 1.2, and none of them with another target."""
    secrets = {"client_secret": "kd94hf93k423kf44", "token_secret": token_secret}
    sent = Sent(method, target, [(b"host", b"photos.example.net"), (b"authorization", authorization)], b"")
    verify(sent, scheme=scheme, now=137131200, **secrets)
    with pytest.raises(AssertionError):
        verify(sent._replace(target=target + b"x"), scheme=scheme, now=137131200, **secrets)


def test_published_base_string() -> None:
    """The verifier makes the text of RFC 5849 section 3.4.1.1 out of its odd query and form."""
    authorization = (
        b'OAuth realm="Example", oauth_consumer_key="9djdj82h48djs9d2", oauth_token="kkk9d7dh3k39sjv7", '
        b'oauth_signature_method="HMAC-SHA1", oauth_timestamp="137131201", oauth_nonce="7d8f3e4a", '
        b'oauth_signature="bYT5CMsGcbgUdFHObYMEfcx6bsw%3D"'
    )
    fields = [(b"host", b"EXAMPLE.COM:80"), FORM, (b"authorization", authorization)]
    sent = Sent(b"POST", b"/request?b5=%3D%253D&a3=a&c%40=&a2=r%20b", fields, b"c2&a3=2+q")
    assert base_string(sent, "http") == (
        b"POST&http%3A%2F%2Fexample.com%2Frequest&a2%3Dr%2520b%26a3%3D2%2520q%26a3%3Da%26b5%3D%253D%25253D%26c%2540"
        b"%3D%26c2%3D%26oauth_consumer_key%3D9djdj82h48djs9d2%26oauth_nonce%3D7d8f3e4a%26oauth_signature_method%3D"
        b"HMAC-SHA1%26oauth_timestamp%3D137131201%26oauth_token%3Dkkk9d7dh3k39sjv7"
    )


# What is signed

TARGETS = [
    b"/",
    b"/a%2Fb;v=1;//c%20d",
    b"/x?a",
    b"/x?a=&b",
    b"/x?x=2&x=1&X=0",
    b"/x?q=a+b&r=a%20b&s=a%2Bb",
    b"/x?searchCriteria[filter_groups][0]=it's|so&$top=1",
    b"/x?realm=theirs&oauth_callback=a%252Fb",
    b"/x?n=%c3%a9%ff",
    b"/x?a=b=c&&d",
    b"/x?",
]


@pytest.mark.parametrize("method", ["HMAC-SHA1", "HMAC-SHA256", "PLAINTEXT"])
@pytest.mark.parametrize("target", TARGETS)
def test_targets(target: bytes, method: Any) -> None:
    """Whatever the path and query, they go out byte for byte, and the signature is the one that servers compute."""
    sent, _ = forwarded(signer(signature_method=method), "GET", target)
    assert sent.target == target
    check(sent)


def test_protocol_parameters() -> None:
    """Key, token, method and version are in the field, beside the realm; the nonce is a new one each time."""
    first, second = (protocol_parameters(forwarded(signer(realm="Photos"), "GET", b"/")[0]) for _ in range(2))
    ours = {"oauth_consumer_key": "key%2F&", "oauth_token": "to/ken%25", "oauth_signature_method": "HMAC-SHA1"}
    assert ours.items() <= first.items()
    assert (first["realm"], first["oauth_version"]) == ("Photos", "1.0")
    assert first["oauth_nonce"] != second["oauth_nonce"]


def test_without_a_token() -> None:
    """A request that is the client's own has no token, and an empty token secret."""
    sent, _ = forwarded(OAuth1("key", "secret"), "GET", b"/x?a=1")
    assert "oauth_token" not in protocol_parameters(sent)
    verify(sent, scheme="https", client_secret="secret")


@pytest.mark.parametrize("base_url", ["http://api.example.com", "https://api.example.com:8443", "http://[::1]"])
def test_origins(base_url: str) -> None:
    """The origin is signed as the Host field has it, without the default port."""
    sent, _ = forwarded(signer(), "GET", b"/x", connection=Connection("c", base_url))
    check(sent, base_url.partition(":")[0])


@pytest.mark.parametrize("body", [b"c2&a3=2+q", b"a=%ff&b=\xc3\xa9", b"realm=theirs", b"=&x", b"a=1&a=0"])
@pytest.mark.parametrize(
    "kind", [b"application/x-www-form-urlencoded", b"Application/X-WWW-Form-URLEncoded; charset=a"]
)
def test_forms(kind: bytes, body: bytes) -> None:
    """A form is read and signed with the query, and goes out as it came."""
    sent, read = forwarded(signer(), "POST", b"/x?a3=a", (b"content-type", kind), body=body)
    check(sent)
    assert read


@pytest.mark.parametrize("kind", [b"application/json", b"multipart/form-data; boundary=x", None])
def test_other_bodies(kind: bytes | None) -> None:
    """A body that is no form is neither read nor signed, also where it looks like one."""
    fields = [(b"content-type", kind)] if kind else []
    sent, read = forwarded(signer(), "POST", b"/x", *fields, body=b"a=1&b=2")
    check(sent)
    assert not read
    assert "oauth_body_hash" not in protocol_parameters(sent)


def test_plaintext_reads_nothing() -> None:
    """In plain text nothing is signed, so that a form is not read either."""
    _, read = forwarded(signer(signature_method="PLAINTEXT"), "POST", b"/x", FORM, body=b"a=1")
    assert not read


@pytest.mark.parametrize(
    ("target", "body"),
    [(b"/x?oauth_signature=theirs", b""), (b"/x?oauth%5Ftoken=theirs", b""), (b"/x", b"a=1&oauth_nonce=theirs")],
)
def test_callers_own_parameters(target: bytes, body: bytes) -> None:
    """A caller that signs by itself in query or form is a 400."""
    with pytest.raises(InvalidRequest, match="OAuth"):
        forwarded(signer(), "POST", target, FORM, body=body)


# RSA


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    """A private key."""
    return rsa.generate_private_key(65537, 2048)


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    """A private key as PEM."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def test_rsa(key: rsa.RSAPrivateKey) -> None:
    """RSA-SHA1 signs with the client's private key what the others sign with the secrets."""
    provider = OAuth1("key", pem(key), "token", signature_method="RSA-SHA1")
    sent, _ = forwarded(provider, "POST", b"/x?a3=a", FORM, body=b"c2&a3=2+q")
    signature = base64.b64decode(protocol_parameters(sent)["oauth_signature"])
    key.public_key().verify(signature, base_string(sent, "https"), padding.PKCS1v15(), SHA1())


@pytest.mark.parametrize("text", ["xyzzy", pem(ec.generate_private_key(ec.SECP256R1()))], ids=["text", "EC"])
def test_rsa_with_another_key(text: str) -> None:
    """What is no RSA key is a ValueError that does not show it."""
    with pytest.raises(ValueError, match="OAuth1: client_secret is no") as raised:
        OAuth1("key", text, signature_method="RSA-SHA1")
    assert text not in str(raised.value)
    assert raised.value.__suppress_context__ or raised.value.__context__ is None


# The rest


def test_through_a_server(upstream: ScriptedUpstream) -> None:
    """What arrives at the socket is signed: method, raw URL, and the form, which goes out as it came."""
    with proxied(upstream, signer()) as call:
        fields = [("Content-Type", "application/x-www-form-urlencoded")]
        assert call("POST", "/x?b5=%3D%253D&a3=a&c%40=&a2=r%20b", fields, b"c2&a3=2+q").status == 200
    sent = received(upstream)
    check(sent, "http")
    assert sent.body == b"c2&a3=2+q"


def test_large_upload(upstream: ScriptedUpstream) -> None:
    """A body that is no form may be longer than the replay limits; a form is a 413 then."""
    with proxied(upstream, signer(), replay=Replay(memory=1000, disk=0)) as call:
        assert call("POST", "/x", [("Content-Type", "text/csv")], b"x" * 100_000).status == 200
        check(received(upstream), "http")
        form = [("Content-Type", "application/x-www-form-urlencoded")]
        assert call("POST", "/x", form, b"x" * 1001).status == 413
    assert len(upstream.requests) == 1


def test_one_credential() -> None:
    """The credential is made once, without waiting, and shows no secret."""
    provider = signer()
    connection = Connection("c", "https://api.example.com")
    assert provider.obtain(connection) is provider.obtain(connection)
    assert is_nonblocking(provider.obtain)
    assert "c/s+&%" not in repr(provider) + repr(provider.obtain(connection))


@pytest.mark.parametrize(
    ("client_key", "options"),
    [("", {}), ("key", {"signature_method": "HMAC-MD5"}), ("key", {"realm": 'a"b'}), ("key", {"realm": "a\\b"})],
)
def test_bad_arguments(client_key: str, options: Any) -> None:
    """An empty key, an unknown method and a realm that needs quoting are a ValueError."""
    with pytest.raises(ValueError, match="OAuth1"):
        OAuth1(client_key, "secret", **options)


def test_without_the_extra() -> None:
    """Without its library, importing the provider says which extra it needs."""
    code = "import sys; sys.modules['authlib'] = None; import proxy_middleware.credentials.oauth1"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert 'ImportError: OAuth1 needs the extra "oauth1": pip install "proxy_middleware[oauth1]"' in ran.stderr

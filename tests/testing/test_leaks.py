"""Secrets are found wherever they get out, under every encoding, and not shown by who finds them."""

import base64
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html import escape
from http.cookies import SimpleCookie
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from werkzeug.wrappers import Response as WerkzeugResponse

from proxy_middleware import Connection, Credential
from proxy_middleware.testing import ExpiringCredentials, FakeUpstream, assert_no_credentials

SECRET = 's3cr&t"/+ key-ü'
log = logging.getLogger("application")


def found(caplog: pytest.LogCaptureFixture, *responses: Any, secret: Any = SECRET) -> str:
    """What is said about a secret that is found."""
    with pytest.raises(AssertionError) as caught:
        assert_no_credentials(caplog, *responses, secrets=[secret])
    assert SECRET not in str(caught.value)
    return str(caught.value)


ENCODINGS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "percent-encoded": lambda secret: quote(secret, safe=""),
    "percent-encoded twice": lambda secret: quote(quote(secret, safe=""), safe=""),
    "form-encoded": lambda secret: quote(secret, safe=" ").replace(" ", "+"),
    "escaped as JSON": lambda secret: json.dumps({"key": secret}).replace("/", "\\/"),
    "escaped as HTML": escape,
    "base64": lambda secret: base64.b64encode(secret.encode()).decode(),
    "base64 of a pair": lambda secret: "Basic " + base64.b64encode(f"user:{secret}".encode()).decode(),
    "base64 of a longer pair": lambda secret: base64.b64encode(f"user1:{secret}:x".encode()).decode(),
    "base64 for URLs, without padding": lambda s: base64.urlsafe_b64encode(f"ab:{s}".encode()).decode().rstrip("="),
    "base64 in lines": lambda secret: base64.encodebytes(f"{'x' * 50}{secret}{'y' * 90}".encode()).decode(),
    "percent-encoded base64": lambda secret: quote(base64.b64encode(secret.encode()).decode(), safe=""),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_encodings(encoding: str, caplog: pytest.LogCaptureFixture) -> None:
    """A secret is found in every encoding."""
    encoded = ENCODINGS[encoding](SECRET)
    assert "secrets[0] is in the response" in found(caplog, f"before {encoded} after")
    assert_no_credentials(caplog, f"before {ENCODINGS[encoding]('harmless text')} after", secrets=[SECRET])


def raising() -> None:
    """Logs an exception whose cause has the secret."""
    try:
        try:
            raise LookupError(SECRET)
        except LookupError as error:
            raise ValueError("harmless") from error
    except ValueError:
        log.exception("it failed")


@dataclass
class Record:
    """Something whose `repr` tells all."""

    token: str = SECRET


LOGGING: dict[str, tuple[Callable[[], None], str]] = {
    "message": (lambda: log.warning(f"token {SECRET}"), "message"),
    "argument": (lambda: log.warning("token %s", SECRET), "message"),
    "argument that is not shown": (lambda: log.warning("%(a)s", {"a": 1, "b": SECRET.encode()}), "arguments"),
    "argument that does not fit": (lambda: log.warning("token", SECRET), "arguments"),
    "extra": (lambda: log.warning("token", extra={"answer": {"of": [Record()]}}), "answer"),
    "exception": (raising, "exception"),
}


@pytest.fixture
def silent() -> Iterator[None]:
    """What the logging module itself says about arguments that do not fit is not shown."""
    usual, logging.raiseExceptions = logging.raiseExceptions, False
    yield
    logging.raiseExceptions = usual


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize("name", LOGGING)
def test_log(name: str) -> None:
    """A secret is found in message, arguments, exceptions and extra attributes of a record."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[assignment, method-assign]
    usual, log.propagate = log.propagate, False
    log.addHandler(handler)
    try:
        LOGGING[name][0]()
    finally:
        log.removeHandler(handler)
        log.propagate = usual
    with pytest.raises(AssertionError, match=rf"the log \(application, .*{LOGGING[name][1]}") as caught:
        assert_no_credentials(records, secrets=[SECRET])
    assert SECRET not in str(caught.value)


def test_caplog(caplog: pytest.LogCaptureFixture) -> None:
    """Records are those that pytest captured."""
    log.warning("token %s", "s3cret")
    assert "in the log (application, WARNING, test_leaks.py:" in found(caplog, secret="s3cret")


@dataclass
class Plain:
    """A response as of requests."""

    content: bytes = b""
    reason: str = "OK"
    headers: dict[str, str] = field(default_factory=dict)
    history: tuple[Any, ...] = ()


def test_responses(caplog: pytest.LogCaptureFixture) -> None:
    """A secret is found in status line, fields and body, of this response or a redirect before it."""
    secret = "s3cret"
    for response, where in (
        (Plain(b"s3cret"), "body"),
        (Plain(reason="No s3cret"), "status line"),
        (Plain(headers={"X-A": "s3cret"}), "field 'X-A'"),
        (Plain(headers={"X-s3cret": "1"}), "field"),
        (Plain(history=(Plain(b"s3cret"),)), "redirect 1 before the response: body"),
        (httpx.Response(200, headers=[("set-cookie", "a=s3cret")], text="fine"), "field 'set-cookie'"),
        (httpx.Response(200, extensions={"reason_phrase": b"s3cret"}), "status line"),
        (WerkzeugResponse("s3cret"), "body"),
        (b"HTTP/1.1 200 s3cret", "the response"),
    ):
        assert where in found(caplog, response, secret=secret)
    assert "response 2" in found(caplog, b"", b"s3cret", secret=secret)
    with pytest.raises(TypeError, match="SimpleNamespace, without `headers`"):
        assert_no_credentials(caplog, SimpleNamespace(), secrets=[secret])
    with pytest.raises(TypeError, match="without a body"):
        assert_no_credentials(caplog, SimpleNamespace(headers={}), secrets=[secret])


def test_cookies_beside_the_fields(caplog: pytest.LogCaptureFixture) -> None:
    """Django keeps cookies elsewhere until it sends them."""
    response = Plain()
    response.__dict__["cookies"] = SimpleCookie({"a": "s3cret"})
    assert "set-cookie" in found(caplog, response, secret="s3cret")
    assert_no_credentials(caplog, response, secrets=["another"])


@pytest.mark.parametrize(
    "credential",
    [
        Credential.bearer("s3cret"),
        Credential.header("X-Key", "s3cret"),
        Credential.basic("user", "s3cret"),
        Credential.query("key", "s3cret"),
        Credential.cookie("session", "s3cret"),
        Credential.combine(
            Credential.query("a", "other"), Credential.signed(lambda request: []), Credential.bearer("s3cret")
        ),
    ],
    ids=["bearer", "header", "basic", "query", "cookie", "combined"],
)
def test_credentials(credential: Credential, caplog: pytest.LogCaptureFixture) -> None:
    """The secret of a credential is what it injects, without scheme and user."""
    assert "secrets[0]" in found(caplog, "s3cret", secret=credential)
    assert_no_credentials(caplog, "user Bearer", secrets=[credential])


def test_nothing_to_look_for(caplog: pytest.LogCaptureFixture) -> None:
    """Without a secret, with one that is found anywhere, or hidden in a signer, the assertion would say nothing."""
    with pytest.raises(ValueError, match="knows no secret"):
        assert_no_credentials(caplog, b"")
    with pytest.raises(ValueError, match=r"secrets\[0\] is shorter than 4"):
        assert_no_credentials(caplog, b"", secrets=["abc"])
    with pytest.raises(ValueError, match="give its key instead"):
        assert_no_credentials(caplog, b"", secrets=[Credential.signed(lambda request: [])])


def test_knows_the_secrets_of_the_kit(caplog: pytest.LogCaptureFixture) -> None:
    """Issued tokens and demanded values are known, for as long as the test holds who knows them."""
    credentials, upstream = ExpiringCredentials(), FakeUpstream.demanding("Authorization", "Bearer demanded")
    credentials.obtain(Connection("a", "https://api.example.com"))
    assert_no_credentials(caplog, "Bearer")
    with pytest.raises(AssertionError, match="token 1 of ExpiringCredentials is in the response"):
        assert_no_credentials(caplog, "token-1")
    with pytest.raises(AssertionError, match="what the upstream demands in 'Authorization'"):
        assert_no_credentials(caplog, "demanded")
    del credentials, upstream

"""The fixtures and the lazy names, as a user's test suite has them."""

import subprocess
import sys
from pathlib import Path

import pytest

import proxy_middleware.testing
from tests.testing.subprocesses import run_pytest

CONFTEST = 'pytest_plugins = ["proxy_middleware.testing.fixtures"]\n'
TESTS = """
import pytest
from flask import Flask
from fastapi import FastAPI
from fastapi.testclient import TestClient

from proxy_middleware import ASGIProxyMiddleware, WSGIProxyMiddleware
from proxy_middleware.testing import Reply, assert_no_credentials

PATH = "/connections/fake/proxy/x"


@pytest.fixture(params=["flask", "fastapi"])
def get(request, fake_clock, proxy_settings):
    if request.param == "flask":
        app = Flask("host")
        app.wsgi_app = WSGIProxyMiddleware(app.wsgi_app, **proxy_settings)
        yield app.test_client().get
        app.wsgi_app.proxy.close()
    else:
        app = FastAPI()
        app.add_middleware(ASGIProxyMiddleware, **proxy_settings)
        with TestClient(app) as client:
            yield client.get


def test_refresh(get, fake_upstream, expiring_credentials, caplog):
    caplog.set_level("DEBUG")
    assert get(PATH).status_code == 200
    expiring_credentials.expire()
    response = get(PATH)
    assert response.status_code == 200
    sent = [request.header("authorization") for request in fake_upstream.requests]
    assert sent == ["Bearer token-1", "Bearer token-1", "Bearer token-2"]
    assert_no_credentials(caplog, response)


def test_expiry(get, expiring_credentials, fake_clock):
    expiring_credentials.lifetime = 600
    get(PATH)
    fake_clock.advance(580)
    get(PATH)
    assert expiring_credentials.refreshed == 1


def test_leak(get, fake_upstream, caplog):
    fake_upstream.answer(lambda request: Reply(200, request.header("authorization").encode()))
    assert_no_credentials(caplog, get(PATH))
"""


def test_fixtures_in_a_suite_of_its_own(tmp_path: Path) -> None:
    """A user's tests of a Flask and a FastAPI application pass, and the one that finds a leak fails."""
    outcome = run_pytest(tmp_path, {"conftest.py": CONFTEST, "test_app.py": TESTS}, "-W", "default")
    assert outcome.passed["test_app"] == {"test_refresh", "test_expiry"}, outcome.output
    assert set(outcome.failed["test_app"]) == {"test_leak"}
    assert (
        "token 1 of ExpiringCredentials is in the response: body, as it is" in outcome.failed["test_app"]["test_leak"]
    )


def test_names() -> None:
    """The public names can all be imported, are sorted, and documented; others are an AttributeError."""
    names = proxy_middleware.testing.__all__
    assert names == sorted(names)
    assert all(getattr(proxy_middleware.testing, name).__doc__ for name in names)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        proxy_middleware.testing.Nothing  # noqa: B018


def test_needs_no_pytest() -> None:
    """Everything but the contracts and the fixtures works where pytest is not installed; those say what is missing."""
    code = """if True:
        import sys
        sys.modules["pytest"] = None
        from proxy_middleware.testing import ExpiringCredentials, FakeClock, FakeUpstream, assert_no_credentials
        with FakeUpstream(), FakeClock().installed():
            assert_no_credentials([], secrets=["s3cret"])
        for name in ("ResolverContract", "CredentialProviderContract"):
            try:
                getattr(__import__("proxy_middleware.testing").testing, name)
            except ImportError as error:
                assert "proxy_middleware[testing]" in str(error), error
            else:
                raise AssertionError(name)
    """
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

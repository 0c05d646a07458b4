"""`examples/custom_resolver`, installed from a wheel: its names are found, and requests are served with it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.callers import RawResponse, call, request
from tests.integration.plugin_package.conftest import EXAMPLE
from tests.servers import RunningServer, ServerFactory
from tests.upstreams import Exchange, ScriptedUpstream, response


def run(python_path: str, *command: str) -> str:
    """What a command prints with the package installed; it has ended well, and without a word on standard error."""
    done = subprocess.run(
        [sys.executable, *command],
        cwd=EXAMPLE,
        # The plugins of pytest that happen to be here take longer to load than the tests to run.
        env={**os.environ, "PYTHONPATH": python_path, "PYTEST_ADDOPTS": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    return done.stdout


def test_application(python_path: str) -> None:
    """The example's application finds its plugins by name, keeps tenants apart, and reads a rotated secret."""
    output = run(python_path, "-W", "error", "app.py")
    lines = [" ".join(line.split()) for line in output.splitlines()]
    assert "umbrella GET /connections/crm/proxy/me 200 Umbrella Corp." in lines
    assert "umbrella GET /connections/acme-crm/proxy/me 404 not_found" in lines
    assert "acme GET /connections/mail/proxy/me 409 ambiguous_selector" in lines
    assert output.endswith("\nEverything was as expected.\n")


def test_own_tests(python_path: str) -> None:
    """The package's own tests pass against what was installed."""
    assert " passed" in run(python_path, "-m", "pytest", "-q", "-p", "no:cacheprovider")


def render(directory: Path, connection_id: str, token: str) -> None:
    """A secret as Vault's agent leaves it."""
    path = directory / f"{connection_id}.json"
    path.write_text(json.dumps({"data": {"data": {"token": token}, "metadata": {"version": 1}}}))
    path.chmod(0o600)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where the secrets are."""
    for tenant in ("acme", "umbrella"):
        render(tmp_path, f"{tenant}-crm", f"{tenant}-old")
    return tmp_path


@pytest.fixture
def server(
    server_factory: ServerFactory, shared_upstream: ScriptedUpstream, python_path: str, directory: Path
) -> RunningServer:
    """A WSGI server with the package."""
    env = {"PYTHONPATH": python_path, "UPSTREAM_URL": shared_upstream.url, "DIRECTORY": str(directory)}
    return server_factory("waitress", "tests.integration.plugin_package.host:wsgi_app", env)


def test_wsgi_server(server: RunningServer, shared_upstream: ScriptedUpstream, directory: Path) -> None:
    """Both resolvers serve each tenant with their own credential, and the provider reads what has been rotated."""

    @shared_upstream.script
    def script(exchange: Exchange) -> None:
        token = exchange.request.header(b"authorization") or b""
        exchange.send(response(200 if token in accepted else 401, body=token))

    def get(tenant: str, prefix: str, selector: str) -> RawResponse:
        return call(
            server.address, request("GET", f"{prefix}/{selector}/proxy/x", [("Authorization", f"Bearer {tenant}")])
        )

    accepted = {b"Bearer acme-old", b"Bearer umbrella-old"}
    for prefix in ("/connections", "/later"):
        for tenant in ("acme", "umbrella"):
            answer = get(tenant, prefix, "crm")
            assert (answer.status, answer.body) == (200, f"Bearer {tenant}-old".encode())
        assert [get(*caller, "crm").status for caller in (("nobody", prefix), ("stranger", prefix))] == [404, 401]
        assert get("umbrella", prefix, "acme-crm").status == 404
    accepted = {b"Bearer acme-new"}
    render(directory, "acme-crm", "acme-new")
    for prefix in ("/connections", "/later"):
        answer = get("acme", prefix, "acme-crm")
        assert (answer.status, answer.body) == (200, b"Bearer acme-new")
    assert "-old" not in server.log()

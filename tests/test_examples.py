"""The examples and the README: what they show works as shown."""

import importlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import pytest
from werkzeug.security import generate_password_hash

from proxy_middleware import BrowserPolicy, EgressPolicy, Limits, Replay, Timeouts
from proxy_middleware.stores import generate_key
from tests.callers import RawResponse, call, request
from tests.servers import serve_asgi, serve_wsgi
from tests.upstreams import ScriptedUpstream
from tests.wire import Address

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
LOOPBACK = EgressPolicy(allow=("127.0.0.0/8",))


def example(name: str) -> ModuleType:
    """One of the examples as a module; by name, since they are files to run and no package."""
    return importlib.import_module(f"examples.{name}")


def example_process(name: str, *arguments: str) -> subprocess.Popen[str]:
    """An example as a user runs it."""
    return subprocess.Popen(
        [sys.executable, f"examples/{name}.py", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def output_of(name: str) -> str:
    """What an example prints; it has ended with status 0 and without a word on standard error."""
    with example_process(name) as process:
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    return output


@pytest.fixture(scope="module")
def quickstart_output() -> str:
    """What the quickstart prints."""
    return output_of("quickstart")


@pytest.mark.parametrize(
    "line",
    [
        r"GET /connections/crm/proxy/owners\?limit=2 +GET /crm/v3/owners\?limit=2",
        r"authorization: Bearer alice-token +authorization: Bearer \*{8}[0-9a-f]{4}",
        r"x-request-id: 42 +\(dropped\)",
        r"x-team: sales +x-team: sales",
        r"CRM got  GET  /crm/v3/owners +Bearer \*{8}[0-9a-f]{4} +-> 401",
        r"CRM got  POST /oauth/token +-> 200",
        r"answer   data: change 4   sent at \d\.\d{3} s, received at \d\.\d{3} s",
        r"CRM got  GET  /files/report\.csv +Bearer \*{8}[0-9a-f]{4} +-> 200",
        r"answer   403  application/problem\+json",
        r"Everything was as expected\.",
    ],
)
def test_quickstart_shows(quickstart_output: str, line: str) -> None:
    """The quickstart ends well and shows each of its points on a line of its own."""
    assert re.search(rf"^ *{line}$", quickstart_output, re.MULTILINE)


def test_quickstart_masks_the_credential(quickstart_output: str) -> None:
    """No access or refresh token is printed."""
    assert not re.search(r"crm-[0-9a-f]{5}|refresh-token", quickstart_output)


def test_quickstart_fits_a_terminal(quickstart_output: str) -> None:
    """No line of the quickstart is wider than 100 columns."""
    assert max(map(len, quickstart_output.splitlines())) <= 100


def test_quickstart_serves_until_interrupted() -> None:
    """With --serve it prints curl commands that work, shows what the CRM gets, and ends well on Ctrl-C."""
    with example_process("quickstart", "--serve") as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        command = next(line for line in lines if "curl" in line)
        port, target = re.findall(r"http://127\.0\.0\.1:(\d+)(/\S+)", command)[0]
        answer = call(("127.0.0.1", int(port)), request("GET", target, [("Authorization", "Bearer alice-token")]))
        shown = next(line for line in lines if "CRM got" in line)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert (answer.status, answer.body) == (200, b'{"owners":["Ada","Grace"]}')
    assert "GET  /crm/v3/owners" in shown
    assert (process.returncode, errors) == (0, "")


def test_quickstart_says_what_is_wrong() -> None:
    """A result that is not as expected ends the quickstart with a message and a non-zero status."""
    with pytest.raises(SystemExit, match="quickstart failed: status: expected 200, got 502"):
        example("quickstart").expect("status", 502, 200)


def test_oauth2_store_shows_one_refresh() -> None:
    """A crowd, at one worker and at two, uses one refresh token; a dead grant is a 424; no token is printed."""
    output = output_of("oauth2_store")
    lines = [re.sub(" +", " ", line.strip()) for line in output.splitlines()]
    rejected, granted = "CRM got 50 x GET /api/owners -> 401", "CRM got 1 x POST /oauth/token refresh_token -> 200"
    crowds = [index for index, line in enumerate(lines) if line == rejected]
    assert [lines[index + 1 : index + 3] for index in crowds] == [[granted, "CRM got 50 x GET /api/owners -> 200"]] * 2
    assert "secrets 9 codes and tokens given out so far; in the file: 0" in lines
    assert "answer 424 application/problem+json access_token_expired" in lines
    assert any(line.startswith("The connection's grant has expired or was revoked") for line in lines)
    assert output.endswith("\nEverything was as expected.\n")
    assert not re.search(r"crm-(code|access|refresh)-|client-secret", output)


def test_oauth2_store_says_what_is_wrong() -> None:
    """A result that is not as expected ends the example with a message and a non-zero status."""
    with pytest.raises(SystemExit, match="oauth2_store failed: answer: expected 200, got 401"):
        example("oauth2_store").expect("answer", 401, 200)


@pytest.fixture
def fastapi_address(upstream: ScriptedUpstream) -> Iterator[Address]:
    """The FastAPI example on uvicorn, with accounts of alice and bob."""
    module = example("fastapi_app")
    accounts = [module.Account(user, "github", upstream.url, f"{user}-secret") for user in ("alice", "bob")]
    app = module.create_app(accounts, {"alice-token": "alice", "bob-token": "bob", "carol-token": "carol"}, LOOPBACK)
    with serve_asgi(app) as address:
        yield address


def get(address: Address, target: str, *pairs: tuple[str, str]) -> RawResponse:
    """The answer to a GET with these fields."""
    return call(address, request("GET", target, pairs))


@pytest.mark.parametrize("user", ["alice", "bob"])
def test_fastapi_users_have_their_own_accounts(fastapi_address: Address, upstream: ScriptedUpstream, user: str) -> None:
    """The same selector leads each user to their own account."""
    answer = get(fastapi_address, "/connections/github/proxy/user?x=1", ("Authorization", f"Bearer {user}-token"))
    (seen,) = upstream.requests
    assert (answer.status, answer.body) == (200, b"ok")
    assert (seen.target, seen.header(b"authorization")) == (b"/user?x=1", f"Bearer {user}-secret".encode())


@pytest.mark.parametrize(("token", "status"), [("carol-token", 404), ("nobody", 401)])
def test_fastapi_users_without_account(
    fastapi_address: Address, upstream: ScriptedUpstream, token: str, status: int
) -> None:
    """A user without an account finds nothing; who is no user is not let in."""
    answer = get(fastapi_address, "/connections/github/proxy/user", ("Authorization", f"Bearer {token}"))
    assert (answer.status, upstream.requests) == (status, [])


def test_fastapi_routes_stay(fastapi_address: Address) -> None:
    """The application's own routes answer as before."""
    assert get(fastapi_address, "/health").body == b'{"status":"ok"}'


@pytest.fixture
def flask_address(upstream: ScriptedUpstream) -> Iterator[Address]:
    """The Flask example on a WSGI server."""
    hashes = {"alice": generate_password_hash("wonderland")}
    app = example("flask_app").create_app(upstream.url, "github-secret", hashes, LOOPBACK)
    with serve_wsgi(app) as address:
        yield address
    app.wsgi_app.proxy.close()


def sign_in(address: Address, password: str) -> RawResponse:
    """The answer to alice's form."""
    form = [("Content-Type", "application/x-www-form-urlencoded")]
    return call(address, request("POST", "/sign-in", form, f"user=alice&password={password}".encode()))


def test_flask_session_is_the_caller(flask_address: Address, upstream: ScriptedUpstream) -> None:
    """Who has signed in to Flask may call, and the session's cookie stays here."""
    (cookie,) = sign_in(flask_address, "wonderland").values(b"set-cookie")
    session = ("Cookie", cookie.decode().partition(";")[0])
    answer = get(flask_address, "/connections/github/proxy/rate_limit", session)
    (seen,) = upstream.requests
    assert (answer.status, answer.body) == (200, b"ok")
    assert (seen.header(b"authorization"), seen.header(b"cookie")) == (b"Bearer github-secret", None)


def test_flask_session_is_required(flask_address: Address, upstream: ScriptedUpstream) -> None:
    """Without a session nothing goes out; a wrong password gives none."""
    assert sign_in(flask_address, "looking-glass").status == 401
    assert get(flask_address, "/connections/github/proxy/rate_limit").status == 401
    assert upstream.requests == []


@pytest.mark.parametrize("source", re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL))
def test_readme_python_runs(source: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every Python block of the README runs as it stands."""
    for name in re.findall(r'os\.environ\["(\w+)"\]', source):
        monkeypatch.setenv(name, generate_key() if name == "TOKEN_KEY" else f"value-of-{name}")
    monkeypatch.chdir(tmp_path)
    exec(compile(source, "README.md", "exec"), {"__name__": "readme"})


def defaults() -> list[tuple[str, str]]:
    """The name and default of every setting that is part of a value, as the README writes them."""
    values = (Timeouts(), Limits(), Replay(), EgressPolicy(), BrowserPolicy())
    return [
        (f"{type(value).__name__}.{field.name}", str(getattr(value, field.name)))
        for value in values
        for field in fields(value)
        if field.init
    ]


@pytest.mark.parametrize(("setting", "default"), defaults())
def test_readme_states_every_default(setting: str, default: str) -> None:
    """The README's table of settings has every setting, with its default."""
    assert f"| `{setting}` | `{default}` |" in README

"""`python -m proxy_middleware`, as it is run."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from proxy_middleware.__main__ import main
from proxy_middleware.stores import SQLStore, Tokens, generate_key
from tests.callers import call, request
from tests.servers import free_port
from tests.upstreams import ScriptedUpstream, response
from tests.wire import Address

WAIT = 20
TOKEN, CALLER = "stored-token-of-the-crm", "token-of-alice"


def run(*arguments: str) -> tuple[int, str, str]:
    """Status, output and errors of a command."""
    output, errors = StringIO(), StringIO()
    with redirect_stdout(output), redirect_stderr(errors):
        status = main(arguments)
    return status, output.getvalue(), errors.getvalue()


@pytest.fixture
def file(tmp_path: Path, upstream: ScriptedUpstream) -> Path:
    """A file with a connection to the upstream, whose secrets are in files."""
    (tmp_path / "crm.token").write_text(TOKEN, encoding="utf-8")
    (tmp_path / "alice.token").write_text(CALLER, encoding="utf-8")
    file = tmp_path / "connections.toml"
    file.write_text(
        f"""callers = {{ alice = "file:alice.token" }}
[connections.crm]
base_url = "http://127.0.0.1:{upstream.address[1]}/v1"
[connections.crm.credential]
type = "bearer"
token = "file:crm.token"
[proxy.egress]
allow = ["127.0.0.0/8"]
""",
        encoding="utf-8",
    )
    return file


@contextmanager
def serving(file: Path) -> Iterator[tuple[Address, subprocess.Popen[str]]]:
    """`serve`, from when it says that it listens."""
    port = free_port()
    command = [sys.executable, "-m", "proxy_middleware", "serve", str(file), "--port", str(port)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                if "running on" in line:
                    break
            yield ("127.0.0.1", port), process
        finally:
            process.kill()


def test_serve_answers_callers_with_the_stored_credential(file: Path, upstream: ScriptedUpstream) -> None:
    """Callers of the file reach its connections; others, and other paths, do not; it ends when it is told to."""
    upstream.answer(response(body=b"owners"))
    with serving(file) as (address, process):
        path = "/connections/crm/proxy/owners?limit=2"
        answer = call(address, request("GET", path, [("Authorization", f"Bearer {CALLER}")]))
        assert (answer.status, answer.body) == (200, b"owners")
        assert call(address, request("GET", path)).status == 401
        assert call(address, request("GET", "/elsewhere")).status == 404
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=WAIT)
    assert f'GET "crm" http://127.0.0.1:{upstream.address[1]}/v1/owners 200' in log
    assert not any(secret in log for secret in (TOKEN, CALLER, "limit=2"))
    (seen,) = upstream.requests
    assert (seen.target, seen.values(b"authorization")) == (b"/v1/owners?limit=2", [b"Bearer " + TOKEN.encode()])


def test_check_finds_nothing_wrong(file: Path) -> None:
    """A good file is a good word and status 0."""
    assert run("check", str(file)) == (0, f"{file}: 1 connection, nothing wrong\n", "")


@pytest.mark.parametrize("command", ["check", "serve"])
def test_wrong_file_is_not_served(file: Path, command: str) -> None:
    """What is wrong is said on standard error, one line each, with status 1, and no traceback."""
    file.write_text(file.read_text(encoding="utf-8").replace("base_url", "url").replace("crm.token", "x"), "utf-8")
    status, output, errors = run(command, str(file))
    assert (status, output) == (1, "")
    assert [line.split(": ")[1] for line in errors.splitlines()] == [
        "connections.crm.url",
        "connections.crm.base_url",
        "connections.crm.credential.token",
    ]


def test_missing_file(tmp_path: Path) -> None:
    """A file that is not there is a line, and no traceback."""
    command = [sys.executable, "-m", "proxy_middleware", "check", str(tmp_path / "none.toml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "No such file" in done.stderr
    assert "Traceback" not in done.stderr


def test_new_keys_are_keys(tmp_path: Path) -> None:
    """`key new` prints what a store takes, another one each time."""
    keys = [run("key", "new")[1].strip() for _ in range(2)]
    SQLStore(f"sqlite:///{tmp_path}/tokens.db", keys=keys).create()
    assert len(set(keys)) == 2


def test_rotate_encrypts_with_the_first_key(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After `key rotate` the newest key alone reads the store."""
    url = f"sqlite:///{file.parent}/tokens.db"
    old, new = generate_key(), generate_key()
    store = SQLStore(url, keys=[old])
    store.create()
    store.put("crm", Tokens("access"))
    with file.open("a", encoding="utf-8") as text:
        text.write(f'[store]\nurl = "{url}"\nkeys = ["env:NEW", "env:OLD"]\n')
    monkeypatch.setenv("OLD", old)
    monkeypatch.setenv("NEW", new)
    assert run("key", "rotate", str(file)) == (0, "1 record encrypted with the first key\n", "")
    stored = SQLStore(url, keys=[new]).load("crm")
    assert stored is not None
    assert stored.tokens.access_token == "access"


def test_rotate_needs_a_store(file: Path) -> None:
    """A file without a store has no keys to rotate."""
    assert run("key", "rotate", str(file)) == (1, "", f"{file}: store: is missing\n")


@pytest.mark.parametrize("command", [("serve",), ("key", "rotate")])
def test_store_of_another_key(file: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]) -> None:
    """A store that this key does not open is told in a line."""
    url = f"sqlite:///{file.parent}/tokens.db"
    store = SQLStore(url, keys=[generate_key()])
    store.create()
    store.put("crm", Tokens("access", "refresh"))
    monkeypatch.setenv("NEW", generate_key())
    monkeypatch.setenv("REFRESH", "refresh")
    head, _, _ = file.read_text(encoding="utf-8").partition("[connections.crm.credential]")
    file.write_text(
        f'{head}[connections.crm.credential]\ntype = "oauth2"\ntoken_url = "https://auth.example/token"\n'
        f'client_id = "id"\nrefresh_token = "env:REFRESH"\n[store]\nurl = "{url}"\nkeys = ["env:NEW"]\n',
        encoding="utf-8",
    )
    code, said, wrong = run(*command, str(file))
    assert (code, said, wrong.count("\n")) == (1, "", 1)
    assert "crm" in wrong

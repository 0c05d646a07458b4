"""The SDKs in a Node.js process, their tokens, and how they are installed."""

import fcntl
import json
import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import jwt
import pytest

HERE = Path(__file__).parent
SDKS = ("@integration-app/sdk", "@membranehq/sdk")
INSTALL = 100.0  # seconds

WORKSPACE_KEY = "739a5c02-e22f-459b-a04e-3b8401bf2c45"
WORKSPACE_SECRET = "28e8e9ea75855b36280d4c678a47835299c701920c554c0bc8ff3c63f6e59779"

# What npm says where there is no way to the registry.
_NO_WAY = re.compile("ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|E(NET|HOST)UNREACH|TIMEDOUT|ERR_SOCKET|E50[0-9]")


def token(algorithm: str = "HS512", secret: str = WORKSPACE_SECRET, **claims: Any) -> str:
    """A token as the original product's documentation has customers make them; None leaves a claim out."""
    members = {"iss": WORKSPACE_KEY, "id": "alice", "name": "Alice", "exp": int(time.time()) + 7200, **claims}
    return jwt.encode({name: value for name, value in members.items() if value is not None}, secret, algorithm)


def install(folder: Path) -> None:
    """Installs the SDKs into a folder of this machine's, unless they are there; skips the test where that cannot be."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("Node.js or npm is not installed (apt install nodejs npm)")
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name in ("package.json", "package-lock.json", "calls.mjs"):
            shutil.copy(HERE / name, folder)
        if not (folder / "installed").exists():
            _install(npm, folder)
            (folder / "installed").touch()


def _install(npm: str, folder: Path) -> None:
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", "--fetch-retries=0"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALL)
    except subprocess.TimeoutExpired:
        pytest.skip("npm does not get the SDKs in time")
    if done.returncode and _NO_WAY.search(done.stderr):
        pytest.skip("npm cannot reach its registry")
    assert done.returncode == 0, done.stderr


@dataclass(frozen=True)
class Failed:
    """What an SDK threw.

    Attributes:
        kinds: Its class and the classes above it.
        message: As people read it.
        data: Of an error of the SDK's own.
        status: Of a response that is none of its own; None otherwise.
        body: Of the same.
    """

    kinds: list[str]
    message: str
    data: dict[str, Any] | None = None
    status: int | None = None
    body: Any = None


class Node:
    """A process that makes one call after the other."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def call(self, **call: Any) -> Any:
        """What the SDK's promise comes to: a value, or `Failed`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(call) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return Failed(**answer["error"]) if "error" in answer else answer["value"]

    def __enter__(self) -> Self:
        environ = {**os.environ, "NO_PROXY": "*"}
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            ["node", "calls.mjs"], cwd=self._folder, env=environ, stdin=pipe, stdout=pipe, text=True
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=10)


@dataclass(frozen=True)
class Sdk:
    """One of the SDKs, with a token, for one host application."""

    name: str
    api_uri: str
    node: Node
    token: str

    def proxy(self, selector: str, method: str, path: str, *data: Any, **options: Any) -> Any:
        """`client.connection(selector).proxy.method(path, ...data)`."""
        return self.ask(selector, ["proxy", method], [path, *data], **options)

    def ask(self, selector: str, steps: list[str], args: list[Any], **options: Any) -> Any:
        """A method of the connection. The options are those of the client; without any there is the token."""
        given = {"apiUri": self.api_uri, **(options or {"token": self.token})}
        fetched = given.pop("fetched", None)
        return self.node.call(sdk=self.name, options=given, fetched=fetched, selector=selector, steps=steps, args=args)

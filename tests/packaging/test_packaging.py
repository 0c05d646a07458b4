"""The sdist and the wheel have what belongs into them, and the wheel serves requests without its source."""

import email
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.message import Message
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from trove_classifiers import classifiers

from tests.packaging.build import build, published
from tests.servers import ROOT

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MODULES = {str(path.relative_to(ROOT)) for path in (ROOT / "proxy_middleware").rglob("*.py")}

# What a bare installation brings, and where it is needed: a new one is a decision, not an accident.
BARE = {
    "aiohappyeyeballs": "connecting, under ASGI",
    "anyio": "event loops other than asyncio, threads",
    "asgiref": "plain functions in worker threads",
    "httpcore": "name look-ups and addresses below httpx",
    "httptools": "the parser of the engine",
    "httpx": "the client, the transport, trio, and token endpoints",
}

# One request through each door, and one by the transport; without what the test environment knows of the source.
SMOKE = """
import logging
import sys
source, installed = sys.argv[1:]
sys.path[:] = [path for path in sys.path if path not in ("", source)]

import anyio
import httpx
import proxy_middleware
from proxy_middleware import Connection, Credential, EgressPolicy, Proxy, StaticCredentials, StaticResolver, anyone
from proxy_middleware.testing import FakeUpstream

logging.getLogger("proxy_middleware").setLevel("ERROR")  # httpx hands over no raw path, which it is warned of
assert proxy_middleware.__file__.startswith(installed), proxy_middleware.__file__


async def ask_asgi(app):
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://host") as client:
        response = await client.get("/connections/crm/proxy/asgi")
        await proxy.aclose()
        return response.text


with FakeUpstream.demanding("Authorization", "Bearer t0ken") as upstream:
    proxy = Proxy(
        resolver=StaticResolver([Connection("crm", upstream.url)]),
        credentials=StaticCredentials({"crm": Credential.bearer("t0ken")}),
        authenticate=anyone,
        egress=EgressPolicy(allow=["127.0.0.0/8"]),
    )
    with httpx.Client(transport=httpx.WSGITransport(proxy.wsgi(None)), base_url="http://host") as client:
        print(client.get("/connections/crm/proxy/wsgi").text)
    with httpx.Client(transport=proxy.transport("crm"), base_url="http://crm.invalid") as client:
        print(client.get("/transport").text)
    proxy.close()
    print(anyio.run(ask_asgi, proxy.asgi(None)))
"""


class Built(NamedTuple):
    """What is published, and the sdist's tree with the wheel in place of the source."""

    sdist: Path
    wheel: Path
    tree: Path

    def in_wheel(self) -> set[str]:
        """The names of the files in the wheel."""
        with zipfile.ZipFile(self.wheel) as archive:
            return set(archive.namelist())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """All of it, built once."""
    folder = tmp_path_factory.mktemp("published")
    wheel, tree = published(folder)
    (sdist,) = folder.glob("*.tar.gz")
    return Built(sdist, wheel, tree)


@pytest.fixture(scope="module")
def metadata(built: Built) -> Message:
    """What the wheel says of itself."""
    with zipfile.ZipFile(built.wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_string(archive.read(name).decode("utf-8"))


def run(folder: Path, *command: str, **env: str) -> str:
    """What Python prints in this folder; it has ended well, and without a warning."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *command],
        cwd=folder,
        env={**os.environ, "PYTEST_ADDOPTS": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **env},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


def test_wheel_has_the_package_and_nothing_else(built: Built) -> None:
    """Every module, the mark that it is typed, the license; no tests, no examples."""
    names = built.in_wheel()
    assert {name for name in names if name.endswith(".py")} == MODULES
    others = {re.sub(r"^[^/]*\.dist-info/", "", name) for name in names - MODULES}
    assert others == {"proxy_middleware/py.typed", "METADATA", "RECORD", "WHEEL", "licenses/LICENSE"}


def test_sdist_has_what_its_users_need(built: Built) -> None:
    """Tests, examples and all documents are in it, and nothing that was made on the way."""
    with tarfile.open(built.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    documents = {"README.md", "CHANGELOG.md", "LICENSE", "SECURITY.md", "pyproject.toml", "PKG-INFO"}
    assert names >= MODULES | documents | {"proxy_middleware/py.typed"}
    tests = {str(path.relative_to(ROOT)) for folder in ("tests", "examples") for path in (ROOT / folder).rglob("*.py")}
    assert names >= tests
    made = re.compile(r"__pycache__|\.pyc$|_cache(/|$)|^build/|^dist/|\.venv|\.egg-info")
    assert not [name for name in names if made.search(name)]


def test_sdist_builds_the_same_wheel(built: Built, tmp_path: Path) -> None:
    """The wheel that is built of the sdist is the source tree's own, byte for byte."""
    assert build(ROOT, "wheel", tmp_path).read_bytes() == built.wheel.read_bytes()


def test_metadata(metadata: Message) -> None:
    """Name, version, Python and license are the project's, and every classifier is one that the index knows."""
    fields = {name: metadata[name] for name in ("Name", "Version", "Requires-Python", "License-Expression")}
    assert fields == {
        "Name": PROJECT["name"],
        "Version": PROJECT["version"],
        "Requires-Python": PROJECT["requires-python"],
        "License-Expression": PROJECT["license"],
    }
    assert set(metadata.get_all("Classifier", [])) == set(PROJECT["classifiers"]) <= classifiers


def test_metadata_shows_the_readme(metadata: Message) -> None:
    """The index shows the README, as Markdown."""
    assert metadata["Description-Content-Type"] == "text/markdown"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert str(metadata.get_payload()).strip() == readme.strip()


def test_bare_installation(metadata: Message) -> None:
    """Without extras these packages are installed, and no others; all of the rest belongs to an extra."""
    required = metadata.get_all("Requires-Dist", [])
    bare = {re.split(r"[^\w.-]", name, maxsplit=1)[0] for name in required if "extra ==" not in name}
    assert bare == set(BARE)
    assert set(metadata.get_all("Provides-Extra", [])) == {
        name.replace("_", "-") for name in PROJECT["optional-dependencies"]
    }


def test_installed_wheel_serves(built: Built, tmp_path: Path) -> None:
    """The package answers by both doors and by its transport where pip has installed it, and nowhere else."""
    installed = tmp_path / "installed"
    options = ["--disable-pip-version-check", "install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
    run(tmp_path, "-W", "ignore", "-m", "pip", *options, "--target", str(installed), str(built.wheel))
    output = run(tmp_path, "-c", SMOKE, str(ROOT), str(installed), PYTHONPATH=str(installed))
    assert output.split() == ["ok"] * 3


def test_tests_run_against_the_wheel(built: Built) -> None:
    """In the sdist's tree they run, and what they import is the wheel's."""
    names = ["tests/test_models.py", "tests/test_public_api.py::test_names"]
    output = run(
        built.tree, "-m", "pytest", "-q", "-n0", "-p", "xdist", "-p", "pytest_timeout", "-p", "no:cacheprovider", *names
    )
    assert " passed" in output
    where = run(built.tree, "-c", "import proxy_middleware; print(proxy_middleware.__file__)").strip()
    assert where == str(built.tree / "proxy_middleware" / "__init__.py")

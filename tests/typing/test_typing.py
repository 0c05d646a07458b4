"""The public types hold in a user's own code, where the package is installed: as mypy and pyright see them."""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

MYPY = """
[mypy]
strict = true
# They are no part of the public types, and take longer to read than all the rest.
[mypy-authlib.*,click.*,cryptography.*,httpcore.*,httpcore2.*,jinja2.*,joserfc.*,limits.*,markdown_it.*,psycopg.*]
follow_imports = skip
[mypy-opentelemetry.*,prometheus_client.*,pydantic.*,pydantic_core.*,redis.*,rich.*,sqlalchemy.*,trio.*]
follow_imports = skip
"""
PYRIGHT = """
{
    "include": ["user"],
    "typeCheckingMode": "strict",
    "enableTypeIgnoreComments": false,
    "reportUnnecessaryTypeIgnoreComment": "error"
}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's project, away from the package's source; each mistake in it says what is to be complained of."""
    shutil.copytree(Path(__file__).parent / "user", tmp_path / "user", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "mypy.ini").write_text(MYPY, encoding="utf-8")
    (tmp_path / "pyrightconfig.json").write_text(PYRIGHT, encoding="utf-8")
    return tmp_path


def check(project: Path, *command: str) -> None:
    """Runs a type checker, which has nothing to say."""
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")}
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=project,
        env=env | {"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=110,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(find_spec("mypy") is None, reason="mypy is not installed")
def test_mypy(project: Path) -> None:
    """Mypy accepts what is right and refuses every mistake, strictly."""
    check(project, "mypy", "--config-file=mypy.ini", f"--cache-dir={os.devnull}", "user")


@pytest.mark.skipif(find_spec("pyright") is None, reason="pyright is not installed")
@pytest.mark.skipif(shutil.which("node") is None, reason="pyright needs Node.js")
def test_pyright(project: Path) -> None:
    """So does pyright."""
    check(project, "pyright", "--pythonpath", sys.executable)

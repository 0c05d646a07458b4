"""The example package, installed once for all workers, where nothing else is."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import ROOT

EXAMPLE = ROOT / "examples" / "custom_resolver"
# Offline, and with the build backend that is here: the test extra brings it.
INSTALL = ["install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--no-compile", "--target"]


@pytest.fixture(scope="session")
def python_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PYTHONPATH on which the example package is found, by a wheel that was built of it."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    target = shared / "plugin_package"
    with open(shared / "plugin_package.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            install(target)
    return f"{ROOT}{os.pathsep}{target}"


def install(target: Path) -> None:
    """Builds and installs it, as pip does it for anybody."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *INSTALL, str(target), str(EXAMPLE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr

"""Builds what is published, offline, with the build backend that the test extra brings."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from tests.servers import ROOT


def build(source: Path, target: str, into: Path) -> Path:
    """The one file that hatchling makes of a source tree: its "sdist" or its "wheel"."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(into)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = into.glob("*.tar.gz" if target == "sdist" else "*.whl")
    return built


def unpack(sdist: Path, into: Path) -> Path:
    """The source tree in an sdist."""
    with tarfile.open(sdist) as archive:
        archive.extractall(into, filter="data")
    return into / sdist.name.removesuffix(".tar.gz")


def published(folder: Path) -> tuple[Path, Path]:
    """The wheel, built of the sdist as installers do it, and the sdist's tree with that wheel in place of its source.

    Whatever runs in the tree, its servers and subprocesses too, finds the package that the wheel has.
    """
    tree = unpack(build(ROOT, "sdist", folder), folder)
    wheel = build(tree, "wheel", folder)
    (tree / "proxy_middleware").rename(folder / "source")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tree)
    return wheel, tree

"""Runs the tests against the wheel: `python -m tests.packaging [arguments of pytest]`."""

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.packaging.build import published


def main() -> int:
    """Builds it, and gives pytest's exit code."""
    with tempfile.TemporaryDirectory() as folder:
        _, tree = published(Path(folder))
        return subprocess.run([sys.executable, "-m", "pytest", *sys.argv[1:]], cwd=tree, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())

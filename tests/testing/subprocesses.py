"""pytest as a plugin's author runs it: in a process and a folder of its own."""

import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[2]


class Outcome:
    """How a run went.

    Attributes:
        output: What it printed.
        passed: The tests that passed, without their parameters, by class or module.
        failed: Those that failed or had an error, likewise; the values are the messages.
    """

    def __init__(self, output: str, report: Path) -> None:
        self.output = output
        self.passed: dict[str, set[str]] = defaultdict(set)
        self.failed: dict[str, dict[str, str]] = defaultdict(dict)
        for case in ElementTree.parse(report).iter("testcase"):
            group, name = case.attrib["classname"].rpartition(".")[2], case.attrib["name"].partition("[")[0]
            wrong = [child for kind in ("failure", "error") for child in case.iter(kind)]
            if wrong:
                self.failed[group][name] = wrong[0].attrib["message"]
            elif case.find("skipped") is None:
                self.passed[group].add(name)


def run_pytest(folder: Path, files: Mapping[str, str], *arguments: str) -> Outcome:
    """Writes these files into the folder, and runs pytest there, with warnings as errors."""
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n", encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "no:xdist", "-p", "no:hypothesispytest", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "-c", "pytest.ini", "--rootdir=.", "--junitxml=report.xml", "-q", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=100,
        check=False,
        text=True,
    )
    assert (folder / "report.xml").exists(), done.stdout
    return Outcome(done.stdout, folder / "report.xml")

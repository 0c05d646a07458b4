"""What the examples and their README say about how they are started is what the tests start."""

import ast
import re

import pytest

from tests.integration.frameworks.hosts import EXAMPLES, Example
from tests.servers import ROOT

FILES = sorted((ROOT / "examples").glob("*_app.py"))
README = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
COMMAND = re.compile(
    r"\b(?:flask|gunicorn|hypercorn|uvicorn|waitress-serve) (?:-\S+ (?:\d+ )?)*(examples\.\S+)(?: run)?"
)


def commands(text: str) -> dict[str, str]:
    """The commands in a text, by "module:attribute" or "module" of what they start."""
    return {found[1]: found[0] for found in COMMAND.finditer(text.replace("`", " "))}


def commands_of_examples() -> dict[str, str]:
    """The commands in the docstrings of the examples."""
    docstrings = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) for path in FILES)
    return {started: command for text in docstrings for started, command in commands(text or "").items()}


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_docstring_starts_what_is_tested(example: Example) -> None:
    """The command in an example's docstring names the application that these tests start."""
    app = f"examples.{example.app}"
    assert {app, app.partition(":")[0]} & commands_of_examples().keys()


def test_readme_lists_every_example() -> None:
    """The README has each example with the command of its docstring."""
    assert commands(README) == commands_of_examples()
    assert [path.name for path in FILES if f"| `{path.name}` |" not in README] == []


def test_readme_names_every_variable() -> None:
    """The README names what the examples read from the environment."""
    sources = "".join(path.read_text(encoding="utf-8") for path in FILES)
    assert set(re.findall(r'os\.environ\.get\(["\'](\w+)', sources)) - set(re.findall(r"`(\w+)`", README)) == set()

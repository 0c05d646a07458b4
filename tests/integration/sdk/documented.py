"""The clients as examples/SDKS.md has them, so that what is tested is what it says."""

import re
from pathlib import Path
from typing import Any

import pytest

TEXT = (Path(__file__).parents[3] / "examples" / "SDKS.md").read_text(encoding="utf-8")
_BLOCKS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
_APPLICATION = re.compile(r"https://app\.example\.com(?::443)?(?=/connections/)")
_FURTHER_HOST = re.compile(r"(?<=/proxy/)https:/(/[\w.]+)")


def block(library: str, number: int = 0) -> str:
    """The block that imports this library, or one of them, in the order of the page."""
    found: list[str] = [text for text in _BLOCKS if re.search(rf"^(?:import|from) {library}\b", text, re.MULTILINE)]
    return found[number]


def run(source: str, **names: Any) -> dict[str, Any]:
    """What a block defines, given what it takes for granted."""
    exec(compile(source, "SDKS.md", "exec"), names)
    return names


def documented(library: str, application: str, upstream: str) -> dict[str, Any]:
    """What the library's block defines, with the application at this URL, and further hosts below the upstream's."""
    pytest.importorskip(library)
    source = _APPLICATION.sub(application, block(library))
    return run(_FURTHER_HOST.sub(lambda host: upstream + host[1], source))

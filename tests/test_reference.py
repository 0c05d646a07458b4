"""The API reference: everything public is documented, and pdoc has nothing to complain of."""

import inspect
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.reference import MODULES, load, public
from tests.servers import ROOT


@pytest.mark.parametrize("module", MODULES)
def test_public_names_are_documented(module: str) -> None:
    """Every class and function that users import has a docstring, and so has every method of theirs."""
    found = dict(public(load(module)))
    missing = [name for name, value in found.items() if not _documented(value)]
    assert found
    assert not missing


def _documented(value: object) -> bool:
    """Dataclasses without a docstring get one that is their signature."""
    text = inspect.getdoc(value) or ""
    return bool(text) and not (inspect.isclass(value) and text.startswith(f"{value.__name__}("))


def test_package_is_covered() -> None:
    """Every module and package whose name is public, and that says what is in it, is a page or belongs to one."""
    own = {"asgi", "asgi_body", "models", "protocols", "proxy", "transport_body", "upstream", "wsgi", "wsgi_body"}
    paths = (ROOT / "proxy_middleware").iterdir()
    names = {path.stem for path in paths if path.suffix in ("", ".py") and not path.name.startswith("_")}
    assert {f"proxy_middleware.{name}" for name in names - own} == set(MODULES) - {"proxy_middleware"}


@pytest.mark.skipif(find_spec("pdoc") is None, reason="pdoc is not installed")
def test_pages(tmp_path: Path) -> None:
    """Each module has a page, on which the names are that are imported when they are first asked for."""
    command = [sys.executable, "-m", "tests.reference", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    pages = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.html")}
    assert pages == {"index.html", *(f"{name.replace('.', '/')}.html" for name in MODULES)}
    for module, name in (("", "ASGIProxyMiddleware"), ("/resolvers", "CachedResolver"), ("/credentials", "OAuth2")):
        assert f'id="{name}"' in (tmp_path / f"proxy_middleware{module}.html").read_text(encoding="utf-8")

"""`load_resolver` and `load_credentials`: plugins of installed packages, made of a few files in a directory."""

from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from proxy_middleware import Connection, Credential, ProxyRequest
from proxy_middleware._entry_points import load_credentials, load_resolver

SOURCE = """
from proxy_middleware import Connection, Credential

secret = "s3cret"

class Resolver:
    def __init__(self, url, *, name="c"):
        self.url, self.name = url, name

    def resolve(self, selector, request):
        return Connection(self.name, self.url)

class Provider:
    def __init__(self, token="t"):
        self.token = token

    def obtain(self, connection):
        return Credential.bearer(self.token)

def failing(**options):
    raise TypeError("of its own")

def any_resolver(**options):
    return Resolver(**options)
"""
REQUEST = ProxyRequest("GET", "c", b"/", ())
Install = Callable[..., str]
every_loader = pytest.mark.parametrize(
    ("load", "group", "method"),
    [
        (load_resolver, "proxy_middleware.resolvers", "resolve"),
        (load_credentials, "proxy_middleware.credentials", "obtain"),
    ],
    ids=["resolver", "credentials"],
)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs a package with these entry points in both groups: what a wheel consists of, where Python finds it."""

    def install(package: str, source: str = SOURCE, **names: str) -> str:
        module = f"{package}_{tmp_path.name}".replace("-", "_")  # Modules of other tests stay loaded.
        lines = "".join(f"{name} = {module}{target}\n" for name, target in names.items())
        groups = [f"[proxy_middleware.{kind}]\n{lines}" for kind in ("resolvers", "credentials")]
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{package}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text("\n".join(groups))
        return module

    monkeypatch.syspath_prepend(tmp_path)
    return install


def test_resolver(install: Install) -> None:
    """A resolver is made with the options, which may be called as the name of the entry point is."""
    install("acme", sql=":Resolver")
    resolver = load_resolver("sql", url="https://api.example.com", name="crm")
    assert resolver.resolve("c", REQUEST) == Connection("crm", "https://api.example.com")


def test_credentials(install: Install) -> None:
    """A credential provider is made with the options; without any, too."""
    install("acme", vault=":Provider")
    connection = Connection("c", "https://api.example.com")
    assert load_credentials("vault").obtain(connection) == Credential.bearer("t")
    assert load_credentials("vault", token="u").obtain(connection) == Credential.bearer("u")


def test_function(install: Install) -> None:
    """A plugin may be a function that makes it, and take whatever it likes."""
    install("acme", sql=":any_resolver")
    assert load_resolver("sql", url="https://api.example.com").resolve("c", REQUEST)


def test_nothing_else_is_imported(install: Install) -> None:
    """A package whose plugin is not asked for may be as broken as it likes."""
    install("acme", sql=":Resolver")
    install("broken", "raise RuntimeError", other=":Resolver")
    assert load_resolver("sql", url="https://api.example.com")


@every_loader
def test_unknown_name(install: Install, load: Callable[..., object], group: str, method: str) -> None:
    """A name that nobody has is a LookupError that says which there are."""
    install("acme", sql=":Resolver", redis=":Resolver")
    with pytest.raises(LookupError) as caught:
        load("sqll")
    there = {entry_point.name for entry_point in entry_points(group=group)}
    assert {"sql", "redis"} <= there
    assert str(caught.value).startswith(f"{group}: no installed package has 'sqll'; there is ")
    assert all(repr(name) in str(caught.value) for name in there)


@every_loader
def test_two_packages(install: Install, load: Callable[..., object], group: str, method: str) -> None:
    """A name that two packages claim is a LookupError that names both; neither is loaded."""
    modules = [install(package, "raise RuntimeError", sql=":Resolver") for package in ("acme", "umbrella")]
    with pytest.raises(LookupError, match=f"{group}: 'sql' is claimed by") as caught:
        load("sql")
    assert f"acme 1.2 ({modules[0]}:Resolver) and umbrella 1.2 ({modules[1]}:Resolver)" in str(caught.value)


@every_loader
@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({}, "missing a required argument: 'url'"),
        ({"url": "u", "nmae": "s3cret"}, "unexpected keyword argument 'nmae'"),
    ],
)
def test_options_that_do_not_fit(
    install: Install, load: Callable[..., object], group: str, method: str, options: dict[str, str], complaint: str
) -> None:
    """Options that the plugin does not take are a TypeError that names plugin and option, but shows no value."""
    module = install("acme", sql=":Resolver")
    with pytest.raises(TypeError, match=complaint) as caught:
        load("sql", **options)
    assert f"{group}: 'sql' of acme 1.2 ({module}:Resolver)" in str(caught.value)
    assert "s3cret" not in str(caught.value)


@every_loader
def test_plugin_that_raises(install: Install, load: Callable[..., object], group: str, method: str) -> None:
    """What a plugin raises is raised as it is, with a note of which it was."""
    module = install("acme", sql=":failing")
    with pytest.raises(TypeError, match="of its own") as caught:
        load("sql", url="u")
    assert str(caught.value) == "of its own"
    assert caught.value.__notes__ == [f"raised by {group}: 'sql' of acme 1.2 ({module}:failing)"]


@every_loader
@pytest.mark.parametrize(
    ("source", "target", "cause"),
    [
        ("import no_such_module", ":Resolver", ModuleNotFoundError),
        ("raise RuntimeError", ":Resolver", RuntimeError),
        (SOURCE, ":Nothing", AttributeError),
        (SOURCE, ".nothing:Resolver", ModuleNotFoundError),
    ],
)
def test_cannot_be_loaded(
    install: Install,
    load: Callable[..., object],
    group: str,
    method: str,
    source: str,
    target: str,
    cause: type[Exception],
) -> None:
    """A plugin whose module cannot be imported, or has no such name, is an ImportError with its reason."""
    install("acme", source, sql=target)
    with pytest.raises(
        ImportError, match=f"{group}: 'sql' of acme 1.2 .* cannot be loaded: {cause.__name__}"
    ) as caught:
        load("sql")
    assert isinstance(caught.value.__cause__, cause)


@every_loader
def test_makes_something_else(install: Install, load: Callable[..., object], group: str, method: str) -> None:
    """What is no resolver, or no provider, is a TypeError that names the method it lacks."""
    other = {"resolve": ":Provider", "obtain": ":any_resolver"}[method]
    install("acme", sql=other)
    options: dict[str, Any] = {} if method == "resolve" else {"url": "u"}
    with pytest.raises(TypeError, match=rf"{group}: 'sql' of acme .* made \w+, which has no `{method}` method"):
        load("sql", **options)


@every_loader
def test_names_no_factory(install: Install, load: Callable[..., object], group: str, method: str) -> None:
    """An entry point that cannot be called is a TypeError that does not show it."""
    install("acme", sql=":secret")
    with pytest.raises(TypeError, match=r"'sql' of acme .* is a str, not a class or function") as caught:
        load("sql")
    assert "s3cret" not in str(caught.value)

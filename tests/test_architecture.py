"""The house: who may import whom, who may know what, how long a file may be. Read from the source."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "proxy_middleware"
SOURCES = sorted(path for folder in ("proxy_middleware", "tests", "examples") for path in (ROOT / folder).rglob("*.py"))

# A module may import from floors below its own, and from its own as long as nothing goes round in a circle.
FLOORS = {
    "__init__": 5,
    "__main__": 5,
    "testing": 5,
    "testing._contract": 5,
    "testing._doors": 5,
    "testing._provider_runs": 5,
    "testing._secrets": 5,
    "testing._views": 5,
    "testing.clock": 5,
    "testing.credentials": 5,
    "testing.fixtures": 5,
    "testing.leaks": 5,
    "testing.messages": 5,
    "testing.provider_contract": 5,
    "testing.resolver_contract": 5,
    "testing.upstream": 5,
    "toml": 4,
    "toml.connections": 4,
    "toml.credentials": 4,
    "toml.reader": 4,
    "toml.settings": 4,
    "asgi": 4,
    "asgi_body": 4,
    "wsgi": 4,
    "wsgi_body": 4,
    "proxy": 4,
    "client": 4,
    "client.calls": 4,
    "client.clients": 4,
    "client.errors": 4,
    "client.response": 4,
    "transport": 4,
    "transport_body": 4,
    "observe": 3,
    "observe._conventions": 3,
    "observe.logging": 3,
    "observe.otel": 3,
    "observe.prometheus": 3,
    "jwt": 3,
    "resolvers": 3,
    "access": 3,
    "credentials": 3,
    "credentials.static": 3,
    "credentials.aws": 3,
    "credentials.expiry": 3,
    "credentials.httpx_auth": 3,
    "credentials.oauth1": 3,
    "credentials.oauth2": 3,
    "credentials._client_auth": 3,
    "credentials._jwt": 3,
    "credentials._lease": 3,
    "credentials._rounds": 3,
    "credentials._token_endpoint": 3,
    "credentials._vault": 3,
    "stores": 3,
    "stores.database": 3,
    "stores.encrypted": 3,
    "stores.encryption": 3,
    "stores.memory": 3,
    "stores.postgresql": 3,
    "stores.protocol": 3,
    "stores.records": 3,
    "stores.redis": 3,
    "stores.sql": 3,
    "stores.tables": 3,
    "_drive": 3,
    "_loops": 3,
    "_plugins": 3,
    "_providers": 3,
    "_single_flight": 3,
    "_cache_entries": 3,
    "_cached_resolver": 3,
    "_entry_points": 3,
    "_unframed": 3,
    "upstream": 3,
    "upstream.asyncio": 3,
    "upstream.asyncio_connection": 3,
    "upstream.dial": 3,
    "upstream.lookup": 3,
    "upstream.egress": 3,
    "upstream.http1": 3,
    "upstream.httpx": 3,
    "upstream.httpx_library": 3,
    "upstream.httpx_egress": 3,
    "upstream.httpx_response": 3,
    "upstream.pool": 3,
    "upstream.threads": 3,
    "upstream.threads_connection": 3,
    "_exchange": 2,
    "_steps": 2,
    "protocols": 2,
    "_browser": 1,
    "_credential": 1,
    "_problem": 1,
    "_spool": 3,
    "_target": 1,
    "_globs": 1,
    "_links": 1,
    "_told": 1,
    "models": 1,
    "_fields": 0,
    "_response_fields": 0,
    "_admission": 3,
    "_trail": 3,
    "_forks": 0,
    "_lazy": 0,
    "client._proxy_status": 0,
    "errors": 0,
}

# What only some rooms may know of. The httpx modules serve whatever loop runs, trio's too.
HTTPX = {"upstream.httpx_library"}
LOOPS = {
    "asgi",
    "asgi_body",
    "_cached_resolver",
    "_loops",
    "_plugins",
    "_single_flight",
    "upstream.asyncio",
    "upstream.asyncio_connection",
    "upstream.httpx_response",
}
# The kit runs plugins and a server in threads and event loops of its own.
TESTING = {f"testing.{name}" for name in ("_doors", "_provider_runs")}
THREADS = {"_cached_resolver", "_plugins", "_single_flight", "_spool", "credentials._lease", "credentials._vault"}
ROOMS: dict[str, set[str]] = {
    "asyncio": LOOPS | {"testing._contract", "testing._doors"},
    "anyio": LOOPS | {"upstream.httpx", "upstream.httpx_response"},
    "trio": {"_loops"},
    "aiohappyeyeballs": {"upstream.asyncio"},
    "asgiref": {"_plugins"},
    "threading": THREADS
    | TESTING
    | {"_admission", "asgi", "jwt", "stores.memory", "upstream.lookup", "upstream.threads"}
    | {f"testing.{name}" for name in ("_secrets", "clock", "credentials", "messages", "upstream")},
    "concurrent": TESTING | {"_plugins", "credentials._lease", "upstream.lookup"},
    "httpx": HTTPX,
    "httpx2": HTTPX,
    "httpcore": HTTPX,
    "httpcore2": HTTPX,
    "httptools": {"upstream.http1"},
    "jwt": {"jwt"},
    "limits": {"_admission"},
    "authlib": {"credentials.oauth1", "credentials._client_auth", "credentials._jwt"},
    "joserfc": {"credentials._jwt"},
    "botocore": {"credentials.aws"},
    "cryptography": {"credentials.oauth1", "jwt", "stores.encryption"},
    "sqlalchemy": {"stores.database", "stores.postgresql", "stores.sql", "stores.tables"},
    "redis": {"stores.redis"},
    "opentelemetry": {"observe.otel"},
    "prometheus_client": {"observe.prometheus"},
    "uvicorn": {"__main__"},
    "flask": set(),
    "werkzeug": set(),
    "fastapi": set(),
    "starlette": set(),
    "django": set(),
    "quart": set(),
    "litestar": set(),
    "falcon": set(),
    "pyramid": set(),
    "bottle": set(),
    "flask_login": set(),
}

# The core and everything below it: no I/O, clock, lock or framework.
PURE_FLOOR = 2
IMPURE = {"asyncio", "concurrent", "select", "selectors", "socket", "ssl", "subprocess", "threading", "time"}


class Source(NamedTuple):
    """What is asked of a file. Not its syntax tree: hundreds of them would be in the way of every garbage collection.

    Attributes:
        lines: How many.
        described: Whether it begins with a docstring, or holds nothing.
        mute: The test functions that have no docstring of one line.
        needed: What it imports to be imported itself, but for what is under `if TYPE_CHECKING`, by full names.
        imported: That, and what its functions import.
        exported: Its `__all__`.
    """

    lines: int
    described: bool
    mute: list[str]
    needed: list[str]
    imported: list[str]
    exported: list[str]


@cache
def source(path: Path) -> Source:
    """A file, read once."""
    text = path.read_text(encoding="utf-8")
    module = ast.parse(text)
    return Source(
        lines=len(text.splitlines()),
        described=not module.body or bool(ast.get_docstring(module)),
        mute=[
            node.name
            for node in ast.walk(module)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
            if len((ast.get_docstring(node) or "").splitlines()) != 1
        ],
        needed=list(imports(module, inside_functions=False)),
        imported=list(imports(module, inside_functions=True)),
        exported=exports(module),
    )


def imports(module: ast.Module, *, inside_functions: bool) -> Iterator[str]:
    """The full names that a module imports, but for those under `if TYPE_CHECKING`; a relative one is ""."""
    pending: list[ast.AST] = [module]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            pending += node.orelse
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ("" if node.level else f"{node.module}.{alias.name}" for alias in node.names)
        elif inside_functions or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            pending += ast.iter_child_nodes(node)


def exports(module: ast.Module) -> list[str]:
    """A module's `__all__`, where it has one."""
    for node in module.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            exported: list[str] = ast.literal_eval(node.value)
            return exported
    return []


def name_of(path: Path) -> str:
    """A module's name without that of the package; a package is called like its folder."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def roots(names: list[str]) -> set[str]:
    """`a.b.c` -> `a`."""
    return {name.partition(".")[0] for name in names}


def neighbours(name: str) -> set[str]:
    """The modules of the package that a module needs to be imported itself."""
    # Proxy makes the doors, which are built on it, and engines that not everybody needs, when it is asked for them.
    module = source(MODULES[name])
    found = module.needed if name == "proxy" else module.imported
    return {resolve(full) for full in found if full.partition(".")[0] == "proxy_middleware"}


def resolve(full: str) -> str:
    """`proxy_middleware.errors.ProxyError` -> `errors`."""
    parts = full.split(".")[1:]
    while parts and ".".join(parts) not in MODULES:
        parts.pop()
    return ".".join(parts) or "__init__"


def test_every_module_has_its_floor() -> None:
    """A new module is put on a floor before it is used; the table does not outlive what it names."""
    assert set(MODULES) - set(FLOORS) == set()
    assert set(FLOORS) - set(MODULES) == set()


def test_imports_are_absolute() -> None:
    """No module has a relative import."""
    assert [name for name, path in MODULES.items() if "" in source(path).imported] == []


def test_imports_go_down() -> None:
    """No module imports from a floor above its own."""
    above = {name: {other for other in neighbours(name) if FLOORS[other] > FLOORS[name]} for name in MODULES}
    assert {name: others for name, others in above.items() if others} == {}


def test_no_import_goes_round() -> None:
    """Modules of one floor may need each other, but never in a circle."""
    graph = {name: neighbours(name) - {name} for name in MODULES}
    assert len(list(TopologicalSorter(graph).static_order())) == len(MODULES)


def test_libraries_stay_in_their_rooms() -> None:
    """Event loops, threads and HTTP clients are known only where they have to be."""
    used = {name: roots(source(path).imported) for name, path in MODULES.items()}
    strangers = {library: {name for name in used if library in used[name]} - users for library, users in ROOMS.items()}
    assert {library: names for library, names in strangers.items() if names} == {}


def test_core_does_no_io() -> None:
    """The core, and what it stands on, knows no clock, lock, socket or event loop."""
    pure = [name for name, floor in FLOORS.items() if floor <= PURE_FLOOR]
    used = {name: roots(source(MODULES[name]).imported) & IMPURE for name in pure}
    assert {name: libraries for name, libraries in used.items() if libraries} == {}


# What a feature needs that not everybody uses is declared as an extra.
EXTRAS = {
    "credentials.aws": "aws",
    "credentials.oauth1": "oauth1",
    "credentials._client_auth": "oauth2",
    "credentials._jwt": "oauth2",
    "jwt": "jwt",
    "observe.otel": "otel",
    "observe.prometheus": "prometheus",
    "stores.database": "sql",
    "stores.encryption": "sql",
    "stores.postgresql": "postgresql",
    "stores.redis": "redis",
    "stores.sql": "sql",
    "stores.tables": "sql",
    "testing._contract": "testing",
    "testing.fixtures": "testing",
}

# Distributions that are not imported by their own name.
IMPORTED_AS = {
    "opentelemetry-api": "opentelemetry",
    "prometheus-client": "prometheus_client",
    "pyjwt": "jwt",
}


def declared(requirements: list[str]) -> set[str]:
    """The libraries of these distributions."""
    names = (re.split(r"[^\w-]", requirement)[0].lower() for requirement in requirements)
    return {IMPORTED_AS.get(distribution, distribution) for distribution in names}


def test_only_declared_dependencies() -> None:
    """What a module needs to be imported is the standard library and what the package declares."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"] | {None: []}
    everywhere = declared(project["dependencies"]) | sys.stdlib_module_names | {"proxy_middleware"}
    used = {name: roots(source(path).needed) - everywhere for name, path in MODULES.items()}
    undeclared = {name: libraries - declared(extras[EXTRAS.get(name)]) for name, libraries in used.items()}
    assert {name: libraries for name, libraries in undeclared.items() if libraries} == {}


def test_files_are_short() -> None:
    """No file is longer than 400 lines."""
    assert [path for path in SOURCES if source(path).lines > 400] == []


def test_modules_say_what_they_are() -> None:
    """Every module that holds anything begins with a docstring."""
    assert [path for path in SOURCES if not source(path).described] == []


def test_tests_state_the_behaviour() -> None:
    """Every test function has a docstring of one line."""
    tests = [path for path in SOURCES if path.is_relative_to(ROOT / "tests") and path.name.startswith("test_")]
    assert [f"{path.name}: {name}" for path in tests for name in source(path).mute] == []


def test_exports_are_sorted() -> None:
    """A module's `__all__` is sorted as the linter sorts it, and names nothing twice."""
    exported = {name: source(path).exported for name, path in MODULES.items()}
    in_order = {name: sorted(set(names), key=place_in_all) for name, names in exported.items()}
    assert exported == in_order


def place_in_all(name: str) -> tuple[bool, bool, str]:
    """Constants, then classes, then the rest."""
    return not name.isupper(), not name[0].isupper(), name

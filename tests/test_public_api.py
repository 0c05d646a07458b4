"""What users import and call: names, signatures, defaults, and the price of the import."""

import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any, get_type_hints

import pytest

import proxy_middleware
from proxy_middleware import (
    ASGIProxyMiddleware,
    BrowserPolicy,
    Connection,
    Credential,
    EgressPolicy,
    Limits,
    Proxy,
    Replay,
    StaticCredentials,
    StaticResolver,
    Timeouts,
    WSGIProxyMiddleware,
    anyone,
)
from proxy_middleware.proxy import Settings
from tests.tables import words

NAMES = words(
    """
    ASGIProxyMiddleware AccessDenied AmbiguousSelector Authenticator BrowserPolicy Connection ConnectionNotFound
    ConnectionResolver Credential CredentialProvider EgressPolicy Event Limits Observer Proxy ProxyError ProxyRequest
    RefreshFailed Replay ResponseHead StaticCredentials StaticResolver Timeouts UpstreamRequest WSGIProxyMiddleware
    anyone bearer_tokens host_user load_credentials load_resolver nonblocking
    """
)

KEYWORDS: dict[str, Any] = {
    "prefix": "/connections",
    "limits": Limits(),
    "timeouts": Timeouts(),
    "egress": EgressPolicy(),
    "browser": BrowserPolicy(),
    "replay": Replay(),
    "cache_guard": True,
    "root_path": None,
    "spool_unframed": "auto",
    "ssl_context": None,
    "upstream": None,
    "observers": (),
}


def required() -> dict[str, Any]:
    """The three keywords without which there is no proxy."""
    return {"resolver": StaticResolver([]), "credentials": StaticCredentials({}), "authenticate": anyone}


def app(*args: object) -> Any:
    """A host application that nobody calls."""
    raise AssertionError


def make_asgi(**keywords: Any) -> object:
    """An ASGI door."""
    return ASGIProxyMiddleware(app, **keywords)


def make_wsgi(**keywords: Any) -> object:
    """A WSGI door."""
    return WSGIProxyMiddleware(app, **keywords)


every_maker = pytest.mark.parametrize("make", [Proxy, make_asgi, make_wsgi])


# Names


def test_names() -> None:
    """The public names are these, sorted, and all of them can be imported."""
    assert proxy_middleware.__all__ == NAMES == sorted(NAMES)
    for name in NAMES:
        assert getattr(proxy_middleware, name).__name__ == name


def test_unknown_name() -> None:
    """A name that is not there is an AttributeError that says so."""
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        proxy_middleware.Nothing  # noqa: B018


@pytest.mark.parametrize("name", NAMES)
def test_public_names_are_documented(name: str) -> None:
    """Everything public has a docstring of its own."""
    value = getattr(proxy_middleware, name)
    assert value.__doc__
    assert not value.__doc__.startswith(f"{name}(")


# The doors and the engine


@every_maker
def test_three_keywords_are_enough(make: Callable[..., object]) -> None:
    """Resolver, credentials and authenticator are all that is needed; nothing is opened."""
    assert make(**required())


@every_maker
def test_all_keywords(make: Callable[..., object]) -> None:
    """Everything else is a keyword of all three, and may be given its default."""
    assert make(**required(), **KEYWORDS)


@every_maker
@pytest.mark.parametrize("keyword", ["authenticate", "resolver", "credentials"])
def test_required_keywords(make: Callable[..., object], keyword: str) -> None:
    """A missing required keyword is a TypeError that names it."""
    with pytest.raises(TypeError, match=keyword):
        make(**{name: value for name, value in required().items() if name != keyword})


@every_maker
@pytest.mark.parametrize("given", [{}, {"authenticate": None}, {"authenticate": "token"}])
def test_missing_authenticate_names_the_ready_made_ones(make: Callable[..., object], given: dict[str, Any]) -> None:
    """Whoever forgets `authenticate`, or gives what cannot be called, is told what there is."""
    keywords = {name: value for name, value in required().items() if name != "authenticate"}
    with pytest.raises(TypeError) as caught:
        make(**keywords, **given)
    assert all(name in str(caught.value) for name in ("bearer_tokens", "host_user", "anyone"))


@every_maker
@pytest.mark.parametrize("keyword", ["resolver", "credentials"])
def test_plugins_of_the_wrong_kind(make: Callable[..., object], keyword: str) -> None:
    """A plugin without its method is a TypeError when the door is made, not at the first request."""
    with pytest.raises(TypeError, match=keyword):
        make(**required() | {keyword: object()})


@every_maker
def test_unknown_keyword(make: Callable[..., object]) -> None:
    """A keyword that is misspelled is a TypeError that names it."""
    with pytest.raises(TypeError, match="timeout'"):
        make(**required(), timeout=5)


@pytest.mark.parametrize("make", [ASGIProxyMiddleware, WSGIProxyMiddleware])
def test_doors_take_the_app_and_then_keywords(make: Callable[..., object]) -> None:
    """The app comes first; a second positional argument is a TypeError."""
    with pytest.raises(TypeError):
        make(app, StaticResolver([]), credentials=StaticCredentials({}), authenticate=anyone)
    with pytest.raises(TypeError):
        make(**required())


@every_maker
@pytest.mark.parametrize(
    "keywords",
    [{"prefix": "connections"}, {"prefix": "/"}, {"root_path": "mnt"}, {"spool_unframed": "sometimes"}],
)
def test_settings_that_make_no_sense(make: Callable[..., object], keywords: dict[str, Any]) -> None:
    """A setting that could not work is a ValueError that names it."""
    with pytest.raises(ValueError, match=next(iter(keywords))):
        make(**required(), **keywords)


def test_engine_makes_doors() -> None:
    """The engine's doors are those classes, around the app they were given."""
    proxy = Proxy(**required())
    asgi, wsgi = proxy.asgi(app), proxy.wsgi(app)
    assert isinstance(asgi, ASGIProxyMiddleware)
    assert isinstance(wsgi, WSGIProxyMiddleware)
    assert (asgi.app, wsgi.app) == (app, app)
    proxy.close()


def test_typed_keywords_are_the_real_ones() -> None:
    """What type checkers are told about the doors' keywords is what the engine takes."""
    parameters = inspect.signature(Proxy).parameters
    assert set(get_type_hints(Settings)) == set(parameters) == {*required(), *KEYWORDS}
    assert Settings.__required_keys__ == set(required())
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters.values())


# Signatures


def test_connection_signature() -> None:
    """Id and base URL come first, the rest are keywords."""
    parameters = inspect.signature(Connection).parameters
    positional = [name for name, parameter in parameters.items() if parameter.kind is not parameter.KEYWORD_ONLY]
    assert positional == ["id", "base_url"]
    assert set(parameters) - {"id", "base_url"} == {
        *words("integration_key integration_id allowed_origins headers methods paths timeouts"),
        *words("rewrite_links revision attributes"),
    }


@pytest.mark.parametrize(
    ("constructor", "expected"),
    [
        (Credential.bearer, "(token, *, expires_at=None)"),
        (Credential.basic, "(user, password, *, expires_at=None)"),
        (Credential.header, "(name, value, *, expires_at=None)"),
        (Credential.query, "(name, value, *, expires_at=None)"),
        (Credential.cookie, "(name, value, *, expires_at=None)"),
        (Credential.combine, "(*credentials, expires_at=None)"),
        (Credential.signed, "(sign, needs_body=False, *, expires_at=None)"),
        (proxy_middleware.bearer_tokens, "(callers)"),
        (StaticResolver, "(connections)"),
        (StaticCredentials, "(entries)"),
        (proxy_middleware.ProxyError, "(detail=None)"),
        (proxy_middleware.ConnectionNotFound, "(detail=None)"),
        (Timeouts, "(pool=10, connect=5, head=60, idle=60)"),
        (Replay, "(memory=262144, disk=16777216)"),
        (EgressPolicy, "(allow=(), deny=())"),
        (BrowserPolicy, "(forward_cookies=False, allowed_origins=(), guard=True)"),
    ],
)
def test_signatures(constructor: Callable[..., object], expected: str) -> None:
    """Arguments and their defaults are as documented."""
    signature = inspect.signature(constructor)
    bare = [parameter.replace(annotation=parameter.empty) for parameter in signature.parameters.values()]
    assert str(signature.replace(parameters=bare, return_annotation=signature.empty)) == expected


def test_protocols() -> None:
    """The seams have these methods."""
    assert list(inspect.signature(proxy_middleware.Authenticator.__call__).parameters) == ["self", "request"]
    assert list(inspect.signature(proxy_middleware.ConnectionResolver.resolve).parameters) == [
        "self",
        "selector",
        "request",
    ]
    assert list(inspect.signature(proxy_middleware.CredentialProvider.obtain).parameters) == ["self", "connection"]


def test_nonblocking_returns_the_function() -> None:
    """`nonblocking` is a decorator that changes nothing but a mark."""

    def function() -> int:
        return 1

    assert proxy_middleware.nonblocking(function) is function


# The import

IMPORT = """
import json, sys, time
before = time.process_time()
import proxy_middleware
after = time.process_time()
print(json.dumps([after - before, sorted(sys.modules)]))
"""


def imported() -> tuple[float, set[str]]:
    """Seconds of processor time that the import takes in a fresh interpreter, and what is loaded then."""
    output = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, timeout=60, check=True).stdout
    seconds, modules = json.loads(output)
    return seconds, set(modules)


def test_import_is_cheap() -> None:
    """The import takes less than 60 ms of processor time on top of the interpreter: the best of several runs."""
    assert any(imported()[0] < 0.06 for _ in range(20))


def test_import_loads_no_framework() -> None:
    """Importing the package loads no HTTP client, no framework and no event loop."""
    modules = imported()[1]
    heavy = {"httpx", "httpx2", "httpcore", "flask", "werkzeug", "fastapi", "starlette", "asyncio", "anyio", "trio"}
    assert modules.isdisjoint(heavy)
    assert "proxy_middleware" in modules


@pytest.mark.parametrize("name", ["ASGIProxyMiddleware", "WSGIProxyMiddleware", "Proxy"])
def test_doors_load_no_framework(name: str) -> None:
    """The doors themselves need no framework and no HTTP client either."""
    code = f"import sys, json, proxy_middleware; proxy_middleware.{name}; print(json.dumps(sorted(sys.modules)))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=True).stdout
    assert set(json.loads(output)).isdisjoint({"httpx", "httpx2", "flask", "werkzeug", "fastapi", "starlette"})

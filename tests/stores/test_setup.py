"""How a store is set up: its URL, its tables, and the packages that it needs."""

import subprocess
import sys
from pathlib import Path

import pytest

from proxy_middleware import stores
from proxy_middleware.stores import MemoryStore, RedisStore, SQLStore, Stored, StoreUnavailable, TokenStore
from tests.servers import ROOT
from tests.services import Postgres, Redis
from tests.stores.places import FULL, KEY, Place, SharedStore

HEAVY = ("sqlalchemy", "psycopg", "redis", "cryptography")


def run(code: str) -> str:
    """What a fresh interpreter prints."""
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30
    ).stdout


def test_stores_are_token_stores() -> None:
    """The type checker compares each with the protocol."""
    made: list[TokenStore] = [MemoryStore(), SQLStore("sqlite:///x", [KEY]), RedisStore("redis://x", [KEY])]
    assert len(made) == 3


def test_create_can_be_called_again(place: Place, shared: SharedStore) -> None:
    """It changes nothing that is there."""
    shared.put("c", FULL)
    shared.create()
    place.open().create()
    assert shared.load("c") == Stored(FULL, 1)


def test_without_create_there_is_an_error_that_says_so(place: Place) -> None:
    """A store that was not set up is not taken for an empty one; once it is, the same object works."""
    store = place.open()
    with pytest.raises(StoreUnavailable, match=r"call create\(\)"):
        store.load("c")
    place.open().create()
    assert store.load("c") is None


def test_another_release_is_not_touched(place: Place, shared: SharedStore) -> None:
    """Where the schema is of a version that is not known, nothing is read, written or created."""
    place.set_schema(2)
    store = place.open()
    with pytest.raises(StoreUnavailable, match="version"):
        store.put("c", FULL)
    with pytest.raises(StoreUnavailable, match="version"):
        store.create()
    place.set_schema(1)
    assert store.load("c") is None


def test_a_closed_store_opens_again(place: Place, shared: SharedStore) -> None:
    """Closing twice, or a store that was never used, is fine."""
    shared.put("c", FULL)
    shared.close()
    shared.close()
    place.open().close()
    assert shared.load("c") == Stored(FULL, 1)


def test_every_spelling_of_a_postgresql_url(postgres: Postgres) -> None:
    """With or without the driver's name."""
    for scheme in ("postgresql", "postgresql+psycopg"):
        store = SQLStore(postgres.fresh_url().replace("postgresql", scheme, 1), [KEY])
        store.create()
        assert store.load("c") is None
        store.close()


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file:x?mode=memory&uri=true",
        "sqlite+aiosqlite:///x",
        "mysql://user:canary@host/db",
        "postgresql+asyncpg://user:canary@host/db",
        "postgres://user:canary@host/db",
        "postgresql://user:x@host:canary/db",
        "canary",
        "",
    ],
)
def test_a_url_that_sql_store_cannot_use(url: str) -> None:
    """Other databases, other drivers and databases in memory are refused at once, without quoting the URL."""
    with pytest.raises(ValueError, match="SQLStore") as caught:
        SQLStore(url, [KEY])
    assert "canary" not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize("url", ["http://user:canary@host", "redis://user:x@host:canary", "canary", ""])
def test_a_url_that_redis_store_cannot_use(url: str) -> None:
    """Another scheme or a malformed port is refused at once, without quoting the URL."""
    with pytest.raises(ValueError, match="RedisStore") as caught:
        RedisStore(url, [KEY])
    assert "canary" not in str(caught.value)
    assert caught.value.__context__ is None


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    """A folder that is not there, or a file that is something else, is StoreUnavailable."""
    (tmp_path / "text").write_text("This is no database." * 100)
    for path in ("missing/x", "text"):
        store = SQLStore(f"sqlite:///{tmp_path / path}", [KEY])
        for method in (store.create, lambda store=store: store.load("c")):
            with pytest.raises(StoreUnavailable) as caught:
                method()
            assert str(tmp_path) not in str(caught.value)


def test_redis_keys_begin_with_the_prefix(redis_server: Redis) -> None:
    """Stores with different prefixes share a server, also where one has wildcards that would match the other."""
    url = redis_server.fresh_url()
    wild, tame = (RedisStore(url, [KEY], prefix=prefix) for prefix in ("*[a-z]?:", "ax:"))
    for store in (wild, tame):
        store.create()
    tame.put("c", FULL)
    assert wild.load("c") is None
    wild.put("d", FULL)
    rotating = RedisStore(url, [bytes(32), KEY], prefix="*[a-z]?:")
    assert rotating.rotate() == 1
    with redis_server.client() as client:
        assert {name.partition(b":")[0] for name in client.scan_iter()} == {b"*[a-z]?", b"ax"}
    for store in (wild, tame, rotating):
        store.close()


def test_the_package_is_light() -> None:
    """Importing it, or its stores, imports none of the libraries that they are built on."""
    code = f"import sys, proxy_middleware.stores; print([name for name in {HEAVY} if name in sys.modules])"
    assert run(code) == "[]\n"


@pytest.mark.parametrize(
    ("missing", "name", "extra"),
    [
        ("sqlalchemy", "SQLStore", "sql"),
        ("cryptography", "SQLStore", "sql"),
        ("redis", "RedisStore", "redis"),
        ("cryptography", "RedisStore", "redis"),
    ],
)
def test_a_missing_extra_is_named(missing: str, name: str, extra: str) -> None:
    """Whoever has not installed an extra is told which one it is."""
    code = f"""
import sys
sys.modules["{missing}"] = None
try:
    from proxy_middleware.stores import {name}
except ImportError as error:
    print(error)
"""
    assert f'"{extra}"' in run(code)


def test_postgresql_needs_its_driver() -> None:
    """Without psycopg a PostgreSQL URL is an error that names the extra, and a SQLite file works."""
    code = """
import sys
sys.modules["psycopg"] = None
from proxy_middleware.stores import SQLStore
SQLStore("sqlite:///x", [bytes(32)])
try:
    SQLStore("postgresql://host/db", [bytes(32)])
except ImportError as error:
    print(error)
"""
    assert "proxy_middleware[postgresql]" in run(code)


def test_what_is_exported_is_there() -> None:
    """All public names can be had, and no others."""
    assert [name for name in stores.__all__ if not hasattr(stores, name)] == []
    with pytest.raises(AttributeError, match="no_such_name"):
        stores.no_such_name  # noqa: B018

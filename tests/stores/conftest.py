"""Places to keep tokens, one of each kind; their servers run once in a session."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy_middleware.stores import TokenStore
from tests.services import Postgres, Redis
from tests.stores.places import Place, PostgresPlace, RedisPlace, SharedStore, SQLitePlace, memory

SHARED = ["sqlite", "postgresql", "redis"]


@pytest.fixture(scope="session")
def _postgres() -> Iterator[Postgres]:
    server = Postgres()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def _redis() -> Iterator[Redis]:
    server = Redis()
    yield server
    server.remove()


@pytest.fixture
def postgres(_postgres: Postgres) -> Postgres:
    """A running PostgreSQL server; a test may stop it."""
    _postgres.start()
    return _postgres


@pytest.fixture
def redis_server(_redis: Redis) -> Redis:
    """A running Redis server; a test may stop it."""
    _redis.start()
    return _redis


def make_place(kind: str, request: pytest.FixtureRequest) -> Place:
    """An empty place of a kind."""
    if kind == "sqlite":
        path: Path = request.getfixturevalue("tmp_path")
        return SQLitePlace(path / "tokens.db")
    if kind == "postgresql":
        return PostgresPlace(request.getfixturevalue("postgres"))
    return RedisPlace(request.getfixturevalue("redis_server"))


@pytest.fixture(params=SHARED)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """An empty place of each kind that processes can share."""
    made = make_place(request.param, request)
    yield made
    made.close()


@pytest.fixture
def shared(place: Place) -> SharedStore:
    """A store in that place, ready for use."""
    store = place.open()
    store.create()
    return store


@pytest.fixture(params=["memory", *SHARED])
def store(request: pytest.FixtureRequest) -> Iterator[TokenStore]:
    """An empty store of each kind, ready for use."""
    if request.param == "memory":
        yield memory()
        return
    made = make_place(request.param, request)
    opened = made.open()
    opened.create()
    yield opened
    made.close()

"""A server that stops, hangs and comes back: an error soon, and then the same store works again."""

import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from proxy_middleware.stores import RedisStore, SQLStore, Stored, StoreUnavailable, Tokens
from tests.services import Postgres, Redis, Service
from tests.stores.places import FULL, KEY, Place, PostgresPlace, RedisPlace, SharedStore

SERVERS = ["postgresql", "redis"]


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> Postgres | Redis:
    """A running server of each kind."""
    name = "postgres" if request.param == "postgresql" else "redis_server"
    service: Postgres | Redis = request.getfixturevalue(name)
    return service


@pytest.fixture
def store(server: Postgres | Redis) -> Iterator[SharedStore]:
    """A store on that server that is in use, with a record of connection "c"."""
    place = PostgresPlace(server) if isinstance(server, Postgres) else RedisPlace(server)
    opened = place.open()
    opened.create()
    opened.put("c", FULL)
    yield opened
    place.close()


def methods(store: SharedStore) -> list[Callable[[], object]]:
    """Calls of every method."""
    return [
        lambda: store.load("c"),
        lambda: store.save("c", FULL, 1),
        lambda: store.put("c", FULL),
        lambda: store.delete("c"),
        lambda: store.mark_dead("c", 1),
        lambda: store.acquire("c", "me", 1),
        lambda: store.renew("c", "me", 1),
        lambda: store.release("c", "me"),
        store.rotate,
        store.create,
    ]


def test_a_stopped_server_is_an_error_soon(server: Service, store: SharedStore) -> None:
    """Every method raises StoreUnavailable; once the server is back, the same store goes on."""
    server.stop()
    for method in methods(store):
        begin = time.monotonic()
        with pytest.raises(StoreUnavailable) as caught:
            method()
        assert time.monotonic() - begin < 5
        assert caught.value.__context__ is None
    server.start()
    assert store.load("c") == Stored(FULL, 1)
    assert store.save("c", Tokens("new"), 1) == 2


def test_a_restart_between_two_calls_goes_unnoticed(server: Service, store: SharedStore) -> None:
    """Connections that the server has closed meanwhile are not tried; nothing has to be sent twice."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: store.load("c"), range(20)))
    server.stop()
    server.start()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: store.load("c"), range(20))) == [Stored(FULL, 1)] * 20


def how_long(store: SharedStore) -> float:
    """The time until a call of this store raises StoreUnavailable, without a password in its traceback."""
    begin = time.monotonic()
    with pytest.raises(StoreUnavailable) as caught:
        store.load("c")
    assert "canary" not in "".join(traceback.format_exception(caught.value))
    return time.monotonic() - begin


def test_who_does_not_answer_is_an_error_soon(postgres: Postgres, redis_server: Redis, stalled_port: int) -> None:
    """Nobody waits for a server that hangs, or for a host that is not there, any longer than some seconds."""
    servers: list[Postgres | Redis] = [postgres, redis_server]
    places: list[Place] = [PostgresPlace(postgres), RedisPlace(redis_server)]
    stores = [place.open() for place in places]
    for server, store in zip(servers, stores, strict=True):
        store.create()
        store.put("c", FULL)
        server.freeze()
    nowhere = f"user:canary@127.0.0.1:{stalled_port}"
    silent = [SQLStore(f"postgresql://{nowhere}/db", [KEY]), RedisStore(f"redis://{nowhere}/0", [KEY]), *stores]
    with ThreadPoolExecutor() as pool:
        assert max(pool.map(how_long, silent)) < 9
    for server, store, place in zip(servers, stores, places, strict=True):
        server.stop()
        server.start()
        assert store.load("c") == Stored(FULL, 1)
        place.close()


def test_a_restart_under_load(server: Service, store: SharedStore) -> None:
    """Threads that go on through it see StoreUnavailable and nothing else, and then work again; no save is lost."""
    stop = threading.Event()
    failed, working = threading.Semaphore(0), threading.Semaphore(0)

    def work(name: int) -> int:
        version, errors = store.put(f"c{name}", Tokens()), 0
        working.release()
        while not stop.is_set():
            try:
                loaded = store.load(f"c{name}")
                assert loaded is not None
                assert loaded.version in (version, version + 1)  # Saved, and the answer lost.
                saved = store.save(f"c{name}", Tokens(), loaded.version)
            except StoreUnavailable:
                errors += 1
                failed.release()
                continue
            assert saved == loaded.version + 1
            version = saved
            if errors:
                working.release()
        return errors

    def eight(times: threading.Semaphore) -> bool:
        return all(times.acquire(timeout=20) for _ in range(8))

    with ThreadPoolExecutor(8) as pool:
        results = [pool.submit(work, name) for name in range(8)]
        try:
            assert eight(working)
            server.stop()
            assert eight(failed)
            server.start()
            assert eight(working)
        finally:
            stop.set()
    assert sum(result.result() for result in results) >= 8

"""What tests run in processes of their own: `python -m tests.stores.worker race|fork URL KEY`."""

import multiprocessing
import os
import sys
import threading
from typing import TYPE_CHECKING, Any

from proxy_middleware import stores
from proxy_middleware.stores import Tokens

if TYPE_CHECKING:
    from proxy_middleware.stores import RedisStore, SQLStore

PROCESSES = 4
ROUNDS = 20

_FORKING = multiprocessing.get_context("fork")


def open_store(url: str, key: str) -> "SQLStore | RedisStore":
    """A store object of this process' own; only the library that it needs is imported."""
    return stores.RedisStore(url, [key]) if url.startswith("redis") else stores.SQLStore(url, [key])


def race(url: str, key: str) -> None:
    """Starts processes that create the store, save and lease at the same time; prints what each of them got."""
    store = open_store(url, key)  # Not used before the others begin, so that each opens it for itself.
    start, won = _FORKING.Barrier(PROCESSES), _FORKING.SimpleQueue()
    processes = [_FORKING.Process(target=racer, args=(store, start, won)) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    for _ in processes:
        print(won.get())
    for process in processes:
        process.join()
        print("exit", process.exitcode)


def racer(store: "SQLStore | RedisStore", start: Any, won: Any) -> None:
    """One of the processes: reports None if it failed, or the rounds in which it saved, and got the lease."""
    saved, leased = [], []
    try:
        start.wait(30)
        store.create()
        for number in range(ROUNDS):
            if store.save(f"c{number}", Tokens(str(os.getpid())), 0) is not None:
                saved.append(number)
            if store.acquire(f"c{number}", str(os.getpid()), 600):
                leased.append(number)
        won.put((saved, leased))
    except BaseException:
        won.put(None)
        raise


def fork(url: str, key: str) -> None:
    """Uses a store, forks, and uses it on both sides at once, in several threads each."""
    store = open_store(url, key)
    store.put("c", Tokens("first"))
    child = os.fork()
    if not child:
        work(store)
        store.close()
        os._exit(0)
    work(store)
    _, status = os.waitpid(child, 0)
    work(store)
    store.close()
    print("exit", os.waitstatus_to_exitcode(status))


def work(store: "SQLStore | RedisStore") -> None:
    """Saves in four threads, each until it has got through five times; an exception ends the process."""

    def save() -> None:
        try:
            saved = 0
            while saved < 5:
                loaded = store.load("c")
                assert loaded is not None
                saved += store.save("c", Tokens(f"by {os.getpid()}"), loaded.version) is not None
        except BaseException as error:
            failures.append(error)
            raise

    failures: list[BaseException] = []
    threads = [threading.Thread(target=save) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        os._exit(1)


if __name__ == "__main__":
    {"race": race, "fork": fork}[sys.argv[1]](*sys.argv[2:])

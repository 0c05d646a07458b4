"""What every store does, whatever is behind it."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from proxy_middleware.stores import Stored, Tokens, TokenStore
from tests.stores.places import FULL, package_frames

OLD, NEW = Tokens("old"), Tokens("new", "refresh")


def comes_true(condition: Callable[[], bool]) -> bool:
    """Asks until the answer is yes, for ten seconds at most."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return False


class TestRecords:
    def test_nothing_is_there_at_first(self, store: TokenStore) -> None:
        """A connection that was never stored has no record."""
        assert store.load("c") is None

    def test_tokens_come_back_as_they_were(self, store: TokenStore) -> None:
        """Every field survives, None and empty ones too."""
        for tokens in (FULL, Tokens(), Tokens("a", extra={"empty": ""}), Tokens("", "", 0.0, "", {})):
            version = store.put("c", tokens)
            assert store.load("c") == Stored(tokens, version)

    def test_any_text_is_a_connection_id(self, store: TokenStore) -> None:
        """An id is only a name, whatever characters it has."""
        store.put("c", OLD)
        for connection_id in ("a b", "ä/%2F*?[x]", "x" * 512, "'; --", "lease:c", "C", "c ", "\U0001f511" * 512):
            assert store.load(connection_id) is None
            assert store.put(connection_id, NEW) == 1
            assert store.load(connection_id) == Stored(NEW, 1)
            assert store.acquire(connection_id, "me", 60)
            store.delete(connection_id)
            assert store.load(connection_id) is None
        assert store.load("c") == Stored(OLD, 1)

    def test_save_needs_the_version_that_is_there(self, store: TokenStore) -> None:
        """Whoever names the current version replaces the record; a second one with the same version does not."""
        first = store.put("c", OLD)
        second = store.save("c", NEW, first)
        assert second is not None
        assert second > first
        assert store.save("c", OLD, first) is None
        assert store.load("c") == Stored(NEW, second)

    def test_save_with_zero_is_for_what_is_not_there(self, store: TokenStore) -> None:
        """With version 0 only a first record is saved."""
        first = store.save("c", OLD, 0)
        assert first is not None
        assert first > 0
        assert store.save("c", NEW, 0) is None
        assert store.load("c") == Stored(OLD, first)

    def test_save_of_what_is_not_there_fails(self, store: TokenStore) -> None:
        """A version of a record that never was is not the current one."""
        assert store.save("c", OLD, 1) is None
        assert store.load("c") is None

    def test_put_replaces_whatever_is_there(self, store: TokenStore) -> None:
        """The host application does not ask for versions, and they grow."""
        versions = [store.put("c", tokens) for tokens in (OLD, NEW, OLD)]
        assert versions == sorted(set(versions))
        assert store.load("c") == Stored(OLD, versions[-1])

    def test_versions_grow_across_a_delete(self, store: TokenStore) -> None:
        """Who loaded a record before it was deleted, and stored anew, cannot save."""
        before = store.put("c", OLD)
        store.delete("c")
        assert store.load("c") is None
        assert store.save("c", NEW, before) is None
        after = store.put("c", OLD)
        assert after > before
        assert store.save("c", NEW, before) is None
        store.delete("c")
        again = store.save("c", NEW, 0)
        assert again is not None
        assert again > after

    def test_deleting_nothing_is_no_error(self, store: TokenStore) -> None:
        """A record that is not there can be forgotten."""
        store.delete("c")
        assert store.save("c", OLD, 0) == 1

    def test_dead_is_a_version(self, store: TokenStore) -> None:
        """A grant that was refused is marked in the version that was refused, and only there."""
        first = store.put("c", OLD)
        store.mark_dead("c", first)
        assert store.load("c") == Stored(OLD, first, dead=True)
        second = store.save("c", NEW, first)
        assert second is not None
        assert store.load("c") == Stored(NEW, second)
        store.mark_dead("c", first)
        assert store.load("c") == Stored(NEW, second)
        store.mark_dead("c", second)
        assert store.load("c") == Stored(NEW, second, dead=True)
        third = store.put("c", OLD)
        assert store.load("c") == Stored(OLD, third)

    @pytest.mark.parametrize("expected", [0, 1])
    def test_nothing_cannot_be_dead(self, store: TokenStore, expected: int) -> None:
        """Marking what is not there, or was deleted, makes no record."""
        store.mark_dead("c", expected)
        assert store.load("c") is None
        version = store.put("c", OLD)
        store.delete("c")
        store.mark_dead("c", version)
        store.mark_dead("c", 0)
        assert store.load("c") is None

    def test_one_of_many_threads_saves(self, store: TokenStore) -> None:
        """Of threads that name the same version, exactly one gets through, every time."""
        barrier = threading.Barrier(8)

        def run(name: int) -> int:
            won = 0
            for _ in range(5):
                barrier.wait(10)
                loaded = store.load("c")
                barrier.wait(10)
                won += store.save("c", Tokens(str(name)), loaded.version if loaded else 0) is not None
            return won

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(run, range(8))) == 5
        loaded = store.load("c")
        assert loaded is not None
        assert loaded.version == 5


class TestLeases:
    def test_a_lease_is_held_by_one(self, store: TokenStore) -> None:
        """Nobody else takes it, renews it or gives it back; for other connections there are others."""
        assert store.acquire("c", "me", 60)
        assert not store.acquire("c", "you", 60)
        assert not store.renew("c", "you", 60)
        store.release("c", "you")
        assert not store.acquire("c", "you", 60)
        assert store.acquire("d", "you", 60)

    def test_its_owner_may_take_it_again(self, store: TokenStore) -> None:
        """Only another owner is in the way."""
        assert store.acquire("c", "me", 60)
        assert store.acquire("c", "me", 60)
        assert store.renew("c", "me", 60)

    def test_what_was_given_back_is_free(self, store: TokenStore) -> None:
        """After a release the next one takes it, and the first has lost it."""
        assert store.acquire("c", "me", 60)
        store.release("c", "me")
        assert not store.renew("c", "me", 60)
        assert store.acquire("c", "you", 60)
        store.release("c", "me")
        assert store.renew("c", "you", 60)

    def test_a_lease_ends(self, store: TokenStore) -> None:
        """Whoever died with a lease is waited for no longer than it lasts; waking up later, it has lost it."""
        assert store.acquire("c", "me", 0.05)
        assert comes_true(lambda: store.acquire("c", "you", 60))
        assert not store.renew("c", "me", 60)
        assert not store.acquire("c", "me", 60)

    def test_an_ended_lease_cannot_be_renewed(self, store: TokenStore) -> None:
        """Even if nobody has taken it since: somebody might have, and given it back."""
        assert store.acquire("c", "me", 0.05)
        assert comes_true(lambda: not store.renew("c", "me", 0.001))
        assert not store.renew("c", "me", 60)

    def test_renewing_counts_from_now(self, store: TokenStore) -> None:
        """The lease lasts as long as was said last."""
        assert store.acquire("c", "me", 60)
        assert store.renew("c", "me", 0.05)
        assert comes_true(lambda: store.acquire("c", "you", 0.05))
        assert comes_true(lambda: store.acquire("c", "me", 60))

    def test_leases_and_records_are_apart(self, store: TokenStore) -> None:
        """A lease makes no record, and what happens to the record leaves the lease alone."""
        assert store.acquire("c", "me", 60)
        assert store.load("c") is None
        store.release("c", "nobody")
        version = store.save("c", OLD, 0)
        assert version is not None
        store.mark_dead("c", version)
        store.put("c", NEW)
        store.delete("c")
        assert not store.acquire("c", "you", 60)
        assert store.renew("c", "me", 60)
        store.put("c", NEW)
        store.release("c", "me")
        loaded = store.load("c")
        assert loaded is not None
        assert loaded.tokens == NEW

    def test_giving_back_nothing_is_no_error(self, store: TokenStore) -> None:
        """A connection without a lease can be released, and not renewed."""
        store.release("c", "me")
        assert not store.renew("c", "me", 60)


class Unprintable:
    """A value that JSON does not have."""

    def __repr__(self) -> str:
        return "canary"


UNFIT: list[tuple[Any, type[Exception]]] = [
    ("a token", TypeError),
    (None, TypeError),
    (Tokens("a", extra={"key": Unprintable()}), ValueError),
    (Tokens("a", extra={"key": {"canary"}}), ValueError),
    (Tokens("a", extra={"key": float("nan")}), ValueError),
    (Tokens("a", extra=["canary"]), ValueError),  # type: ignore[arg-type]
    (Tokens(b"canary"), ValueError),  # type: ignore[arg-type]
    (Tokens("a", 1), ValueError),  # type: ignore[arg-type]
    (Tokens("a", scope=["read"]), ValueError),  # type: ignore[arg-type]
    (Tokens("a", expires_at=float("inf")), ValueError),
    (Tokens("a", expires_at="soon"), ValueError),  # type: ignore[arg-type]
]


def test_what_cannot_be_stored_is_refused(store: TokenStore) -> None:
    """Bad tokens are an error that does not show them, and change nothing."""
    version = store.put("c", OLD)
    for tokens, error in UNFIT:
        writes: list[Callable[[], object]] = [
            partial(store.put, "c", tokens),
            partial(store.save, "c", tokens, version),
        ]
        for write in writes:
            with pytest.raises(error, match="Tokens") as caught:
                write()
            assert "canary" not in str(caught.value)
            assert "canary" not in package_frames(caught.value)
    assert store.load("c") == Stored(OLD, version)


def test_what_names_no_connection_is_refused(store: TokenStore) -> None:
    """An id is text of 1 to 512 characters, in every method; what no database keeps is not left to the database."""
    unfit: list[tuple[Any, type[Exception]]] = [("", ValueError), ("x" * 513, ValueError), (None, TypeError)]
    unfit += [("a\0b", ValueError), ("\ud800", ValueError)]
    for connection_id, error in unfit:
        methods: list[Callable[[], object]] = [
            partial(store.load, connection_id),
            partial(store.save, connection_id, OLD, 0),
            partial(store.put, connection_id, OLD),
            partial(store.delete, connection_id),
            partial(store.mark_dead, connection_id, 1),
            partial(store.acquire, connection_id, "me", 1),
            partial(store.renew, connection_id, "me", 1),
            partial(store.release, connection_id, "me"),
        ]
        for method in methods:
            with pytest.raises(error, match="connection id"):
                method()


def test_a_lease_needs_an_owner_and_a_time(store: TokenStore) -> None:
    """A lease of nobody, or for no time, is refused."""
    for owner, seconds in (("", 1), ("me", 0), ("me", -1), ("me", float("inf")), ("me", float("nan"))):
        for method in (store.acquire, store.renew):
            with pytest.raises(ValueError, match="lease"):
                method("c", owner, seconds)

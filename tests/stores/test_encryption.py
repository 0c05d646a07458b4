"""Tokens at rest: nothing is readable, nothing that was changed or moved is taken for what was stored."""

import logging
import threading
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Sequence
from typing import Any

import pytest

from proxy_middleware.stores import StoreCorrupted, Stored, Tokens, generate_key
from proxy_middleware.stores.encryption import SEALED, Keyring
from tests.stores.places import FULL, KEY, Place, SharedStore, package_frames

OTHER = bytes(reversed(range(32)))


def refused(store: SharedStore, connection_id: str, field: str) -> str:
    """The message that comes instead of a record; it names the connection and the field, and shows no value."""
    with pytest.raises(StoreCorrupted) as caught:
        store.load(connection_id)
    message = str(caught.value)
    assert repr(connection_id) in message
    assert f" {field} " in message
    assert "canary" not in message + package_frames(caught.value)
    return message


def test_no_secret_is_readable(place: Place, shared: SharedStore) -> None:
    """Of tokens, scope and extra members nothing stands in the file, the table or the dump."""
    shared.put("connection", FULL)
    shared.mark_dead("connection", 1)
    everything = place.everything()
    assert b"connection" in everything
    for secret in (b"canary", b"instance_url", b64encode(b"canary")[:7], b"canary".hex().encode()):
        assert secret not in everything


def test_no_secret_is_logged(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """However much the libraries log, values are encrypted by then, and the key is none of their business."""
    caplog.set_level(logging.DEBUG)
    store = place.open()
    store.create()
    store.put("c", FULL)
    store.load("c")
    store.save("c", FULL, 0)
    place.write("c", "extra", b"tampered")
    refused(store, "c", "extra")
    logged = caplog.text + "".join(str(vars(record)) for record in caplog.records)
    assert "canary" not in logged
    assert repr(KEY) not in logged


def test_equal_tokens_do_not_look_equal(place: Place, shared: SharedStore) -> None:
    """The same token is stored differently every time."""
    seen = set()
    for connection_id in ("c", "c", "d"):
        shared.put(connection_id, Tokens("same", "same"))
        seen |= {bytes(place.read(connection_id, field)) for field in ("access_token", "refresh_token")}
    assert len(seen) == 6


@pytest.mark.parametrize("field", SEALED)
def test_a_changed_value_is_noticed(place: Place, shared: SharedStore, field: str) -> None:
    """What was tampered with is refused: bytes that were changed, and what is not even bytes."""
    shared.put("c", FULL)
    sealed = bytearray(place.read("c", field))
    sealed[20] ^= 1
    place.write("c", field, bytes(sealed))
    refused(shared, "c", field)


@pytest.mark.parametrize("field", SEALED)
@pytest.mark.parametrize("position", [0, 1, 4, 5, 16, 17, -17, -16, -1])
def test_every_part_of_a_value_is_protected(field: str, position: int) -> None:
    """Format, key id, nonce, text and tag: none of them can be changed, nor the value be cut there."""
    ring = Keyring([KEY, OTHER])
    row: dict[str, Any] = {**ring.seal("c", FULL), "version": 1, "dead": 0, "expires_at": None}
    assert ring.unseal("c", row).tokens.access_token == FULL.access_token
    changed = bytearray(row[field])
    changed[position] ^= 1
    for tampered in (bytes(changed), row[field][:position], row[field] + b"x", "text", 7):
        with pytest.raises(StoreCorrupted, match=f" {field} "):
            ring.unseal("c", {**row, field: tampered})


@pytest.mark.parametrize("field", SEALED)
def test_a_removed_field_is_noticed(place: Place, shared: SharedStore, field: str) -> None:
    """Nobody can make it look as if there had been no refresh token: None is stored like a text."""
    shared.put("c", Tokens())
    assert shared.load("c") == Stored(Tokens(), 1)
    place.write("c", field, None)
    refused(shared, "c", field)


def test_swapped_rows_are_noticed(place: Place, shared: SharedStore) -> None:
    """One connection's token is not accepted as another's."""
    shared.put("mine", FULL)
    shared.put("yours", FULL)
    place.write("mine", "access_token", place.read("yours", "access_token"))
    refused(shared, "mine", "access_token")


def test_swapped_columns_are_noticed(place: Place, shared: SharedStore) -> None:
    """A refresh token is not accepted as an access token, which is sent to others."""
    shared.put("c", FULL)
    place.write("c", "access_token", place.read("c", "refresh_token"))
    refused(shared, "c", "access_token")


@pytest.mark.parametrize(("field", "value"), [("expires_at", "NaN"), ("expires_at", "Infinity")])
def test_a_time_that_is_none_is_noticed(place: Place, shared: SharedStore, field: str, value: str) -> None:
    """What stands in the clear is still checked to be of its kind."""
    shared.put("c", FULL)
    place.write("c", field, value)
    refused(shared, "c", field)


def test_a_key_that_is_not_in_the_ring(place: Place, shared: SharedStore) -> None:
    """With another key there is an error that says so, not garbage; the right one still works."""
    shared.put("c", FULL)
    assert "its key is not in the ring" in refused(place.open([OTHER]), "c", "access_token")
    assert place.open([OTHER, KEY]).load("c") == Stored(FULL, 1)


def test_rotation_encrypts_everything_anew(place: Place, shared: SharedStore) -> None:
    """After it the old key is not needed; versions, dead grants and leases stay; what is deleted stays away."""
    for number in range(5):
        shared.put(f"c{number}", Tokens(f"token{number}", expires_at=number))
    shared.mark_dead("c0", 1)
    shared.put("c1", FULL)
    shared.delete("c2")
    assert shared.acquire("c3", "me", 600)
    both = place.open([OTHER, KEY])
    both.put("c4", FULL)
    assert both.rotate() == 3
    assert both.rotate() == 0
    new = place.open([OTHER])
    assert new.load("c0") == Stored(Tokens("token0", expires_at=0), 1, dead=True)
    assert new.load("c1") == Stored(FULL, 2)
    assert new.load("c2") is None
    assert new.load("c3") == Stored(Tokens("token3", expires_at=3), 1)
    assert new.load("c4") == Stored(FULL, 2)
    assert not new.acquire("c3", "you", 600)
    assert new.save("c1", Tokens("next"), 2) == 3


def test_rotation_loses_no_save(place: Place, shared: SharedStore) -> None:
    """What processes with the old ring save meanwhile stays, and is rotated, too, when they have stopped."""
    shared.put("c", Tokens("0"))
    saved = [1]
    enough, stop = threading.Event(), threading.Event()

    def save() -> None:
        while not stop.is_set():
            version = shared.save("c", Tokens(str(saved[-1])), saved[-1])
            assert version is not None
            saved.append(version)
            if len(saved) > 50:
                enough.set()

    thread = threading.Thread(target=save)
    thread.start()
    both = place.open([OTHER, KEY])
    rotations = 0
    while not enough.is_set() and thread.is_alive():
        rotations += both.rotate()
    stop.set()
    thread.join()
    rotations += both.rotate()
    assert rotations > 0
    assert len(saved) > 50
    assert place.open([OTHER]).load("c") == Stored(Tokens(str(saved[-2])), saved[-1])


def test_rotation_goes_on_behind_what_is_corrupted(place: Place, shared: SharedStore) -> None:
    """One record that cannot be read is told, and keeps no other one on the old key."""
    for connection_id in ("a", "b", "c"):
        shared.put(connection_id, FULL)
    place.write("b", "scope", b"canary")
    with pytest.raises(StoreCorrupted, match="scope of connection 'b'"):
        place.open([OTHER, KEY]).rotate()
    new = place.open([OTHER])
    assert (new.load("a"), new.load("c")) == (Stored(FULL, 1), Stored(FULL, 1))


def test_rotation_reaches_every_record(place: Place, shared: SharedStore) -> None:
    """Also where there are more than are read at a time."""
    for number in range(110):
        shared.save(f"c{number}", Tokens(), 0)
    assert place.open([OTHER, KEY]).rotate() == 110


@pytest.mark.parametrize(
    "key",
    [
        KEY,
        b64encode(KEY),
        b64encode(KEY).decode(),
        b64encode(KEY).decode().rstrip("="),
        urlsafe_b64encode(KEY).decode(),
    ],
)
def test_a_key_is_bytes_or_base64(key: str | bytes) -> None:
    """Standard and URL-safe base64, as text or bytes, with and without padding, are the same key."""
    row = {**Keyring([KEY]).seal("c", FULL), "version": 1, "dead": 0, "expires_at": FULL.expires_at}
    assert Keyring([OTHER, key]).unseal("c", row) == Stored(FULL, 1)


@pytest.mark.parametrize(
    "keys",
    [
        [],
        "canary",
        b64encode(KEY).decode(),
        KEY,
        ["canary"],
        [KEY, "canary"],
        [b"canary"],
        ["ä" * 32],
        ["c" * 32],
        [b""],
    ],
)
def test_a_malformed_key_is_refused(keys: Sequence[str | bytes]) -> None:
    """Too short, no base64, or one key where a list belongs: an error that does not show it."""
    with pytest.raises(ValueError, match="key") as caught:
        Keyring(keys)
    assert str(caught.value) in (
        "keys takes a list of at least one key",
        "A key is 32 bytes, or their base64 text; generate_key() makes one",
    )
    assert caught.value.__context__ is None


def test_generated_keys_are_keys() -> None:
    """They fit in an environment variable, differ, and work."""
    keys = [generate_key() for _ in range(3)]
    assert len(set(keys)) == 3
    assert all(key.isascii() and len(key) == 44 for key in keys)
    Keyring(keys)


def test_a_ring_and_a_store_show_no_key() -> None:
    """Printed, they do not tell what they hold."""
    key = generate_key()
    assert key[:10] not in repr(Keyring([key])) + repr(vars(Keyring([key])))

"""Tokens at rest: each field is encrypted for itself with AES-256-GCM (NIST SP 800-38D), bound to where it is stored.

A field carries the id of its key, so that a ring of several keys knows which one to take. The connection's id and the
field's name are associated data: a value that was moved to another row or column does not decrypt. None is encrypted
like a text, so that no field can be taken away either. Left in the clear, and not authenticated, are the version,
`dead` and `expires_at`: who can write to the database can by them cause a refresh that is not needed, or prevent one,
but learn and replace no token. Nor is it noticed when an old value of the same field is put back.
"""

import os
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from math import isfinite
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from proxy_middleware.errors import StoreCorrupted
from proxy_middleware.stores.protocol import Stored, Tokens
from proxy_middleware.stores.records import dump, restore

SEALED = ("access_token", "refresh_token", "scope", "extra")

_FORMAT = b"\x01"
_KEY_ID = slice(1, 5)
_NONCE = slice(5, 17)
_CIPHERTEXT = slice(17, None)


def generate_key() -> str:
    """A new random key of 32 bytes, as URL-safe base64 text, for a store's `keys`."""
    return urlsafe_b64encode(os.urandom(32)).decode()


class _Key(NamedTuple):
    id: bytes
    cipher: AESGCM


class Keyring:
    """The keys of a store: the first encrypts, all decrypt.

    Args:
        keys: Each 32 bytes, or their base64 text, whether standard or URL-safe.

    Raises:
        ValueError: There is no key, or one is malformed.
    """

    def __init__(self, keys: Sequence[str | bytes]) -> None:
        if isinstance(keys, str | bytes) or not keys:
            raise ValueError("keys takes a list of at least one key")
        self._keys = [_parse(key) for key in keys]

    def seal(self, connection_id: str, tokens: Tokens) -> dict[str, bytes]:
        """The tokens' fields, encrypted with the first key; raises what `dump` raises."""
        return {name: self._encrypt(connection_id, name, plain) for name, plain in dump(tokens).items()}

    def unseal(self, connection_id: str, row: Mapping[str, Any]) -> Stored:
        """The record in a row as a database gave it.

        Raises:
            StoreCorrupted: The row is not what was stored, or the ring does not have its key.
        """
        # First what may fail without secrets in a frame of the traceback.
        expires_at = _parsed(connection_id, row, "expires_at", _time)
        version = _parsed(connection_id, row, "version", int)
        dead = bool(_parsed(connection_id, row, "dead", int))
        plain = {name: self._decrypt(connection_id, name, row.get(name)) for name in SEALED}
        return Stored(restore(plain, expires_at), version, dead)

    def reseal(self, connection_id: str, row: Mapping[str, Any]) -> dict[str, bytes] | None:
        """The row's fields, encrypted with the first key; None if they already are; raises what `unseal` raises."""
        record = self.unseal(connection_id, row)
        if all(row[name][_KEY_ID] == self._keys[0].id for name in SEALED):
            return None
        return self.seal(connection_id, record.tokens)

    def _encrypt(self, connection_id: str, name: str, plain: bytes) -> bytes:
        key = self._keys[0]
        nonce = os.urandom(12)
        return _FORMAT + key.id + nonce + key.cipher.encrypt(nonce, plain, _place(connection_id, name))

    def _decrypt(self, connection_id: str, name: str, sealed: Any) -> bytes:
        if not isinstance(sealed, bytes) or sealed[:1] != _FORMAT:
            raise _corrupted(connection_id, name, "it is not what was stored")
        ciphers = [key.cipher for key in self._keys if key.id == sealed[_KEY_ID]]
        for cipher in ciphers:
            try:
                return cipher.decrypt(sealed[_NONCE], sealed[_CIPHERTEXT], _place(connection_id, name))
            except (InvalidTag, ValueError):  # A cut value has no whole nonce.
                continue
        raise _corrupted(connection_id, name, "it is not what was stored" if ciphers else "its key is not in the ring")


def _parse(key: str | bytes) -> _Key:
    raw = key if isinstance(key, bytes) and len(key) == 32 else _decoded(key)
    if len(raw) != 32:
        raise ValueError("A key is 32 bytes, or their base64 text; generate_key() makes one")
    return _Key(sha256(b"proxy_middleware key id\0" + raw).digest()[:4], AESGCM(raw))


def _decoded(key: str | bytes) -> bytes:
    try:
        text = key.decode("ascii") if isinstance(key, bytes) else key
        text = text.rstrip("=").replace("-", "+").replace("_", "/")
        return b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        return b""  # Which no key is; its text is kept out of every message.


def _place(connection_id: str, name: str) -> bytes:
    # No field's name has a NUL: no two places are written alike.
    return b"\0".join((b"proxy_middleware", name.encode(), connection_id.encode()))


def _parsed(connection_id: str, row: Mapping[str, Any], name: str, parse: Callable[[Any], Any]) -> Any:
    try:
        return parse(row[name])
    except (KeyError, TypeError, ValueError, OverflowError):
        pass
    raise _corrupted(connection_id, name, "it is not what was stored")


def _time(value: Any) -> float | None:
    if value is None or value == b"":
        return None
    time = float(value)
    if not isfinite(time):
        raise ValueError("not a time")
    return time


def _corrupted(connection_id: str, name: str, reason: str) -> StoreCorrupted:
    return StoreCorrupted(f"The stored {name} of connection {connection_id!r} cannot be read: {reason}")

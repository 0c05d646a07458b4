"""What may go into a store, and how tokens are taken apart into fields that are kept, and encrypted, one by one."""

import json
from collections.abc import Mapping
from math import isfinite
from typing import Any

from proxy_middleware.stores.protocol import Tokens

# PostgreSQL's index takes no more than 2,700 bytes, and a character may need four.
_LONGEST_ID = 512
_TEXTS = ("access_token", "refresh_token", "scope")


def check_id(connection_id: str) -> None:
    """Refuses what not every store could keep apart.

    Raises:
        TypeError: It is no text.
        ValueError: It is empty, longer than 512 characters, or has a NUL or half a surrogate pair.
    """
    if not isinstance(connection_id, str):
        raise TypeError(f"A connection id is text, not {type(connection_id).__name__}")
    if not 0 < len(connection_id) <= _LONGEST_ID:
        raise ValueError(f"A connection id has 1 to {_LONGEST_ID} characters, not {len(connection_id)}")
    if "\0" in connection_id or any("\ud800" <= character <= "\udfff" for character in connection_id):
        raise ValueError("A connection id cannot have a NUL or half a surrogate pair")


def check_lease(connection_id: str, owner: str, seconds: float) -> None:
    """Refuses a lease that nobody could hold.

    Raises:
        TypeError: The connection id is no text.
        ValueError: The connection id is malformed, there is no owner, or the time is not above zero.
    """
    check_id(connection_id)
    if not owner:
        raise ValueError("A lease needs an owner")
    if not (seconds > 0 and isfinite(seconds)):
        raise ValueError(f"A lease is taken for a time above zero, not {seconds!r}")


def dump(tokens: Tokens) -> dict[str, bytes]:
    """The fields of tokens as JSON, None included, but for `expires_at`, which stays a number.

    Raises:
        TypeError: These are no tokens.
        ValueError: A field is not what it should be. Neither the message nor a frame of the traceback holds its value.
    """
    if not isinstance(tokens, Tokens):
        raise TypeError(f"A store keeps Tokens, not {type(tokens).__name__}")
    if tokens.expires_at is not None and not _is_finite(tokens.expires_at):
        raise ValueError("Tokens.expires_at must be a finite number or None")
    for name in _TEXTS:
        if not isinstance(getattr(tokens, name), str | None):
            raise ValueError(f"Tokens.{name} must be text or None")
    extra = _json(tokens.extra)
    if extra is None:
        raise ValueError("Tokens.extra must be a mapping that is JSON-serialisable")
    return {**{name: json.dumps(getattr(tokens, name)).encode() for name in _TEXTS}, "extra": extra}


def restore(fields: Mapping[str, bytes], expires_at: float | None) -> Tokens:
    """The tokens that `dump` took apart."""
    return Tokens(expires_at=expires_at, **{name: json.loads(value) for name, value in fields.items()})


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and isfinite(value)


def _json(extra: Any) -> bytes | None:
    """As JSON, or None if that cannot be: the error would quote a value, and so is not passed on."""
    if not isinstance(extra, Mapping):
        return None
    try:
        return json.dumps(dict(extra), allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError):
        return None

"""The secrets that a test must not see again: who holds them, and what they are made of."""

import base64
import binascii
from threading import Lock
from typing import NamedTuple, Protocol, Self
from weakref import WeakSet

from proxy_middleware._credential import Credential

__all__ = ["Secret", "keep_known", "known", "parts_of", "secrets_of"]

SHORTEST = 4


class Secret(NamedTuple):
    """Something to be looked for.

    Attributes:
        label: Names it in messages, without giving it away.
        value: Its bytes.
    """

    label: str
    value: bytes

    @classmethod
    def of_field(cls, label: str, value: str | bytes) -> Self:
        """That of a header field: what stands behind the scheme, if there is one; of Basic, the password."""
        raw = value.encode() if isinstance(value, str) else value
        scheme, _, rest = raw.partition(b" ")
        if scheme.lower() == b"basic" and (password := _password(rest)):
            return cls(label, password)
        return cls(label, rest if rest and b" " not in rest else raw)

    def __repr__(self) -> str:
        return f"<Secret {self.label}>"


class Holder(Protocol):
    """Something that knows secrets."""

    def secrets(self) -> list[Secret]:
        """Those that it knows by now."""


_holders: WeakSet[Holder] = WeakSet()
_lock = Lock()


def keep_known(holder: Holder) -> None:
    """Has the holder's secrets looked for as long as anybody still holds it."""
    with _lock:
        _holders.add(holder)


def known() -> list[Secret]:
    """The secrets of all holders."""
    with _lock:
        holders = list(_holders)
    return [secret for holder in holders for secret in holder.secrets()]


def secrets_of(label: str, source: str | bytes | Credential) -> list[Secret]:
    """What is to be looked for, of a text or a credential.

    Raises:
        ValueError: The credential shows no secret: it signs, and its key is known to its signer alone.
    """
    if not isinstance(source, Credential):
        return [Secret(label, source.encode() if isinstance(source, str) else source)]
    found = parts_of(label, source)
    if not found:
        raise ValueError(f"{label} is a credential that signs, which shows no secret: give its key instead")
    return found


def parts_of(label: str, credential: Credential) -> list[Secret]:
    """What the credential injects; nothing of what it makes signatures with."""
    fields = [Secret.of_field(label, value) for _, value in credential._fields]
    query = [Secret(label, text.encode()) for _, text in credential._query]
    return [*fields, *query, *(Secret(label, value) for _, value in credential._cookies)]


def _password(encoded: bytes) -> bytes:
    try:
        return base64.b64decode(encoded, validate=True).partition(b":")[2]
    except binascii.Error:
        return b""

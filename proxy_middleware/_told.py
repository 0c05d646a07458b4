"""The events that observers are told, made at little cost."""

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from proxy_middleware.models import Event

_NO_TIMINGS: Mapping[str, float] = MappingProxyType({})
_item = tuple.__getitem__


class _Raw(tuple[Any, ...]):
    """Has its subclass made by the tuple's own constructor, and not by that of a NamedTuple, a Python function."""

    __slots__ = ()
    __new__ = tuple.__new__


class Told(_Raw, Event):
    """An Event that costs little to make: no Python function makes it, and what few read is worked out when it is read.

    In the tuple stand the Origin, the path as bytes, and when each phase began, in place of what is made of them.
    """

    __slots__ = ()

    @property
    def origin(self) -> str | None:
        origin: Any = _item(self, 7)
        return None if origin is None else str(origin)

    @property
    def path(self) -> str | None:
        path: Any = _item(self, 8)  # Bytes.
        return None if path is None else path.decode("latin-1")

    @property
    def timings(self) -> Mapping[str, float]:
        times: Any = _item(self, 13)
        return _NO_TIMINGS if times is None else MappingProxyType(_seconds(self.time, *times))

    def _values(self) -> tuple[Any, ...]:
        raw = _item(self, slice(None))
        return (*raw[:7], self.origin, self.path, *raw[9:13], self.timings)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values())

    def __getitem__(self, index: Any) -> Any:
        return self._values()[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, tuple) and self._values() == tuple(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self._values()[:13])

    def __repr__(self) -> str:
        return repr(Event(*self))

    def __reduce__(self) -> Any:
        return Event, (*self[:13], dict(self.timings))

    @classmethod
    def _make(cls, iterable: Iterable[Any]) -> Event:  # type: ignore[override]
        return Event._make(iterable)


def _seconds(over: float, began: float, resolved: float, sent: float, answered: float) -> dict[str, float]:
    seconds = {"total": over - began}
    if resolved:
        seconds["resolve"] = resolved - began
    if sent:
        seconds["credential"] = sent - resolved
    if answered:
        seconds["upstream"] = answered - sent
        seconds["relay"] = over - answered
    return seconds

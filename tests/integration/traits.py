"""What each server does by itself to a request before the proxy sees it, and to a response after.

Whatever is not written here must be the same on all of them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from tests.wire import Fields

_MARKS = frozenset({b"date", b"server"})


def _capitalised(name: bytes) -> bytes:
    return b"-".join(part.capitalize() for part in name.split(b"-"))


def _kept(name: bytes) -> bytes:
    return name


@dataclass(frozen=True, kw_only=True)
class Traits:
    """One server.

    Attributes:
        joined_by: CGI variables hold one value per name: duplicates are joined with this, where the first one stood.
            Content-Type has a variable of its own, which the door reads last.
        groups: Duplicates are grouped where the first one stood, each still a field of its own.
        drops_underscores: Request fields with "_" in their name are dropped.
        unchunks: A chunked body is collected, and handed over with its length.
        name: How the names of response fields are spelled.
        sorts: Response fields are sorted.
        groups_response: Duplicates are grouped in responses, too.
        keeps_reason: The reason phrase is the upstream's.
        adds: Fields that the server adds to every response, beside those of the same name from the upstream.
        replaces: Fields that the server sets instead of the upstream's.
    """

    joined_by: bytes | None = None
    groups: bool = False
    drops_underscores: bool = False
    unchunks: bool = False
    name: Callable[[bytes], bytes] = bytes.lower
    sorts: bool = False
    groups_response: bool = False
    keeps_reason: bool = False
    adds: frozenset[bytes] = _MARKS
    replaces: frozenset[bytes] = frozenset()

    def handed_over(self, fields: Fields) -> Fields:
        """The request fields as the proxy sees them, in its own spelling: lower case."""
        if self.drops_underscores:
            fields = tuple(pair for pair in fields if b"_" not in pair[0])
        fields = tuple((name.lower(), value) for name, value in fields)
        if self.joined_by is not None:
            kept = {name: self.joined_by.join(v for n, v in fields if n == name) for name, _ in fields}
            last = b"content-type"
            return tuple(sorted(kept.items(), key=lambda pair: pair[0] == last))
        return _grouped(fields) if self.groups else fields

    def delivered(self, fields: Fields) -> Fields:
        """The response fields as the server writes them."""
        fields = tuple((self.name(name), value) for name, value in fields if name.lower() not in self.replaces)
        if self.groups_response:
            fields = _grouped(fields)
        return tuple(sorted(fields)) if self.sorts else fields

    def without_own(self, fields: Fields, expected: Fields) -> Fields:
        """Response fields without what the server added: its marks, and the framing between it and the caller.

        It adds each of them once: a second one came through the proxy, and is not what is expected.
        """
        left, own = [], self.adds | {b"connection", b"keep-alive", b"transfer-encoding"}
        for pair in fields:
            name = pair[0].lower()
            if name in own and pair not in expected:
                own -= {name}
            else:
                left.append(pair)
        return tuple(left)


def _grouped(fields: Fields) -> Fields:
    names = dict.fromkeys(name for name, _ in fields)
    return tuple(pair for name in names for pair in fields if pair[0] == name)


_WSGI = Traits(joined_by=b",", drops_underscores=True, keeps_reason=True)
_GUNICORN = replace(_WSGI, name=_kept, replaces=_MARKS)

TRAITS = {
    "uvicorn-httptools": Traits(),
    "uvicorn-h11": Traits(),
    "hypercorn": Traits(),
    "hypercorn-trio": Traits(),
    # hyper announces the length of a body that it gets in one piece.
    "granian": Traits(groups=True, groups_response=True, adds=_MARKS | {b"content-length"}),
    "gunicorn-gthread": _GUNICORN,
    "gunicorn-sync": _GUNICORN,
    # It names itself in Via where the response has a Server field already.
    "waitress": replace(_WSGI, joined_by=b", ", unchunks=True, name=_capitalised, sorts=True, adds=_MARKS | {b"via"}),
    "werkzeug": replace(_WSGI, name=_kept),
}

"""Which paths of a connection may be called: `Connection.paths`."""

import re
from collections.abc import Iterable
from urllib.parse import unquote_to_bytes

from proxy_middleware._target import HIDDEN_DOTS, Base

_ENCODED_SEPARATOR = re.compile(rb"%(2f|5c)", re.IGNORECASE)


def path_glob(pattern: str) -> re.Pattern[str]:
    """Compile an entry of `Connection.paths`; "*" and "?" stop at a slash. ValueError without a slash at the start."""
    if not pattern.startswith("/"):
        raise ValueError("a path pattern starts with a slash")
    *chunks, last = pattern.split("**")
    body, star, tail = last.rpartition("*")
    end = (_glob_chunk(body) + "[^/]*" if star else "") + _glob_chunk(tail)
    if not chunks:
        return re.compile(end)
    first, *middle = map(_glob_chunk, chunks)
    return re.compile(first + "".join(f"(?>.*?{chunk})" for chunk in middle) + ".*" + end, re.DOTALL)


def _glob_chunk(text: str) -> str:
    # Every star but the last takes as little as it can and never gives back (as in fnmatch.translate): the next star
    # makes up for it, and a hostile path cannot make the match take polynomial time.
    first, *rest = ("[^/]".join(map(re.escape, part.split("?"))) for part in text.split("*"))
    return first + "".join(f"(?>[^/]*?{part})" for part in rest)


def path_allowed(globs: Iterable[re.Pattern[str]], target: bytes, base: Base) -> bool:
    """Whether a request target inside the base URL matches one of the globs.

    Args:
        globs: What `path_glob` gave.
        target: The request target in origin-form from `resolve_target`; a query does not count.
        base: The connection's base URL; what is not below its path never matches, the base URL itself is "/".
    """
    path = target.partition(b"?")[0]
    # Without a base path such targets are forwarded, but a rule about paths cannot tell where they lead.
    if not (path + b"/").startswith(base.path + b"/") or HIDDEN_DOTS.search(path):
        return False
    # A decoded slash would look like a boundary between segments that the upstream may not see.
    kept = _ENCODED_SEPARATOR.sub(lambda escape: b"%25" + escape[1].upper(), path[len(base.path) :] or b"/")
    try:
        text = unquote_to_bytes(kept).decode("utf-8")
    except UnicodeDecodeError:
        return False
    return any(glob.fullmatch(text) for glob in globs)

"""From the raw request path to a selector, and from a target to the upstream's origin and request target.

Everything works on the bytes as they were sent: what only looks like ours once decoded is the host's, and what is
forwarded is forwarded byte for byte. Each public step tries one regular expression that knows the ordinary request and
leaves the careful work to a second function.
"""

import functools
import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote, unquote_to_bytes

from proxy_middleware.errors import AccessDenied, ConnectionNotFound, InvalidTarget

_DEFAULT_PORTS = {"http": 80, "https": 443}
_TARGET_LIMIT = 16 * 1024  # bytes, path and query together
_PCHAR = "!$&'()*+,;=:@/"  # RFC 3986 section 3.3, beyond what quote() never escapes

_AUTHORITY = re.compile(rb"(?:([A-Za-z0-9._-]{1,253})|\[([0-9A-Fa-f:.]{2,45})\])(?::([0-9]{1,5}))?")
_NAME = re.compile(r"(?:[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?(?:\.|\Z))+(?<!\.)")
# What inet_aton reads as an address (127.1, 0x7f.1, 2130706433); the WHATWG URL standard's "ends in a number".
_ENDS_IN_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")
_URL = re.compile(r"(https?)://([!-\"$-.0->@-~]*)([!-\"$->@-~]*)([?#][!-~]*)?", re.IGNORECASE)

_PREFIX = re.compile(r"(?:/(?!\.\.?(?:/|\Z))[A-Za-z0-9._~-]+)+")
_SELECTOR = re.compile(rb"[A-Za-z0-9_.~:@+ -]{1,256}")
NOT_PATH = re.compile(rb"\A[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*|[?#].*", re.DOTALL)

# No escape, parameter, empty segment, leading dot or full URL: nothing to look at twice.
_SEGMENTS = rb"(?!/(?i:https?):/)(?:/[\w~!$&'()*+,=:@-][\w~!$&'()*+,=:@.-]*+)"
_PLAIN_TARGET = re.compile(_SEGMENTS + rb"*+/?")
_ORDINARY_TARGET = re.compile(rb"(?=.{1,16384}\Z)" + _SEGMENTS + rb"++/?(?:\?[!-\"$-~]*+)?")
_PRINTABLE_TARGET = re.compile(rb"(?:/[!->@-~]*)?")
_PRINTABLE = re.compile(rb"[!-~]*")
_FULL_URL = re.compile(rb"/(https?):/{1,2}([^/]*)(.*)", re.IGNORECASE | re.DOTALL)
# Servers differ in whether they cut ";parameters" before or after they resolve dot segments, and decode before both.
DOTS = re.compile(rb"/(?:\.|%2e){1,2}(?=[/;]|%3b|\Z)", re.IGNORECASE)
HIDDEN_DOTS = re.compile(rb"(?:[/\\]|%2f|%5c)(?:\.|%2e){1,2}(?=[/\\;]|%2f|%5c|%3b|\Z)", re.IGNORECASE)


class Origin(NamedTuple):
    """A server (RFC 6454): `host` is lower-case ASCII, IPv6 without brackets, and `port` always explicit."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> bytes:
        """The value of the Host field (RFC 9110 section 7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}").encode("ascii")

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority.decode('ascii')}"


class Base(NamedTuple):
    """A connection's base URL. `path` has no trailing slash and is empty where the URL has none."""

    origin: Origin
    path: bytes


class OriginPattern(NamedTuple):
    """One entry of `Connection.allowed_origins`; `host` is a name, ".name" for all names below it, or "*"."""

    scheme: str
    host: str
    port: int

    def allows(self, origin: Origin) -> bool:
        """Whether the pattern covers this origin; "*" covers every https origin."""
        if self.host == "*":
            return origin.scheme == self.scheme
        same_host = origin.host.endswith(self.host) if self.host.startswith(".") else origin.host == self.host
        return same_host and (origin.scheme, origin.port) == (self.scheme, self.port)


class Match(NamedTuple):
    """A request that is ours: the selector, decoded once, and the raw bytes after "/proxy" without the query."""

    selector: str
    target: bytes


def checked_selector(selector: str) -> str:
    """A selector that a program gives, rather than a caller's URL.

    Raises:
        ValueError: No connection can be called that.
    """
    if _SELECTOR.fullmatch(selector.encode("utf-8")) is None:
        raise ValueError(f"A selector is 1 to 256 of letters, digits, blanks and _.~:@+-, not {selector!r}")
    return selector


def parse_origin(authority: bytes, scheme: str) -> Origin:
    """Parse `host[:port]` strictly: ASCII, no userinfo, no zone, no trailing dot (RFC 3986 section 3.2).

    Raises:
        InvalidTarget: The authority is malformed, or an IPv4 address in another than the plain dotted form.
    """
    found = _AUTHORITY.fullmatch(authority)
    if found is None:
        raise InvalidTarget("The URL's host or port is malformed")
    name, ipv6, digits = found.groups(default=b"")
    host = _parse_host(name.decode("ascii").lower(), ipv6.decode("ascii"))
    port = int(digits) if digits else _DEFAULT_PORTS[scheme]
    if not 1 <= port <= 65535:
        raise InvalidTarget("The URL's port is not between 1 and 65535")
    return Origin(scheme, host, port)


def _parse_host(name: str, ipv6: str) -> str:
    try:
        if ipv6:
            return str(ipaddress.IPv6Address(ipv6))
        if _ENDS_IN_NUMBER.fullmatch(name):
            return str(ipaddress.IPv4Address(name))
    except ValueError:
        raise InvalidTarget("The URL's host is not an address in its plain form") from None
    if _NAME.fullmatch(name) is None:
        raise InvalidTarget("The URL's host name is malformed")
    return name


def parse_base(url: str) -> Base:
    """Parse a connection's base URL.

    Raises:
        ValueError: It is no http(s) URL of host, port and path alone. The message never repeats what may be a secret.
    """
    origin, path, rest = _parse_url(url, "a base URL")
    if rest:
        raise ValueError("a base URL has neither a query nor a fragment")
    raw = path.rstrip("/").encode("ascii")
    if HIDDEN_DOTS.search(raw):
        raise ValueError("a base URL has no dot segments")
    return Base(origin, raw)


def parse_origin_pattern(text: str) -> OriginPattern:
    """Parse an entry of `Connection.allowed_origins`: an origin, one with "*." before its host, or "*".

    Raises:
        ValueError: It is anything else.
    """
    if text == "*":
        return OriginPattern("https", "*", 0)
    scheme, star, host = text.partition("://*.")
    origin, path, rest = _parse_url(f"{scheme}://{host}" if star else text, "an allowed origin")
    if path or rest:
        raise ValueError("an allowed origin has neither a path nor a query nor a fragment")
    if star and (":" in origin.host or _ENDS_IN_NUMBER.fullmatch(origin.host)):
        raise ValueError("an allowed origin has no star before an address")
    return OriginPattern(origin.scheme, "." + origin.host if star else origin.host, origin.port)


def _parse_url(url: str, what: str) -> tuple[Origin, str, str]:
    found = _URL.fullmatch(url)
    if found is None:
        raise ValueError(f"{what} starts with http:// or https:// and is ASCII without blanks and control characters")
    scheme, authority, path, rest = found.groups(default="")
    if "@" in authority:
        raise ValueError(f"{what} holds no user name and password")
    try:
        return parse_origin(authority.encode("ascii"), scheme.lower()), path, rest
    except InvalidTarget as error:
        raise ValueError(f"{what} needs a valid host and port: {error.detail}") from None


class Matcher:
    """Tells our requests from the host's by their raw path. Built once per door.

    Args:
        prefix: Where the connections live, such as "/connections".
        root_path: The mount prefix, instead of what each request's `root_path` or `SCRIPT_NAME` says; some servers
            let the caller choose those.

    Raises:
        ValueError: A prefix is not made of plain ASCII segments, or a root path does not start with a slash.
    """

    def __init__(self, prefix: str, root_path: str | None = None) -> None:
        if _PREFIX.fullmatch(prefix) is None:
            raise ValueError("prefix starts with a slash, ends without one, and is made of letters, digits and ._~-")
        if root_path and not root_path.startswith("/"):
            raise ValueError("root_path starts with a slash")
        self._prefix = prefix
        self._raw_prefix = prefix.encode("ascii")
        self._root_path = root_path
        start = re.escape(self._raw_prefix)
        self._pattern = re.compile(start + rb"/([^/?#]+)/proxy(/[^?#]*)?", re.DOTALL)
        # Without "%", "?" and "#" decoding changes nothing.
        self._plain = re.compile(start + rb"/([A-Za-z0-9_.~:@+-]{1,256})/proxy(/[!-\"$&->@-~]*)?").fullmatch

    def match_asgi(self, scope: Mapping[str, Any]) -> Match | None:
        """Match an ASGI HTTP scope; None means the host's.

        Raises:
            ConnectionNotFound: The path is ours and its selector is malformed.
            InvalidTarget: Raw and decoded path disagree and one of them has dot segments.
        """
        path: str = scope["path"]
        raw: bytes | None = scope.get("raw_path")
        root: str = scope.get("root_path", "")
        if raw is not None and (found := self._match_plain(raw, path, root)):
            return found
        if self._prefix not in path and (raw is None or self._raw_prefix not in raw):
            return None
        decoded = path.encode("utf-8", "surrogateescape")
        # Older frameworks cut the mount prefix off `path`, but not off `raw_path`.
        return self._match_checked(raw, (decoded, root.encode("utf-8", "surrogateescape") + decoded), root)

    def match_wsgi(self, environ: Mapping[str, Any]) -> Match | None:
        """Match a WSGI environ; None means the host's. Raises what `match_asgi` raises."""
        root: str = environ.get("SCRIPT_NAME", "")
        path: str = root + environ.get("PATH_INFO", "")
        raw = raw_wsgi_path(environ)
        if self._prefix not in path and (raw is None or self._raw_prefix not in raw):
            return None
        if raw is not None and (found := self._match_plain(raw, path, root)):
            return found
        decoded, script = latin1(path), latin1(root)
        # waitress's url_prefix is in SCRIPT_NAME even where the front server has cut it off the path.
        return self._match_checked(raw, (decoded, decoded[len(script) :]), script.decode("utf-8", "surrogateescape"))

    def _match_plain(self, raw: bytes, path: str, root_path: str) -> Match | None:
        root = root_path if self._root_path is None else self._root_path
        found = self._plain(raw, len(root) if root and path.startswith(root) else 0)
        if found is None or raw.decode("latin-1") != path:
            return None
        selector, target = found.groups(b"")
        return tuple.__new__(Match, (selector.decode("ascii"), target))

    def match(self, raw: bytes, root_path: str) -> Match | None:
        """Match a raw path without its query; None means the host's. Raises ConnectionNotFound as `match_asgi` does."""
        found = self._find(raw, root_path)
        if found is None:
            return None
        segment, target = found.groups(default=b"")
        if b"%" in segment:
            segment = unquote_to_bytes(segment)
        if _SELECTOR.fullmatch(segment) is None:
            raise ConnectionNotFound
        return Match(segment.decode("ascii"), target)

    def _find(self, raw: bytes, root_path: str) -> re.Match[bytes] | None:
        root = root_path if self._root_path is None else self._root_path
        return self._pattern.fullmatch(_strip_root(raw, root) if root else raw)

    def _match_checked(self, raw: bytes | None, decoded: tuple[bytes, bytes], root: str) -> Match | None:
        """Cross-check the raw path with the decoded one, of which there are two readings, the usual one first."""
        if raw is None:
            _say_requoted()
            raw = quote(decoded[0], safe=_PCHAR).encode("ascii")
        path = NOT_PATH.sub(b"", raw)
        if _agree((path, raw.partition(b"?")[0]), decoded):
            return self.match(path, root)
        rewritten = quote(decoded[0], safe=_PCHAR).encode("ascii")
        if not (HIDDEN_DOTS.search(path) or HIDDEN_DOTS.search(rewritten)):
            return self.match(rewritten, root)
        if self._find(path, root) or self._find(rewritten, root):
            raise InvalidTarget("The path has dot segments")
        return None


def raw_wsgi_path(environ: Mapping[str, Any]) -> bytes | None:
    uri: str | None = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    if uri:
        return latin1(uri).partition(b"?")[0]
    scope = environ.get("asgi.scope")
    raw: bytes | None = scope.get("raw_path") if scope else None
    return raw


def latin1(text: str) -> bytes:
    # PEP 3333 strings are bytes in disguise. One that is not must not break the host's request.
    return text.encode("latin-1", "backslashreplace")


def _agree(raw: tuple[bytes, bytes], decoded: tuple[bytes, bytes]) -> bool:
    """Whether a decoded path is a server's reading of the raw one, which may keep its authority and fragment."""
    for text in raw:
        plain = unquote_to_bytes(text)
        if plain in decoded:
            return True
        # cheroot keeps %2F; many replace what is not UTF-8; waitress and werkzeug merge leading slashes.
        cheroot = unquote_to_bytes(text.replace(b"%2f", b"%2F").replace(b"%2F", b"%252F"))
        readings = {plain, cheroot, plain.decode("utf-8", "replace").encode()}
        readings |= {b"/" + reading.lstrip(b"/") for reading in readings if reading.startswith(b"//")}
        if not readings.isdisjoint(decoded):
            return True
    return False


def _strip_root(raw: bytes, root_path: str) -> bytes:
    """Cut the mount prefix off where the path starts with it; not every server puts it there."""
    root = root_path.rstrip("/").encode("utf-8", "surrogateescape")
    if raw.startswith(root + b"/") and b"%" not in root:
        return raw[len(root) :]
    decoded, end = b"", 0
    while decoded != root:
        start, end = end, raw.find(b"/", end + 1)
        if end < 0 or len(decoded) > len(root):
            return raw
        decoded += unquote_to_bytes(raw[start:end])
    return raw[end:]


@functools.cache
def _say_requoted() -> None:
    import logging  # Most processes never say this, and importing the package should stay cheap.

    logging.getLogger("proxy_middleware").warning(
        "The server hands over no raw path: an encoded slash in a target reaches the upstream as a slash"
    )


# A match if a target, with its query, is for the base URL's origin and needs no second look.
is_ordinary = _ORDINARY_TARGET.fullmatch


def resolve_target(
    target: bytes, query: bytes | None, base: Base, allowed: Sequence[OriginPattern]
) -> tuple[Origin, bytes, bool]:
    """Join a target to the base URL, or take the full URL that it is.

    Args:
        target: What follows "/proxy", raw, without the query: empty, or starting with a slash.
        query: The raw query without its question mark; None where there is no question mark.
        base: The connection's base URL.
        allowed: The further origins that a full URL may name.

    Returns:
        The origin, the request target in origin-form with its query, and whether it lies inside the base URL.

    Raises:
        InvalidTarget: It is malformed, has dot segments or is longer than 16 KiB.
        AccessDenied: The origin is neither the base URL's nor allowed.
    """
    if len(target) + len(query or b"") > _TARGET_LIMIT:
        raise InvalidTarget("The target is longer than 16 KiB")
    if _PLAIN_TARGET.fullmatch(target):
        origin, path, inside = base.origin, base.path + target or b"/", True
    else:
        target, fragment, _ = target.partition(b"#")
        query = None if fragment else query
        origin, path, inside = _resolve_unusual(target, base, allowed)
    if query:
        query = query.partition(b"#")[0]
        if _PRINTABLE.fullmatch(query) is None:
            raise InvalidTarget("The query has blanks, control characters or bytes outside ASCII")
    return origin, path if query is None else path + b"?" + query, inside


def _resolve_unusual(target: bytes, base: Base, allowed: Sequence[OriginPattern]) -> tuple[Origin, bytes, bool]:
    if _PRINTABLE_TARGET.fullmatch(target) is None:
        raise InvalidTarget("The target has blanks, control characters or bytes outside ASCII")
    url = _FULL_URL.fullmatch(target)
    if url is None:
        origin, path, inside = base.origin, base.path + target or b"/", True
    else:
        origin, path = parse_origin(url[2], url[1].decode("ascii").lower()), url[3] or b"/"
        inside = origin == base.origin and (path + b"/").startswith(base.path + b"/")
    if (HIDDEN_DOTS if base.path else DOTS).search(path):
        raise InvalidTarget("The target has dot segments")
    # "*" reaches http only from a base URL that is http itself: nobody downgrades a credential by a target.
    same_scheme = origin.scheme == base.origin.scheme
    if origin != base.origin and not any(o.allows(origin) or (o.host == "*" and same_scheme) for o in allowed):
        raise AccessDenied("The connection does not allow this origin")
    return origin, path, inside

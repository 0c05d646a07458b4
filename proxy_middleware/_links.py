"""Links that stay inside: a response's URLs that point at the connection's own origins, in the proxy's form.

Who follows a redirect, or asks for the next page, then comes back to the proxy, and by that to the credential. A URL is
rewritten if the proxy would send a request for its new form to exactly that URL; any other stays as it came.
"""

import re
from collections.abc import Callable, Iterator
from urllib.parse import quote, unquote_to_bytes

from proxy_middleware._fields import Field
from proxy_middleware._target import (
    HIDDEN_DOTS,
    NOT_PATH,
    Origin,
    latin1,
    parse_origin,
    raw_wsgi_path,
    resolve_target,
)
from proxy_middleware.errors import AccessDenied, InvalidTarget
from proxy_middleware.models import Connection, ProxyRequest

# RFC 3986 appendix B: scheme, authority, path, query, and the fragment with its mark. It matches everything.
_REFERENCE = re.compile(rb"(?:([^:/?#]+):)?(?://([^/?#]*))?([^?#]*)(?:\?([^#]*))?(#.*)?", re.DOTALL)
# RFC 8288 section 3: links are separated by commas, which the quoted strings in their parameters may hold as well.
_PARAMETERS = rb'(?:[^",]|"(?:[^"\\]|\\.)*+")*+(?:,[\t ,]*+)?'
_LINK = re.compile(rb"<([^<>]*)>(%b)" % _PARAMETERS, re.DOTALL)
_LINKS = re.compile(rb"[\t ,]*+(?:<[^<>]*>%b)*+" % _PARAMETERS, re.DOTALL)
# The path of the proxy itself holds nothing that ends a link's brackets or could be read as an authority.
_PLACE = re.compile(rb"(?:/[\w.~!$&'()*+,;=:@%-]+)+/proxy")


def rewrite_links(
    fields: list[Field],
    request: ProxyRequest,
    connection: Connection,
    origin: Origin,
    target: bytes,
    root_path: str | None,
) -> list[Field]:
    """The response's fields with the links in `Location`, `Content-Location` and `Link` in the proxy's form.

    Args:
        fields: The response's.
        request: The caller's.
        connection: Says which origins are rewritten.
        origin: Where the request was sent.
        target: What it was sent for, in origin form.
        root_path: The mount prefix, instead of what the server says.
    """
    if not any(name.lower() in _REWRITERS for name, _ in fields):
        return fields
    place = _place(request, root_path)
    if place is None:
        return fields
    inside = _Inside(request, connection, origin, target, place)
    return [
        (name, rewrite(inside, value)) if (rewrite := _REWRITERS.get(name.lower())) else (name, value)
        for name, value in fields
    ]


class _Inside:
    """Puts the URI references of one response in the proxy's form; takes what `rewrite_links` takes, and the place."""

    def __init__(
        self, request: ProxyRequest, connection: Connection, origin: Origin, target: bytes, place: bytes
    ) -> None:
        self._request = request
        self._base, self._allowed = connection.base, connection.origins
        self._origin = origin
        self._path = _split(target)[0]
        self._place = place
        self._caller_path = place + _split(request.target)[0]

    def links(self, value: bytes) -> bytes:
        """A `Link` value with the targets of its links in the proxy's form; their parameters stay, `anchor` too."""
        if _LINKS.fullmatch(value) is None:
            return value
        return _LINK.sub(lambda link: b"<%b>%b" % (self.reference(link[1]), link[2]), value)

    def reference(self, value: bytes) -> bytes:
        """A URL becomes a URL of the proxy and a path becomes a path, unless it means the same as it is."""
        found = _REFERENCE.fullmatch(value)
        assert found is not None
        scheme, authority, path, query, fragment = found.groups()
        if scheme and (scheme.lower() not in (b"http", b"https") or authority is None):
            return value
        origin, site = str(self._origin).encode("ascii"), b""
        if authority is not None:
            origin = b"%b://%b" % (scheme or self._origin.scheme.encode("ascii"), authority)
            site = _site(self._request)
        elif not path or (path[:1] != b"/" and self._means_the_same(path)):
            return value
        elif path[:1] != b"/":
            path = _join(self._path, path)
        target = self._target(origin + _without_dots(path), query)
        return value if target is None else site + self._place + target + (fragment or b"")

    def _means_the_same(self, path: bytes) -> bool:
        """Whether a relative path leads to the same URL from where the caller is as from where the upstream is."""
        joined = _join(self._caller_path, path)
        if not joined.startswith(self._place):
            return False
        found = self._leads_to(joined[len(self._place) :], None)
        return found is not None and found[:2] == (self._origin, _join(self._path, path))

    def _target(self, url: bytes, query: bytes | None) -> bytes | None:
        """What follows "/proxy" for a URL: short, where that is possible. None if it is not the connection's."""
        found = self._leads_to(b"/" + url, query)
        if found is None:
            return None
        origin, target, _ = found
        short = target[len(self._base.path) :]
        # Not outside the base URL, nor where the path looks like a URL itself.
        if self._leads_to(*_split(short)) == found:
            return short
        return b"/" + str(origin).encode("ascii") + target

    def _leads_to(self, target: bytes, query: bytes | None) -> tuple[Origin, bytes, bool] | None:
        """Where the proxy would send a request for this target; None if it would refuse it."""
        try:
            return resolve_target(target, query, self._base, self._allowed)
        except (AccessDenied, InvalidTarget):
            return None


_REWRITERS: dict[bytes, Callable[[_Inside, bytes], bytes]] = {
    b"location": _Inside.reference,
    b"content-location": _Inside.reference,
    b"link": _Inside.links,
}


def _split(target: bytes) -> tuple[bytes, bytes | None]:
    path, mark, query = target.partition(b"?")
    return path, query if mark else None


def _join(base: bytes, relative: bytes) -> bytes:
    """RFC 3986 section 5.2.3."""
    return _without_dots(base[: base.rfind(b"/") + 1] + relative)


def _without_dots(path: bytes) -> bytes:
    """RFC 3986 section 5.2.4, as clients do it; empty segments are segments."""
    kept: list[bytes] = []
    segments = path.split(b"/")
    for segment in segments[1:]:
        if segment == b"..":
            del kept[-1:]
        elif segment != b".":
            kept.append(segment)
    if segments[-1] in (b".", b".."):
        kept.append(b"")
    return b"".join(b"/" + segment for segment in kept)


def _site(request: ProxyRequest) -> bytes:
    """The origin that the caller has called, by its own Host; empty where there is no valid one."""
    if request.environ is not None:
        scheme = request.environ.get("wsgi.url_scheme")
    else:
        scheme = request.scope.get("scheme", "http")
    hosts = [value for name, value in request.fields if name.lower() == b"host"]
    if scheme not in ("http", "https") or len(hosts) != 1:
        return b""
    try:
        parse_origin(hosts[0], scheme)
    except InvalidTarget:
        return b""
    return b"%b://%b" % (scheme.encode("ascii"), hosts[0])


def _place(request: ProxyRequest, root_path: str | None) -> bytes | None:
    """The path up to and with "/proxy", mount prefix included, as the caller spelled it; None where it cannot be."""
    paths = _paths(request)
    if paths is None:
        return None
    raw, path, root = paths
    if root_path is not None:
        root = root_path.encode("utf-8", "surrogateescape")
    root = root.rstrip(b"/")
    for place in _places(raw, path, _split(request.target)[0]):
        # A front server may have cut the mount prefix off.
        mounted = unquote_to_bytes(place).startswith(root + b"/")
        whole = place if mounted else quote(root).encode("ascii") + place
        if _PLACE.fullmatch(whole) and not HIDDEN_DOTS.search(whole):
            return whole
    return None


def _places(raw: bytes | None, path: bytes, target: bytes) -> Iterator[bytes]:
    """What is before the target: in the raw path, and in the decoded one, which counts where they differ."""
    if raw is not None and (raw := NOT_PATH.sub(b"", raw)).endswith(target):
        yield raw.removesuffix(target)
    decoded = unquote_to_bytes(target)
    if path.endswith(decoded):
        yield quote(path.removesuffix(decoded)).encode("ascii")


def _paths(request: ProxyRequest) -> tuple[bytes | None, bytes, bytes] | None:
    """The raw path, the decoded path and the mount prefix; None where the request came through no server."""
    if (environ := request.environ) is not None:
        root: str = environ.get("SCRIPT_NAME", "")
        path: str = root + environ.get("PATH_INFO", "")
        return raw_wsgi_path(environ), latin1(path), latin1(root)
    if (scope := request.scope) is not None:
        path, root = scope["path"], scope.get("root_path", "")
        return scope.get("raw_path"), path.encode("utf-8", "surrogateescape"), root.encode("utf-8", "surrogateescape")
    return None

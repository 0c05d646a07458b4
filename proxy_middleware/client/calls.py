"""What a call is made of: its URL, byte for byte, and everything else by httpx."""

import re
from collections.abc import Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, TypedDict
from urllib.parse import quote

from proxy_middleware._target import DOTS, Matcher, parse_base
from proxy_middleware.upstream.httpx_library import Library, bound_method, library_of, own_library, spell

__all__ = ["Options"]

_PRINTABLE = re.compile(r"[!-\"$-~]*")
_TOKEN = re.compile(r"[!-~]+")
_BODIES = ("content", "data", "files", "json")


class Options(TypedDict, total=False):
    """What else a call takes, in httpx's own words; `params` are added to a query that the path has already."""

    params: Any
    headers: Any
    content: Any
    data: Any
    files: Any
    json: Any
    timeout: Any


class Caller:
    """Makes the requests of a client.

    Args:
        base_url: Where the application is.
        token: Who is calling; None sends none.
        prefix: Where the connections live there.
        timeout: In httpx's terms.
        transport: Decides which of the two libraries makes the calls.
        method: How the transport has to send.

    Raises:
        TypeError: The transport is none, or of the other colour.
        ValueError: The base URL, the prefix or the token is malformed.
    """

    def __init__(
        self, base_url: str, token: str | None, prefix: str, timeout: Any, transport: Any, method: str
    ) -> None:
        if transport is not None and bound_method(transport, method) is None:
            raise TypeError(f"transport is one of httpx or httpx2 with the method `{method}`")
        if token is not None and _TOKEN.fullmatch(token) is None:
            raise ValueError("token is ASCII without blanks and control characters")
        Matcher(prefix)  # Knows what a prefix is made of.
        base = parse_base(base_url)
        self.library: Library = own_library() if transport is None else library_of(transport)
        self._origin = str(base.origin)
        self._root = base.path.decode("ascii") + prefix
        self.settings = {
            "headers": {} if token is None else {"authorization": f"Bearer {token}"},
            "timeout": timeout,
            "transport": transport,
            # All connections are of one origin here: what one upstream sets must not be sent to the next.
            "cookies": CookieJar(DefaultCookiePolicy(allowed_domains=())),
        }

    def request(
        self, http: Any, selector: str, method: str, path: str, payload: Any, options: Mapping[str, Any]
    ) -> Any:
        """The request, for this client of the library.

        Raises:
            TypeError: It would have two bodies.
            ValueError: The path cannot be sent as it is.
        """
        built = dict(options)
        if payload is not None:
            if any(name in built for name in _BODIES):
                raise TypeError(f"A payload and one of {', '.join(_BODIES)} exclude each other")
            built["json"] = payload
        query = str(self.library.httpx.QueryParams(built.pop("params", None)))
        target = self._target(selector, path, query)
        return spell(self.library, http.build_request(method, self._origin, **built), method, self._origin, target)

    def _target(self, selector: str, path: str, query: str) -> bytes:
        if path[:1] not in ("", "/", "?"):
            path = f"/{path}"
        target = f"{self._root}/{quote(selector, safe=':@+')}/proxy{path}"
        if query:
            target += ("?" if "?" not in path else "&" if path[-1] != "?" else "") + query
        if _PRINTABLE.fullmatch(target) is None:
            raise ValueError(
                "The path has blanks, `#` or what is not ASCII: percent-encode that with urllib.parse.quote"
            )
        encoded = target.encode("ascii")
        # Whoever is in between would resolve them, perhaps to another connection.
        if DOTS.search(encoded.partition(b"?")[0]):
            raise ValueError("The path has dot segments")
        return encoded

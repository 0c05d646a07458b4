"""That a rewritten link leads to where it led before: for the client that resolves it, and the proxy that is asked."""

import re
from urllib.parse import quote

from hypothesis import assume, given
from hypothesis import strategies as st

from proxy_middleware import Connection, ProxyError
from proxy_middleware._target import Matcher
from tests.links import API, SITE, asked, rewritten
from tests.target.requests import forwarded, scope

BARE = Connection("c", "https://api.example.com")
MATCHER = Matcher("/connections")

_SEGMENT = st.text(st.sampled_from("ab~!$&'()*+,;=:@-_.%4fF2e"), max_size=6)
_PATH = st.lists(st.one_of(_SEGMENT, st.sampled_from(["..", ".", "", "v3"])), max_size=6)
_ABSOLUTE_PATH = _PATH.map(lambda parts: "".join("/" + part for part in parts))
_QUERY = st.one_of(st.just(""), st.text(st.sampled_from("ab=&%2f/?:@,.<"), max_size=8).map("?{}".format))
_ORIGINS = st.sampled_from(
    [
        "https://api.example.com",
        "//api.example.com",
        "https://files.example.com",
        "https://x.eu.test",
        "https://no.test",
    ]
)
_REFERENCES = st.one_of(
    st.tuples(_ORIGINS, _ABSOLUTE_PATH, _QUERY).map("".join),
    st.tuples(_ABSOLUTE_PATH, _QUERY).map("".join),
    st.tuples(_PATH.map("/".join), _QUERY).map("".join),
)
_TARGETS = st.tuples(
    st.sampled_from(["", "/https://files.example.com", "/https:/api.example.com"]), _ABSOLUTE_PATH, _QUERY
).map("".join)
_SELECTORS = st.text(st.sampled_from("aZ09_.~:@+ -"), min_size=1, max_size=8).filter(lambda text: text.strip("."))


def resolved(base: str, reference: str) -> str:
    """RFC 3986 section 5.2, as a client does it; without the fragment."""
    parts = re.compile(r"(?:([^:/?#]+):)?(?://([^/?#]*))?([^?#]*)(\?[^#]*)?")
    scheme, authority, path, query = parts.match(base).groups()  # type: ignore[union-attr]
    own_scheme, own_authority, own_path, own_query = parts.match(reference).groups()  # type: ignore[union-attr]
    if own_scheme or own_authority is not None:
        scheme, authority, path, query = own_scheme or scheme, own_authority, without_dots(own_path), own_query
    elif own_path:
        merged = own_path if own_path[0] == "/" else (path[: path.rfind("/") + 1] or "/") + own_path
        path, query = without_dots(merged), own_query
    elif own_query is not None:
        query = own_query
    return f"{scheme}://{authority or ''}{path}{query or ''}"


def without_dots(path: str) -> str:
    """RFC 3986 section 5.2.4, letter by letter."""
    output = ""
    while path:
        if path.startswith(("/./", "/../")) or path in ("/.", "/.."):
            dots = path.split("/")[1]
            path = "/" + path[len(dots) + 2 :]
            output = output[: max(output.rfind("/"), 0)] if dots == ".." else output
        else:
            end = path.find("/", 1)
            end = len(path) if end < 0 else end
            output, path = output + path[:end], path[end:]
    return output


def sent_to(target: str, connection: Connection) -> str | None:
    """The URL that a target leads to; None where it is refused."""
    path, mark, query = target.partition("?")
    allowed = tuple(connection.allowed_origins)
    try:
        return forwarded(path.encode(), connection.base, query.encode() if mark else None, allowed)
    except ProxyError:
        return None


def reached(url: str, root: str, connection: Connection) -> str | None:
    """The URL that the proxy is led to when it is asked for this one of its own."""
    path, mark, query = url.removeprefix(SITE.decode()).partition("?")
    found = MATCHER.match_asgi(scope(path.encode(), root=root))
    assert found is not None
    return sent_to(found.target.decode() + mark + query, connection)


@given(_REFERENCES, _TARGETS, _SELECTORS, st.sampled_from([API, BARE]), st.sampled_from(["", "/m", "/m/n"]))
def test_rewritten_link_leads_to_where_it_led(
    reference: str, target: str, selector: str, connection: Connection, root: str
) -> None:
    """Who resolves a link against the proxy's URL, and asks the proxy for it, gets exactly the upstream's URL."""
    place = f"{root}/connections/{quote(selector, safe='@:+')}/proxy"
    base = sent_to(target, connection)
    assume(base is not None)
    assert base is not None
    request = asked(target.encode(), place=place.encode(), root_path=root)
    link = rewritten(reference.encode(), request, connection).decode()
    wanted = resolved(base, reference)
    sent = sent_to(f"/{wanted}", connection) if wanted.startswith("https://") else None
    if sent is None:
        assert link == reference
    else:
        assert reached(resolved(f"{SITE.decode()}{place}{target}", link), root, connection) == sent

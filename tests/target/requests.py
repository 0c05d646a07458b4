"""What servers hand over, connections' base URLs, and strategies for targets."""

from urllib.parse import unquote

from hypothesis import strategies as st

from proxy_middleware._target import Base, Matcher, parse_base, parse_origin_pattern, resolve_target

MATCHER = Matcher("/connections")
BARE = parse_base("https://api.example.com")
BASED = parse_base("https://api.example.com/v1")
PLAIN_HTTP = parse_base("http://api.example.com")
SERVER_PATH = "/connections/c/proxy/a%2Fb//c/;d/e%20f%3Fg/%zz"

SEGMENTS = st.text(st.sampled_from("ab~!$&'()*+,;=:@-_.%4fF2e"), max_size=8).map(str.encode)
RAW_TARGETS = st.lists(SEGMENTS, max_size=6).map(lambda parts: b"".join(b"/" + part for part in parts))


def scope(raw: bytes | None, path: str | None = None, root: str = "") -> dict[str, object]:
    """What an ASGI server hands over; `path` is what it would decode."""
    decoded = unquote((raw or b"").decode("latin-1")) if path is None else path
    return {"type": "http", "path": decoded, "raw_path": raw, "root_path": root, "query_string": b""}


def environ(info: str, script: str = "", **keys: object) -> dict[str, object]:
    """What a WSGI server hands over."""
    return {"SCRIPT_NAME": script, "PATH_INFO": info, **keys}


def forwarded(target: bytes, base: Base = BARE, query: bytes | None = None, allowed: tuple[str, ...] = ()) -> str:
    """The URL that a target leads to."""
    origin, path, _ = resolve_target(target, query, base, [parse_origin_pattern(text) for text in allowed])
    return f"{origin}{path.decode('ascii')}"

"""Targets that are full URLs."""

import pytest

from proxy_middleware._target import Base, parse_origin_pattern, resolve_target
from proxy_middleware.errors import AccessDenied, InvalidTarget
from tests.target.requests import BARE, BASED, PLAIN_HTTP, forwarded


@pytest.mark.parametrize(
    ("target", "url"),
    [
        (b"/https://api.example.com/v3//x", "https://api.example.com/v3//x"),
        (b"/HTTPS://API.example.com:443/v3", "https://api.example.com/v3"),
        (b"/https:/api.example.com/v3/x", "https://api.example.com/v3/x"),
        (b"/https://api.example.com", "https://api.example.com/"),
        (b"/https://api.example.com/a%2F#frag", "https://api.example.com/a%2F"),
        (b"/https://api.example.com#frag", "https://api.example.com/"),
    ],
)
def test_full_url_replaces_the_base(target: bytes, url: str) -> None:
    """A full URL is taken as it stands, with one slash or two, in any case of its scheme."""
    assert forwarded(target, BASED) == url
    assert forwarded(target.partition(b"#")[0], BASED, b"q=1") == url + "?q=1"


@pytest.mark.parametrize(
    ("target", "base", "inside"),
    [
        (b"/https://api.example.com/v1", BASED, True),
        (b"/https://api.example.com/v1/x", BASED, True),
        (b"/https://api.example.com/v10", BASED, False),
        (b"/https://api.example.com", BASED, False),
        (b"/https://api.example.com//v1/x", BASED, False),
        (b"/https://api.example.com", BARE, True),
        (b"/https://files.example.com/v1/x", BASED, False),
    ],
)
def test_full_url_says_whether_it_is_inside(target: bytes, base: Base, inside: bool) -> None:
    """`inside` holds for the base URL's origin and below its path only."""
    assert resolve_target(target, b"", base, [parse_origin_pattern("*")])[2] is inside


@pytest.mark.parametrize(
    "target",
    [
        *[b"/https:/", b"/https://", b"/https:///api.example.com", b"/https:////api.example.com", b"/http:/"],
        *[b"/https://u@api.example.com/", b"/https://api.example.com\\@evil.example/", b"/https://api.example.com./"],
        *[b"/https://api.example.com:/", b"/https://api.example.com:99999/", b"/https://api.example.com%2eevil/"],
        *[
            b"/https://127.1/",
            b"/https://0x7f000001/",
            b"/https://[::1%25lo]/",
            b"/https://../",
            b"/https://evil.example/../",
        ],
    ],
)
def test_malformed_full_url_is_refused(target: bytes) -> None:
    """A malformed authority is a 400, even where every origin is allowed."""
    with pytest.raises(InvalidTarget):
        forwarded(target, BASED, allowed=("*",))


@pytest.mark.parametrize(
    "target",
    [
        b"/https://evil.example/",
        b"/https:/evil.example/",
        b"/https://api.example.com.evil.example/",
        b"/https://api.example.com:444/",
        b"/http://api.example.com/",
        b"/http://api.example.com:443/",
        b"/https://127.0.0.1/",
        b"/https://[::1]/",
    ],
)
def test_foreign_origin_is_denied(target: bytes) -> None:
    """A well-formed origin that is neither the base URL's nor listed is a 403."""
    with pytest.raises(AccessDenied):
        forwarded(target, BASED)


@pytest.mark.parametrize(
    ("target", "base", "allowed", "passes"),
    [
        (b"/https://files.example.com/x", BASED, ("https://files.example.com",), True),
        (b"/https://a.b.example.com/x", BASED, ("https://x.example", "https://*.example.com"), True),
        (b"/https://any.example/x", BASED, ("*",), True),
        (b"/http://any.example/x", BASED, ("*",), False),
        (b"/http://api.example.com/x", BASED, ("*",), False),
        (b"/http://old.example/x", BASED, ("*", "http://old.example"), True),
        (b"/http://any.example/x", PLAIN_HTTP, ("*",), True),
        (b"/https://any.example/x", PLAIN_HTTP, ("*",), True),
        (b"/http://api.example.com/x", PLAIN_HTTP, (), True),
        (b"/https://api.example.com/x", PLAIN_HTTP, (), False),
        (b"/http://any.example/x", PLAIN_HTTP, ("https://any.example",), False),
    ],
)
def test_allowed_origins(target: bytes, base: Base, allowed: tuple[str, ...], passes: bool) -> None:
    """Listed origins pass; http passes only where the base URL is http or the http origin is listed."""
    if passes:
        assert forwarded(target, base, allowed=allowed) == target[1:].decode()
    else:
        with pytest.raises(AccessDenied):
            forwarded(target, base, allowed=allowed)

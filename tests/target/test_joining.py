"""Targets below the base URL: joined byte for byte, or refused."""

import re
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_middleware._target import Base, resolve_target
from proxy_middleware.errors import AccessDenied, InvalidTarget
from tests.target.requests import BARE, BASED, RAW_TARGETS, forwarded


@pytest.mark.parametrize(
    ("target", "query", "bare", "based"),
    [
        (b"", None, "/", "/v1"),
        (b"", b"x=1", "/?x=1", "/v1?x=1"),
        (b"/", None, "/", "/v1/"),
        (b"/crm/v3/owners/", None, "/crm/v3/owners/", "/v1/crm/v3/owners/"),
        (b"//a//b/", None, "//a//b/", "/v1//a//b/"),
        (b"/a%2Fb%2f;p=1/%zz%41", None, "/a%2Fb%2f;p=1/%zz%41", "/v1/a%2Fb%2f;p=1/%zz%41"),
        (b"/%00%0d%0a%20", b"%00", "/%00%0d%0a%20?%00", "/v1/%00%0d%0a%20?%00"),
        (b'/a\\b|^`{}"<>', None, '/a\\b|^`{}"<>', '/v1/a\\b|^`{}"<>'),
        (
            b"/v1.0/.well-known/...",
            b"a=../..&b=?/",
            "/v1.0/.well-known/...?a=../..&b=?/",
            "/v1/v1.0/.well-known/...?a=../..&b=?/",
        ),
        (b"/a", b"x=1;y=%zz&z=%2F&q=a+b", "/a?x=1;y=%zz&z=%2F&q=a+b", "/v1/a?x=1;y=%zz&z=%2F&q=a+b"),
        (b"/https%3A//a.example/x", None, "/https%3A//a.example/x", "/v1/https%3A//a.example/x"),
        (b"//https://a.example", None, "//https://a.example", "/v1//https://a.example"),
        (b"/https:a", None, "/https:a", "/v1/https:a"),
        (b"/x/https://a.example", None, "/x/https://a.example", "/v1/x/https://a.example"),
        (b"/a#frag", None, "/a", "/v1/a"),
        (b"/a#frag", b"of=the+fragment", "/a", "/v1/a"),
        (b"/a", b"x=1#frag", "/a?x=1", "/v1/a?x=1"),
        (b"/a", b"#frag", "/a?", "/v1/a?"),
        (b"/a", b"", "/a?", "/v1/a?"),
        (b"", b"", "/?", "/v1?"),
    ],
)
def test_target_is_joined_byte_for_byte(target: bytes, query: bytes | None, bare: str, based: str) -> None:
    """A target is put behind the base URL's path with one slash; a fragment is cut, an empty query kept."""
    assert forwarded(target, BARE, query) == f"https://api.example.com{bare}"
    assert forwarded(target, BASED, query) == f"https://api.example.com{based}"
    assert resolve_target(target, query, BASED, ())[2]


DOTS = [".", "..", "%2e", "%2E", "%2e%2E", ".%2e", "%2E.", "..;", ".;x", "..;x=1", "%2e%2e;", "..%3b"]


@pytest.mark.parametrize("dots", DOTS)
@pytest.mark.parametrize("base", [BARE, BASED])
@pytest.mark.parametrize("form", ["/{}", "/{}/", "/a/{}/b", "/a/{}", "//{}", "/https://api.example.com/v1/{}/x"])
def test_dot_segments_are_refused(dots: str, base: Base, form: str) -> None:
    """Dot segments in any spelling are a 400, below the base URL and in a full URL."""
    with pytest.raises(InvalidTarget):
        forwarded(form.format(dots).encode(), base)


@pytest.mark.parametrize(
    "target",
    [
        b"/a%2f..",
        b"/..%2Fa",
        b"/a%5c..%5Cb",
        b"/a\\..\\b",
        b"/..\\",
        b"/a%2F%2e%2e%2Fb",
        b"/a%2f.;x",
        b"/a%5C%2E",
        b"/a\\..;",
    ],
)
def test_hidden_dot_segments_are_refused_below_a_base_path(target: bytes) -> None:
    """Dots behind an encoded slash or a backslash would climb out of the base URL's path; without one there is none."""
    with pytest.raises(InvalidTarget):
        forwarded(target, BASED)
    assert forwarded(target, BARE).endswith(target.decode())


@pytest.mark.parametrize("byte", [*range(0x21), *range(0x7F, 0x100)])
def test_raw_controls_blanks_and_high_bytes_are_refused(byte: int) -> None:
    """Raw control characters, blanks and bytes above 0x7e are a 400 in path, query and full URL."""
    raw = bytes([byte])
    for target, query in [(b"/a" + raw, b""), (b"/a/%41" + raw + b"b", b""), (b"/", b"x=" + raw), (b"", raw)]:
        with pytest.raises(InvalidTarget):
            resolve_target(target, query, BASED, ())
    for target in [b"/https://api.example.com/" + raw, b"/https://api.example.com" + raw]:
        with pytest.raises(InvalidTarget):
            resolve_target(target, b"", BASED, ())


def test_stray_question_mark_is_refused() -> None:
    """A target never holds its own query, which would escape the checks on the path."""
    with pytest.raises(InvalidTarget):
        forwarded(b"/..?x")


def test_target_length_is_limited() -> None:
    """16 KiB of path and query pass, one byte more is a 400."""
    assert forwarded(b"/" + b"a" * 8191, query=b"q" * 8192)
    with pytest.raises(InvalidTarget):
        forwarded(b"/" + b"a" * 8192, query=b"q" * 8192)
    with pytest.raises(InvalidTarget):
        forwarded(b"/" + b"%" * 16384)


def decoded_segments(path: bytes) -> list[bytes]:
    """How a lenient upstream might cut a path into segments, decoding before it looks."""
    return [part.partition(b";")[0] for part in re.split(rb"[/\\]", unquote_to_bytes(path))]


@given(RAW_TARGETS, st.sampled_from([None, b"", b"a=%2F&b", b"../x"]))
def test_no_target_climbs_out_of_the_base_path(target: bytes, query: bytes | None) -> None:
    """A target is forwarded byte for byte below the base path, or refused because it has dot segments."""
    dotted = any(part in (b".", b"..") for part in decoded_segments(target))
    try:
        origin, path, inside = resolve_target(target, query, BASED, ())
    except InvalidTarget:
        assert dotted
    else:
        assert not dotted
        assert (origin, inside) == (BASED.origin, True)
        assert path == b"/v1" + target + (b"" if query is None else b"?" + query)


@given(st.binary(max_size=60), st.none() | st.binary(max_size=20))
def test_resolved_targets_are_printable(target: bytes, query: bytes | None) -> None:
    """Whatever comes in, what goes out is origin-form in printable ASCII, or a 400 or 403."""
    try:
        _, path, _ = resolve_target(b"/" + target, query, BASED, ())
    except (InvalidTarget, AccessDenied):
        return
    assert re.fullmatch(rb"/[!-\"$-~]*", path)

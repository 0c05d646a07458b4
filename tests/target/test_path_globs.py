"""Globs of the paths that a connection allows."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_middleware._globs import path_allowed, path_glob
from tests.target.requests import BARE, BASED


@pytest.mark.parametrize(
    ("pattern", "target", "matches"),
    [
        ("/crm/*", b"/v1/crm/owners", True),
        ("/crm/*", b"/v1/crm/owners?x=/../y", True),
        ("/crm/*", b"/v1/crm/owners/1", False),
        ("/crm/*", b"/v1/crm", False),
        ("/crm/*", b"/v1/CRM/owners", False),
        ("/crm/*", b"/v1/%63rm/ow%6Eers", True),
        ("/crm/*", b"/v1/crm/a%2Fb", True),
        ("/crm/a%2Fb", b"/v1/crm/a%2fb", True),
        ("/crm/a/b", b"/v1/crm/a%2Fb", False),
        ("/crm/**", b"/v1/crm/a/b//c", True),
        ("/**/owners", b"/v1/crm/v3/owners", True),
        ("/a/**/b*c/d?", b"/v1/a/x/bb/bxc/dd", True),
        ("/a/**/b*c/d?", b"/v1/a/x/bxc/d/", False),
        ("/?", b"/v1/a", True),
        ("/?", b"/v1//", False),
        ("/?", b"/v1/%C3%A9", True),
        ("/[ab].c", b"/v1/a.c", False),
        ("/[ab].c", b"/v1/[ab].c", True),
        ("/", b"/v1", True),
        ("/**", b"/v1", True),
        ("/**", b"/v1/%0a", True),
        ("/**", b"/v1/%ff", False),
        ("/**", b"/v10/x", False),
        ("/**", b"/other", False),
    ],
)
def test_path_globs(pattern: str, target: bytes, matches: bool) -> None:
    """Globs see the decoded path behind the base URL's, encoded slashes apart."""
    assert path_allowed([path_glob("/nothing"), path_glob(pattern)], target, BASED) is matches


def test_path_globs_do_not_let_hidden_dots_pass() -> None:
    """Without a base path hidden dot segments are forwarded, but they never satisfy a rule about paths."""
    assert path_allowed([path_glob("/public*")], b"/public", BARE)
    assert not path_allowed([path_glob("/public*")], b"/public%2F..%2Fadmin", BARE)
    assert not path_allowed([path_glob("/public*")], b"/public\\..\\admin", BARE)
    assert not path_allowed([], b"/public", BARE)


@pytest.mark.parametrize("pattern", ["", "*", "crm/*", "**"])
def test_path_glob_starts_with_a_slash(pattern: str) -> None:
    """A pattern that could never match is a ValueError."""
    with pytest.raises(ValueError, match="slash"):
        path_glob(pattern)


@given(st.text(st.sampled_from("ab/*?"), max_size=9), st.text(st.sampled_from("ab/"), max_size=14))
def test_path_glob_means_what_a_plain_translation_means(pattern: str, path: str) -> None:
    """The compiled form, made to be fast on hostile paths, matches what the obvious form matches."""
    meaning = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
    obvious = "".join(meaning.get(token, token) for token in re.findall(r"\*\*|.", "/" + pattern))
    found = path_glob("/" + pattern).fullmatch("/" + path)
    assert (found is None) is (re.fullmatch(obvious, "/" + path) is None)


@pytest.mark.parametrize("pattern", ["/**/a/**/a/**/b", "/a*a*a*a*b", "/**a*a**a*a/b"])
def test_path_globs_are_fast_on_hostile_paths(pattern: str) -> None:
    """A path made to backtrack does not hold up the event loop."""
    started = time.perf_counter()
    assert not path_allowed([path_glob(pattern)], b"/a" * 4000 + b"a" * 8000, BARE)
    assert time.perf_counter() - started < 2

"""Hosts whose own sign-in says who the caller is: the session that their pages know is the proxy's, too."""

import pytest

from tests.callers import call, request
from tests.integration.frameworks.hosts import FORM, SESSIONS, Host
from tests.upstreams import ScriptedUpstream, response

OWN_PAGE = (("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Mode", "cors"), ("Sec-Fetch-Dest", "empty"))
OTHER_SITE = (("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "cors"), ("Origin", "https://evil.test"))
NAVIGATION = (("Sec-Fetch-Site", "none"), ("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "document"))

pytestmark = pytest.mark.parametrize("_host", SESSIONS, ids=str, indirect=True)


def test_session_is_the_caller(host: Host, upstream: ScriptedUpstream) -> None:
    """A script in a page of the host calls as whoever has signed in, and the session's cookie stays here."""
    upstream.answer(response(fields=((b"Set-Cookie", b"sessionid=theirs"), (b"X-Kept", b"1")), body=b"ok"))
    answer = host.ask("/x", fields=OWN_PAGE)
    (seen,) = upstream.requests
    assert (answer.status, answer.header(b"x-kept"), answer.values(b"set-cookie")) == (200, b"1", [])
    assert (seen.header(b"cookie"), host.caller[1].encode() in seen.head) == (None, False)


@pytest.mark.parametrize("fields", [OTHER_SITE, NAVIGATION], ids=["other site", "navigation"])
def test_session_does_not_serve_other_sites(
    host: Host, upstream: ScriptedUpstream, fields: tuple[tuple[str, str], ...]
) -> None:
    """What another site makes a browser send comes with the cookie, and goes nowhere."""
    assert (host.ask("/x", fields=fields).status, upstream.requests) == (403, [])


def test_tampered_session_is_nobodys(host: Host, upstream: ScriptedUpstream) -> None:
    """A cookie that the host has not given says nothing about its bearer."""
    name, value = host.caller
    answer = host.get(host.path("/x"), (name, value[:-4] + ("aaaa" if value[-4:] != "aaaa" else "bbbb")))
    assert (answer.status, upstream.requests) == (401, [])


def test_wrong_password_gives_no_session(host: Host, upstream: ScriptedUpstream) -> None:
    """Who does not get past the host's form is nobody."""
    answer = call(host.address, request("POST", "/sign-in", [FORM], b"user=alice&password=looking-glass"))
    assert (answer.status, answer.values(b"set-cookie")) == (401, [])


def test_calls_leave_the_session_as_it_is(host: Host, upstream: ScriptedUpstream) -> None:
    """The session still serves the host's pages and the proxy after many calls at its side."""
    assert [host.ask("/x").status for _ in range(12)] == [200] * 12
    path, body = host.example.own
    assert host.get(path, host.caller).body == body

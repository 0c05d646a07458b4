"""Over HTTP/2 a Cookie comes in pieces, one field each (RFC 9113 section 8.2.3)."""

from proxy_middleware import BrowserPolicy, ProxyRequest
from tests.script import Script, play, request

CRUMBS = [(b"cookie", b"a=1"), (b"accept", b"*/*"), (b"cookie", b"session=2")]


def test_cookies_that_came_in_pieces_are_one_field_for_plugins() -> None:
    """A plugin that reads the host's session sees all of them."""
    assert ProxyRequest("GET", "c", b"/", CRUMBS, None).header("Cookie") == "a=1; session=2"


def test_cookies_that_came_in_pieces_are_one_field_upstream() -> None:
    """Where cookies are forwarded, HTTP/1.1 wants them in one field."""
    script = Script()
    given = request("GET", b"/", *CRUMBS)
    play(script, given, browser=BrowserPolicy(forward_cookies=True))
    sent = [value for name, value in script.sent[0].fields if name == b"cookie"]
    assert sent == [b"a=1; session=2"]

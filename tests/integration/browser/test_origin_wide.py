"""An upstream's fields that would act on the host's whole origin do not get to the browser."""

from typing import TYPE_CHECKING

import pytest

from tests.integration.browser.sites import SESSION, Host
from tests.upstreams import ScriptedUpstream, response

if TYPE_CHECKING:
    from tests.integration.browser.chromium import Tab

WITHHELD = (
    (b"Set-Cookie", b"session=stolen"),
    (b"Clear-Site-Data", b'"cookies"'),
    (b"Strict-Transport-Security", b"max-age=31536000"),
    (b"Alt-Svc", b'h3=":443"'),
    (b"NEL", b'{"report_to":"x","max_age":60}'),
    (b"Report-To", b'{"group":"x","max_age":60,"endpoints":[{"url":"https://x.example/"}]}'),
    (b"Reporting-Endpoints", b'x="https://x.example/"'),
    (b"Service-Worker-Allowed", b"/"),
    (b"Accept-CH", b"Sec-CH-UA-Model"),
    (b"Refresh", b"0; url=/whoami"),
    (b"Origin-Agent-Cluster", b"?0"),
    (b"Access-Control-Allow-Origin", b"*"),
    (b"Access-Control-Allow-Credentials", b"true"),
)


LOAD_IMAGE = """url => new Promise(done => {
    const image = new Image();
    image.onerror = () => done();
    image.src = url;
})"""


def whoami(tab: "Tab", host: Host) -> str:
    """Whose session the host sees."""
    body: str = tab.fetch(host.url("/whoami"))["body"]
    return body


def test_fields_are_withheld(own_page: "Tab", host: Host, shared_upstream: ScriptedUpstream) -> None:
    """None of the fields that act on an origin leaves the proxy for a browser; an ordinary one does."""
    shared_upstream.answer(response(200, (*WITHHELD, (b"X-Other", b"1")), b"ok"))
    assert own_page.fetch(host.proxied())["body"] == "ok"
    (asked,) = host.journal.wait()
    assert asked.names.isdisjoint(name.decode().lower() for name, _ in WITHHELD)
    assert "x-other" in asked.names


@pytest.mark.parametrize(
    "cookie",
    [
        b"session=stolen; Path=/",
        b"session=stolen; Path=/; HttpOnly; SameSite=Lax",
        b"session=; Path=/; Max-Age=0",
        b"session=shadow; Path=/whoami",
        b"session=shadow",
        b"session=stolen; Domain=127.0.0.1; Path=/",
        b"other=planted; Path=/",
    ],
)
def test_cookies_are_the_hosts(own_page: "Tab", host: Host, shared_upstream: ScriptedUpstream, cookie: bytes) -> None:
    """An upstream can neither set nor clear nor shadow a cookie of the host's."""
    shared_upstream.answer(response(200, ((b"Set-Cookie", cookie), (b"set-cookie", b"further=1; Path=/")), b"ok"))
    assert own_page.fetch(host.proxied(), credentials="include")["status"] == 200
    assert own_page.cookies() == [("session", SESSION, "/")]
    assert own_page.run("() => document.cookie") == ""
    assert whoami(own_page, host) == SESSION


def test_image_sets_no_cookie(own_page: "Tab", host: Host, shared_upstream: ScriptedUpstream) -> None:
    """Nor by an answer to anything else that a page of the host's own may load."""
    shared_upstream.answer(response(404, ((b"Set-Cookie", b"session=stolen; Path=/"),), b"none"))
    own_page.run(LOAD_IMAGE, host.proxied())
    assert len(shared_upstream.requests) == 1
    assert own_page.cookies() == [("session", SESSION, "/")]


def test_storage_is_not_cleared(own_page: "Tab", host: Host, shared_upstream: ScriptedUpstream) -> None:
    """An upstream's Clear-Site-Data signs nobody out and deletes nothing."""
    own_page.run("() => localStorage.setItem('kept', 'yes')")
    shared_upstream.answer(response(200, ((b"Clear-Site-Data", b'"*", "cookies", "storage"'),), b"ok"))
    assert own_page.fetch(host.proxied())["status"] == 200
    assert own_page.run("() => localStorage.getItem('kept')") == "yes"
    assert whoami(own_page, host) == SESSION

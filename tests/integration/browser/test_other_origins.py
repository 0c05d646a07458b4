"""Pages of other origins cannot ride on the host's session: they are refused, and the upstream hears nothing of it."""

from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from tests.integration.browser.sites import Host, Site
from tests.integration.browser.test_powerful import FOLLOW, element
from tests.upstreams import ScriptedUpstream, response

if TYPE_CHECKING:
    from tests.integration.browser.chromium import Tab

# Loopback by another name is another site; another port is another origin of the same site, and gets the cookies, too.
ORIGINS = {"127.0.0.1": "same-site", "localhost": "cross-site"}


def fetching(options: str) -> str:
    """A script that fetches, and does not mind the failure."""
    return f"url => {{ fetch(url, {options}).catch(() => null); }}"


ATTACKS = {
    "fetch": fetching("{}"),
    "fetch with cookies": fetching("{credentials: 'include'}"),
    "fetch that is asked for before": fetching("{method: 'PUT', body: '{}', credentials: 'include'}"),
    "fetch without cors": fetching("{mode: 'no-cors', method: 'POST', body: 'x', credentials: 'include'}"),
    "beacon": "url => { navigator.sendBeacon(url, 'x'); }",
    "form": """url => {
        const form = Object.assign(document.createElement("form"), {method: "post", action: url});
        document.body.append(form);
        setTimeout(() => form.submit());
    }""",
    "link": FOLLOW,
    "new window": "url => { window.open(url); }",
    "iframe": element("iframe", "src"),
    "script": element("script", "src"),
    "module": element("script", "src", type="module"),
    "image": element("img", "src"),
    "stylesheet": element("link", "href", rel="stylesheet"),
    "video": element("video", "src"),
    "events": "url => { window.kept = new EventSource(url, {withCredentials: true}); }",
}


@pytest.mark.parametrize("name", ORIGINS)
@pytest.mark.parametrize("attack", ATTACKS)
def test_attack_is_refused(
    tab: "Tab", host: Host, strange_site: Site, shared_upstream: ScriptedUpstream, name: str, attack: str
) -> None:
    """Every kind of request from another origin is a 403, of a user who is signed in at the host."""
    tab.open(host.url("/sign-in"))
    tab.open(strange_site.url(name=name))
    tab.run(ATTACKS[attack], host.proxied())
    (asked, *further) = host.journal.wait()
    assert (asked.site, asked.status) == (ORIGINS[name], 403)
    assert {later.status for later in further} <= {403}
    assert shared_upstream.requests == []


def test_page_cannot_read_the_refusal(
    tab: "Tab", host: Host, strange_site: Site, shared_upstream: ScriptedUpstream
) -> None:
    """A refusal has no CORS fields, so that not even it can be read; the upstream's `*` does not help either."""
    shared_upstream.answer(response(200, ((b"Access-Control-Allow-Origin", b"*"),), b"secret"))
    tab.open(strange_site.url(name="localhost"))
    assert tab.fetch(host.proxied()) == {"error": "TypeError"}
    assert shared_upstream.requests == []


def test_sandboxed_frame_is_another_origin(own_page: "Tab", host: Host, shared_upstream: ScriptedUpstream) -> None:
    """A sandboxed frame in the host's own page has no origin, and so not the host's."""
    script = """url => {
        const frame = document.createElement("iframe");
        frame.sandbox = "allow-scripts";
        frame.srcdoc = `<script>fetch(${JSON.stringify(url)}, {method: "POST"})</script>`;
        document.body.append(frame);
    }"""
    own_page.run(script, host.proxied())
    (asked,) = host.journal.wait()
    assert (asked.origin, asked.site, asked.status) == ("null", "cross-site", 403)
    assert shared_upstream.requests == []


def test_redirect_by_the_host_does_not_wash(
    tab: "Tab", host: Host, strange_site: Site, shared_upstream: ScriptedUpstream
) -> None:
    """An open redirect of the host's does not turn another site's request into its own."""
    tab.open(strange_site.url(name="localhost"))
    tab.run(ATTACKS["image"], host.url(f"/go?to={quote(host.proxied())}"))
    (asked,) = host.journal.wait()
    assert (asked.site, asked.status) == ("cross-site", 403)
    assert shared_upstream.requests == []


def test_redirect_by_a_stranger_taints(
    own_page: "Tab", host: Host, strange_site: Site, shared_upstream: ScriptedUpstream
) -> None:
    """A request of the host's own page that another site sends back to the proxy is that site's."""
    own_page.run(ATTACKS["image"], strange_site.url(f"/go?to={quote(host.proxied())}", "localhost"))
    (asked,) = host.journal.wait()
    assert (asked.site, asked.status) == ("cross-site", 403)
    assert shared_upstream.requests == []


def test_origin_counts_where_nothing_else_is_said(
    tab: "Tab", host: Host, strange_site: Site, shared_upstream: ScriptedUpstream
) -> None:
    """Over plain http to other names than loopback browsers send no Sec-Fetch fields; another Origin is refused."""
    tab.open(strange_site.url(name="evil.example"))
    tab.run(ATTACKS["fetch without cors"], host.proxied(name="app.example"))
    (asked,) = host.journal.wait()
    assert (asked.site, asked.origin, asked.status) == ("", strange_site.origin("evil.example"), 403)
    assert shared_upstream.requests == []


def test_own_origin_passes_where_nothing_else_is_said(
    tab: "Tab", host: Host, shared_upstream: ScriptedUpstream
) -> None:
    """There the host's own page may still fetch, and the upstream still sets no cookie."""
    shared_upstream.answer(response(200, ((b"Set-Cookie", b"session=stolen; Path=/"),), b"ok"))
    tab.open(host.url("/sign-in", "app.example"))
    for options in ({"method": "GET"}, {"method": "POST", "body": "x"}):
        assert tab.fetch(host.proxied(name="app.example"), **options)["body"] == "ok"
    assert {(asked.site, asked.status) for asked in host.journal.wait(2)} == {("", 200)}
    assert [value for _, value, _ in tab.cookies()] == ["signed-in"]

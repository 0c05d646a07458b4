"""An origin in `BrowserPolicy(allowed_origins=...)` may call, where the host's CORS rules let it read the answer."""

from typing import TYPE_CHECKING

import pytest

from tests.integration.browser.sites import Host, Site
from tests.integration.browser.test_powerful import ATTEMPTS
from tests.upstreams import ScriptedUpstream, response

if TYPE_CHECKING:
    from tests.integration.browser.chromium import Tab


@pytest.fixture
def listed_page(tab: "Tab", strange_site: Site) -> "Tab":
    """A page of the listed origin, which is of another site than the host."""
    tab.open(strange_site.url(name="localhost"))
    return tab


def test_listed_origin_may_call(listed_page: "Tab", listing_host: Host, shared_upstream: ScriptedUpstream) -> None:
    """It posts JSON and reads the answer; the question before it (preflight) is the host's to answer."""
    shared_upstream.answer(response(201, ((b"Access-Control-Allow-Origin", b"https://x.example"),), b"made"))
    fields = {"Content-Type": "application/json", "X-Asked": "1"}
    answer = listed_page.fetch(listing_host.proxied(), method="POST", body="{}", headers=fields, credentials="include")
    assert (answer["status"], answer["body"]) == (201, "made")
    (seen,) = shared_upstream.requests
    assert (seen.method, seen.body, seen.values(b"x-asked")) == (b"POST", b"{}", [b"1"])


@pytest.mark.parametrize("attempt", ["location", "iframe", "script", "module"])
def test_listed_origin_may_not_embed(
    listed_page: "Tab", listing_host: Host, shared_upstream: ScriptedUpstream, attempt: str
) -> None:
    """What would be a document or a script stays refused."""
    listed_page.run(ATTEMPTS[attempt][1], listing_host.proxied())
    assert [asked.status for asked in listing_host.journal.wait()] == [403]
    assert shared_upstream.requests == []


def test_others_stay_refused(
    tab: "Tab", listing_host: Host, strange_site: Site, shared_upstream: ScriptedUpstream
) -> None:
    """The same port by another name is not the listed origin."""
    tab.open(strange_site.url(name="127.0.0.1"))
    assert tab.fetch(listing_host.proxied()) == {"error": "TypeError"}
    assert [asked.status for asked in listing_host.journal.wait()] == [403]
    assert shared_upstream.requests == []

"""One browser and one set of sites for a session; each test has a tab in a fresh profile, and a clean slate."""

import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.integration.browser.sites import Host, Site, serve_host, serve_pages
from tests.upstreams import ScriptedUpstream

if TYPE_CHECKING:
    from tests.integration.browser.chromium import Chromium, Tab


@pytest.fixture(scope="session")
def chromium() -> "Iterator[Chromium]":
    """Headless Chromium, as the system has it."""
    executable = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if executable is None:
        pytest.skip("Chromium is not installed (apt install chromium)")
    from tests.integration.browser.chromium import Chromium  # Of no use to those who have no browser.

    with Chromium(executable) as browser:
        yield browser


@pytest.fixture
def tab(chromium: "Chromium") -> "Iterator[Tab]":
    """An empty tab."""
    with chromium.tab() as tab:
        yield tab


@pytest.fixture(scope="session")
def strange_site(chromium: "Chromium") -> Iterator[Site]:
    """Pages on another port: of another origin as 127.0.0.1, of another site as localhost."""
    with serve_pages() as site:
        yield site


@pytest.fixture(scope="session")
def _host(chromium: "Chromium", _session_upstream: ScriptedUpstream) -> Iterator[Host]:
    with serve_host(_session_upstream.url) as host:
        yield host


@pytest.fixture
def host(_host: Host, shared_upstream: ScriptedUpstream) -> Host:
    """The host application, with the browser policy's defaults and `shared_upstream` behind it."""
    _host.journal.forget()
    return _host


@pytest.fixture(scope="session")
def _listing_host(chromium: "Chromium", _session_upstream: ScriptedUpstream, strange_site: Site) -> Iterator[Host]:
    with serve_host(_session_upstream.url, strange_site.origin("localhost")) as host:
        yield host


@pytest.fixture
def listing_host(_listing_host: Host, shared_upstream: ScriptedUpstream) -> Host:
    """A host application that lists the strange site's localhost origin."""
    _listing_host.journal.forget()
    return _listing_host


@pytest.fixture
def own_page(tab: "Tab", host: Host) -> "Tab":
    """A page of the host's own, of a user who is signed in."""
    assert tab.open(host.url("/sign-in")) == 200
    return tab

"""The original product's SDKs, as they are, in a page of another origin that is listed."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.browser.sites import Host, Site
from tests.integration.node.conftest import sdk_folder
from tests.upstreams import ScriptedUpstream, response

if TYPE_CHECKING:
    from tests.integration.browser.chromium import Tab

__all__ = ["sdk_folder"]

LOAD = "source => { (0, eval)(source); }"
POST = """async ([name, apiUri, token, data]) => {
    const Client = globalThis[name];
    const proxy = new Client({apiUri, token}).connection("crm").proxy;
    const missing = await new Client({apiUri, token}).connection("nobody").proxy.get("/x").catch(error => error.data);
    return [await proxy.post("/notes?x=1", data), missing.key];
}"""
# The SDKs want what looks like a token; this host lets everyone in.
TOKEN = "e30.e30.e30"


@pytest.mark.parametrize(
    ("package", "name"),
    [("@integration-app/sdk", "IntegrationAppClient"), ("@membranehq/sdk", "MembraneClient")],
)
def test_sdk_in_a_page(
    tab: "Tab",
    strange_site: Site,
    listing_host: Host,
    shared_upstream: ScriptedUpstream,
    sdk_folder: Path,
    package: str,
    name: str,
) -> None:
    """It posts JSON across origins and reads the answer, and the middleware's own error as well."""
    bundle = sdk_folder / "node_modules" / package / "dist" / "bundle.js"
    shared_upstream.answer(response(201, ((b"Content-Type", b"application/json"),), b'{"id": 7}', reason=b"Created"))
    tab.open(strange_site.url(name="localhost"))
    tab.run(LOAD, bundle.read_text(encoding="utf-8"))
    answer = tab.run(POST, [name, listing_host.origin(), TOKEN, {"text": "Zoë"}])
    assert answer == [{"id": 7}, "not_authenticated"]
    (seen,) = shared_upstream.requests
    assert (seen.method, seen.target, seen.body) == (b"POST", b"/notes?x=1", '{"text":"Zoë"}'.encode())
    assert seen.values(b"membrane-api-version") == []
    asked = listing_host.journal.wait(2)
    assert {(request.site, request.origin) for request in asked if request.method != "OPTIONS"} == {
        ("cross-site", strange_site.origin("localhost"))
    }

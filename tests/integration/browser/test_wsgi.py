"""The same rules hold in the WSGI door, under gunicorn."""

from typing import TYPE_CHECKING

from tests.conftest import StartProxy
from tests.host_plugins import CALLER_TOKEN, UPSTREAM_SECRET
from tests.upstreams import ScriptedUpstream, response

if TYPE_CHECKING:
    from tests.integration.browser.chromium import Tab


# The type of the document in a frame.
FRAME = """url => new Promise(done => {
    const frame = document.createElement("iframe");
    frame.onload = () => done(frame.contentDocument.contentType);
    frame.src = url;
    document.body.append(frame);
})"""


def test_wsgi_host(tab: "Tab", start_proxy: StartProxy, shared_upstream: ScriptedUpstream) -> None:
    """A page of the host's own fetches without its cookie, which the upstream cannot replace; it cannot embed."""
    name, port = start_proxy("gunicorn-gthread").address
    page, proxied = f"http://{name}:{port}/host", f"http://{name}:{port}/connections/root/proxy/x"
    shared_upstream.answer(response(200, ((b"Set-Cookie", b"session=stolen; Path=/"),), b"ok"))
    tab.open(page)
    tab.run("() => { document.cookie = 'session=signed-in; path=/'; }")
    answer = tab.fetch(proxied, headers={"Authorization": f"Bearer {CALLER_TOKEN}"}, credentials="include")
    (seen,) = shared_upstream.requests
    assert (answer["status"], answer["body"]) == (200, "ok")
    assert (seen.values(b"cookie"), seen.values(b"authorization")) == ([], [f"Bearer {UPSTREAM_SECRET}".encode()])
    assert tab.cookies() == [("session", "signed-in", "/")]
    assert tab.run(FRAME, proxied) == "application/problem+json"
    assert tab.open(proxied) == 403
    assert len(shared_upstream.requests) == 1

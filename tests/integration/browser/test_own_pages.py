"""What a page of the host's own may do with the proxy, and what the upstream learns by that."""

import json
import threading
from typing import TYPE_CHECKING

import pytest

from tests.host_plugins import UPSTREAM_SECRET
from tests.integration.browser.sites import Host
from tests.upstreams import Exchange, ScriptedUpstream, response
from tests.wire import chunked

if TYPE_CHECKING:
    from tests.integration.browser.chromium import Tab

OPEN_STREAM = """async url => {
    window.reader = (await fetch(url)).body.pipeThrough(new TextDecoderStream()).getReader();
}"""
READ = "async () => { const {value, done} = await window.reader.read(); return done ? null : value; }"
RUN_SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>parent.ran = top.ran = window.ran = 1</script></svg>'


def piece(data: bytes) -> bytes:
    """One chunk, without the last chunk."""
    return chunked(data).removesuffix(b"0\r\n\r\n")


def test_fetch_gets_status_fields_and_body(own_page: "Tab", host: Host, shared_upstream: ScriptedUpstream) -> None:
    """A page of the host's own fetches, and reads status, fields and body as the upstream sent them."""
    shared_upstream.answer(response(418, ((b"X-Thing", b"one"), (b"Content-Type", b"text/plain")), b"tea"))
    answer = own_page.fetch(host.proxied("/pot?a=%2F"))
    assert (answer["status"], answer["fields"]["x-thing"], answer["body"]) == (418, "one", "tea")
    assert shared_upstream.requests[0].target == b"/pot?a=%2F"


def test_post_of_json_arrives(own_page: "Tab", host: Host, shared_upstream: ScriptedUpstream) -> None:
    """A POST of JSON arrives with its body and its type; it is of the same origin, so that nothing is asked before."""
    body = json.dumps({"name": "Zoë"})
    fields = {"Content-Type": "application/json"}
    assert own_page.fetch(host.proxied(), method="POST", body=body, headers=fields)["status"] == 200
    (seen,) = shared_upstream.requests
    assert (seen.method, seen.body, seen.values(b"content-type")) == (b"POST", body.encode(), [b"application/json"])


@pytest.mark.parametrize("kind", [b"application/json", b"text/event-stream"])
def test_body_is_read_as_it_comes(own_page: "Tab", host: Host, shared_upstream: ScriptedUpstream, kind: bytes) -> None:
    """A page reads the first piece of a body before the upstream sends the second."""
    read = threading.Event()

    def script(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nTransfer-Encoding: chunked\r\n\r\n" % kind)
        exchange.send(piece(b"data: one\n\n"))
        exchange.wait(read)
        exchange.send(chunked(b"data: two\n\n"))

    shared_upstream.script(script)
    own_page.run(OPEN_STREAM, host.proxied())
    assert own_page.run(READ) == "data: one\n\n"
    read.set()
    assert [own_page.run(READ), own_page.run(READ)] == ["data: two\n\n", None]


def test_event_source_gets_events(own_page: "Tab", host: Host, shared_upstream: ScriptedUpstream) -> None:
    """An EventSource of the host's own page gets the upstream's events."""
    shared_upstream.answer(response(200, ((b"Content-Type", b"text/event-stream"),), b"data: one\n\n"))
    script = """url => new Promise((done, failed) => {
        const source = new EventSource(url);
        source.onmessage = event => { source.close(); done(event.data); };
        source.onerror = () => { source.close(); failed(new Error("no event")); };
    })"""
    assert own_page.run(script, host.proxied()) == "one"


def test_beacon_arrives(own_page: "Tab", host: Host, shared_upstream: ScriptedUpstream) -> None:
    """A beacon of the host's own page is a request like any other."""
    assert own_page.run("url => navigator.sendBeacon(url, 'left')", host.proxied()) is True
    (seen,) = shared_upstream.wait_for_requests(1)
    assert seen.wait_ended()
    assert (seen.method, seen.body, seen.values(b"cookie")) == (b"POST", b"left", [])


@pytest.mark.parametrize("credentials", ["omit", "same-origin", "include"])
def test_session_stays_with_the_host(
    own_page: "Tab", host: Host, shared_upstream: ScriptedUpstream, credentials: str
) -> None:
    """The host's session cookie does not reach the upstream, whatever the page asks for."""
    own_page.fetch(host.proxied(), credentials=credentials)
    (seen,) = shared_upstream.requests
    assert seen.values(b"cookie") == []
    assert b"signed-in" not in seen.head


def test_authorization_is_the_stored_one(own_page: "Tab", host: Host, shared_upstream: ScriptedUpstream) -> None:
    """The stored credential replaces the page's own Authorization, and the page never sees it."""
    answer = own_page.fetch(host.proxied(), headers={"Authorization": "Bearer of-the-caller"})
    (seen,) = shared_upstream.requests
    assert seen.values(b"authorization") == [f"Bearer {UPSTREAM_SECRET}".encode()]
    assert UPSTREAM_SECRET not in json.dumps(answer)


def test_svg_image_stays_an_image(own_page: "Tab", host: Host, shared_upstream: ScriptedUpstream) -> None:
    """An upstream's SVG may be shown as an image, in which scripts do not run."""
    shared_upstream.answer(response(200, ((b"Content-Type", b"image/svg+xml"),), RUN_SVG))
    script = """url => new Promise(done => {
        const image = new Image();
        image.onload = () => done("loaded");
        image.onerror = () => done("failed");
        image.src = url;
        document.body.append(image);
    })"""
    assert own_page.run(script, host.proxied()) == "loaded"
    assert own_page.run("() => window.ran") is None
    assert [asked.dest for asked in host.journal.wait()] == ["image"]


def test_html_as_text_runs_nothing(own_page: "Tab", host: Host, shared_upstream: ScriptedUpstream) -> None:
    """HTML that a page fetches is text to it."""
    html = "<script>window.ran = 1</script>"
    shared_upstream.answer(response(200, ((b"Content-Type", b"text/html"),), html.encode()))
    assert own_page.fetch(host.proxied())["body"] == html
    assert own_page.run("() => window.ran") is None


def test_unknown_caller_gets_a_problem_document(own_page: "Tab", host: Host) -> None:
    """A fetch of a caller whom nobody knows is a 401 that the page can read."""
    answer = own_page.fetch(host.proxied(selector="nobody"))
    assert (answer["status"], answer["fields"]["content-type"]) == (401, "application/problem+json")
    assert json.loads(answer["body"])["key"] == "not_authenticated"

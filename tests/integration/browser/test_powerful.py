"""Whatever would make an upstream's document or script run on the host's origin is refused."""

from typing import TYPE_CHECKING

import pytest

from tests.integration.browser.sites import Host
from tests.upstreams import ScriptedUpstream, response

if TYPE_CHECKING:
    from tests.integration.browser.chromium import Tab


def element(tag: str, address: str, **others: str) -> str:
    """A script that adds an element with the URL in the attribute `address`."""
    return f"""url => {{
        const added = Object.assign(document.createElement({tag!r}), {others!r});
        added.setAttribute({address!r}, url);
        document.body.append(added);
    }}"""


def ignoring(expression: str) -> str:
    """A script that starts what fails later by a rejected promise."""
    return f"url => {{ Promise.resolve({expression}).catch(() => null); }}"


FOLLOW = """url => {
    const link = Object.assign(document.createElement("a"), {href: url});
    document.body.append(link);
    setTimeout(() => link.click());
}"""
PRELOAD = """url => {
    document.head.insertAdjacentHTML("beforeend", `<link rel="preload" as="script" href="${url}">`);
}"""

# Destination, as the Fetch Standard names it, and the script. Navigations begin once the script has returned.
ATTEMPTS = {
    "location": ("document", "url => { setTimeout(() => { location.href = url; }); }"),
    "new window": ("document", "url => { window.open(url); }"),
    "link": ("document", FOLLOW),
    "meta refresh": (
        "document",
        """url => {
            const meta = document.createElement("meta");
            meta.httpEquiv = "refresh";
            meta.content = `0; url=${url}`;
            document.head.append(meta);
        }""",
    ),
    "form": (
        "document",
        """url => {
            const form = Object.assign(document.createElement("form"), {method: "post", action: url});
            document.body.append(form);
            setTimeout(() => form.submit());
        }""",
    ),
    "iframe": ("iframe", element("iframe", "src")),
    "object": ("object", element("object", "data", type="text/html")),
    "embed": ("embed", element("embed", "src", type="text/html")),
    "script": ("script", element("script", "src")),
    "module": ("script", element("script", "src", type="module")),
    "import": ("script", ignoring("import(url)")),
    "preload": ("script", PRELOAD),
    "modulepreload": ("script", element("link", "href", rel="modulepreload")),
    "worker": ("worker", "url => { window.kept = new Worker(url); }"),
    "module worker": ("worker", "url => { window.kept = new Worker(url, {type: 'module'}); }"),
    "import in a worker": (
        "script",
        """url => {
            const code = new Blob([`importScripts(${JSON.stringify(url)})`]);
            window.kept = new Worker(URL.createObjectURL(code));
        }""",
    ),
    "shared worker": ("sharedworker", "url => { window.kept = new SharedWorker(url); }"),
    "service worker": ("serviceworker", ignoring("navigator.serviceWorker.register(url)")),
    "audio worklet": (
        "audioworklet",
        ignoring("(window.kept = new OfflineAudioContext(1, 1, 44100)).audioWorklet.addModule(url)"),
    ),
    "paint worklet": ("paintworklet", ignoring("CSS.paintWorklet.addModule(url)")),
}


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_host_page_cannot_run_it(own_page: "Tab", host: Host, shared_upstream: ScriptedUpstream, attempt: str) -> None:
    """The request is refused before the upstream hears of it."""
    dest, script = ATTEMPTS[attempt]
    own_page.run(script, host.proxied())
    (asked,) = host.journal.wait()
    assert (asked.dest, asked.site, asked.status) == (dest, "same-origin", 403)
    assert shared_upstream.requests == []


def test_no_service_worker_is_registered(own_page: "Tab", host: Host) -> None:
    """The registration fails, and the page has no worker afterwards."""
    script = """async url => {
        const failed = await navigator.serviceWorker.register(url).then(() => false, () => true);
        return [failed, (await navigator.serviceWorker.getRegistrations()).length];
    }"""
    assert own_page.run(script, host.proxied("/sw.js")) == [True, 0]


def test_address_bar(own_page: "Tab", host: Host, shared_upstream: ScriptedUpstream) -> None:
    """A proxied URL in the address bar is refused."""
    assert own_page.open(host.proxied()) == 403
    (asked,) = host.journal.wait()
    assert (asked.dest, asked.site) == ("document", "none")
    assert shared_upstream.requests == []


def test_refusal_is_inert(own_page: "Tab", host: Host) -> None:
    """The refusal is a problem document: shown as text, and nothing of the URL becomes an element."""
    markup = "<img/src=x/onerror=window.ran=1>"
    assert own_page.open(host.proxied(f"/{markup}?{markup}")) == 403
    script = "() => [document.contentType, document.querySelectorAll('img, script').length, window.ran ?? null]"
    assert own_page.run(script) == ["application/problem+json", 0, None]


def test_cached_answer_is_no_document(own_page: "Tab", host: Host, shared_upstream: ScriptedUpstream) -> None:
    """What a page has fetched does not come out of the browser's cache as a document."""
    fields = ((b"Content-Type", b"text/html"), (b"Cache-Control", b"max-age=600"))
    shared_upstream.answer(response(200, fields, b"<script>window.ran = 1</script>"))
    own_page.fetch(host.proxied())
    assert own_page.open(host.proxied()) == 403
    assert own_page.run("() => window.ran ?? null") is None

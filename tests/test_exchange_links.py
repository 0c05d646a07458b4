"""Links of responses, through the core and through real servers: clients that follow them stay inside."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import httpx
import pytest

from proxy_middleware import Connection, StaticResolver
from proxy_middleware._fields import Field
from tests.credentials.proxied import wsgi_host
from tests.in_process import host, proxy_to
from tests.script import CONNECTION, Response, Script, play, request
from tests.servers import serve_asgi, serve_wsgi
from tests.target.requests import scope
from tests.upstreams import ScriptedUpstream, response

INSIDE = replace(CONNECTION, rewrite_links=True)
URL = b"https://api.example.com/x"


def kept(connection: Connection, *fields: Field, target: bytes = b"/x") -> list[Field]:
    """The fields that the caller gets, when the upstream's answer has these."""
    asked = request("GET", target)
    asked.scope = scope(b"/connections/c/proxy" + target.partition(b"?")[0])
    return play(Script(connection=connection, responses=[Response(302, list(fields))]), asked).fields


def test_links_stay_as_they_came_by_default() -> None:
    """Nothing of a response is rewritten where the connection does not say so."""
    fields = [(b"Location", URL), (b"Content-Location", b"/x"), (b"Link", b"<" + URL + b">; rel=next")]
    assert kept(CONNECTION, *fields) == fields


def test_links_are_rewritten_where_the_connection_says_so() -> None:
    """The caller's own Host is what the URLs begin with; every other field stays."""
    fields = [
        (b"Location", URL),
        (b"Content-Location", b"/x"),
        (b"Refresh", URL),
        (b"Link", b"<" + URL + b">; rel=next"),
    ]
    inside = b"http://app.example.com/connections/c/proxy/x"
    assert kept(INSIDE, *fields) == [
        (b"Location", inside),
        (b"Content-Location", b"/connections/c/proxy/x"),
        (b"Refresh", URL),
        (b"Link", b"<" + inside + b">; rel=next"),
    ]


def test_links_are_those_of_the_url_that_was_asked() -> None:
    """A path in an answer of a further origin is one of that origin."""
    connection = replace(INSIDE, allowed_origins=("https://files.example.com",))
    (field,) = kept(connection, (b"location", b"/y"), target=b"/https://files.example.com/x")
    assert field == (b"location", b"/connections/c/proxy/https://files.example.com/y")


def test_pinned_mount_prefix() -> None:
    """The mount prefix that the application names is the links', too."""
    asked = request()
    asked.scope = scope(b"/connections/c/proxy/x", root="/chosen")
    script = Script(connection=INSIDE, responses=[Response(302, [(b"location", b"/y")])])
    assert play(script, asked, root_path="/api").fields == [(b"location", b"/api/connections/c/proxy/y")]


# Real servers


@pytest.fixture(scope="module")
def files() -> Iterator[ScriptedUpstream]:
    """The server of a further origin."""
    with ScriptedUpstream() as scripted:
        yield scripted


@pytest.fixture(scope="module")
def api() -> Iterator[ScriptedUpstream]:
    """The server of the base URL."""
    with ScriptedUpstream() as scripted:
        yield scripted


@pytest.fixture(scope="module", params=["asgi", "wsgi"])
def client(request: pytest.FixtureRequest, api: ScriptedUpstream, files: ScriptedUpstream) -> Iterator[httpx.Client]:
    """An ordinary client that follows redirects, and asks below the connection's URL."""
    connection = Connection("crm", f"{api.url}/v3", allowed_origins=(files.url,), rewrite_links=True)
    proxy = proxy_to(api, resolver=StaticResolver([connection]))
    serve = serve_asgi(proxy.asgi(host)) if request.param == "asgi" else serve_wsgi(proxy.wsgi(wsgi_host))
    with closing(proxy), serve as (name, port):
        base_url = f"http://{name}:{port}/connections/%63rm/proxy"
        with httpx.Client(base_url=base_url, follow_redirects=True, trust_env=False) as client:
            yield client


def redirect(to: str) -> bytes:
    """A redirect."""
    return response(302, ((b"Location", to.encode()),), reason=b"Found")


@pytest.fixture
def script(api: ScriptedUpstream, files: ScriptedUpstream) -> Iterator[None]:
    """Redirects of all kinds, which end at the further origin."""
    api.route(b"/v3/start", redirect(f"{api.url}/v3/a%2Fb?x=%2f&y=1+2"))
    api.route(b"/v3/a%2Fb", redirect("/v3/deep/er"))
    api.route(b"/v3/deep/er", redirect("../../out?z"))
    api.route(b"/out", redirect(f"//{files.url.partition('//')[2]}/f/g"))
    files.route(b"/f/g", redirect("last?page=2#end"))
    yield
    api.forget()
    files.forget()


@pytest.mark.usefixtures("script")
def test_client_that_follows_redirects_stays_inside(
    client: httpx.Client, api: ScriptedUpstream, files: ScriptedUpstream
) -> None:
    """Whatever form a redirect has, each step comes through the proxy, with the credential, to where it led."""
    answer = client.get("start")
    assert (answer.status_code, answer.text) == (200, "ok")
    assert [sent.target for sent in api.requests] == [b"/v3/start", b"/v3/a%2Fb?x=%2f&y=1+2", b"/v3/deep/er", b"/out?z"]
    assert [sent.target for sent in files.requests] == [b"/f/g", b"/f/last?page=2"]
    sent = api.requests + files.requests
    assert [one.values(b"authorization") for one in sent] == [[b"Bearer secret"]] * 6
    assert answer.url.fragment == "end"


def test_client_that_follows_pages_stays_inside(client: httpx.Client, api: ScriptedUpstream) -> None:
    """The next page's URL is absolute where the upstream's is, so that every client can follow it."""
    api.route(b"/v3/items", response(200, ((b"Link", f'<{api.url}/v3/items/2?per=1,2>; rel="next"'.encode()),), b"1"))
    api.route(b"/v3/items/2", response(200, ((b"Link", b"<../items>; rel=first"),), b"2"))
    first = client.get("items")
    second = client.get(first.links["next"]["url"])
    assert (first.text, second.text, second.links["first"]["url"]) == ("1", "2", "../items")
    assert [sent.target for sent in api.requests] == [b"/v3/items", b"/v3/items/2?per=1,2"]
    api.forget()

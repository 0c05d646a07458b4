"""What a client sends: the URL byte for byte, the payload, and who is calling."""

from typing import Any

import httpx
import pytest

from proxy_middleware.client import AsyncProxyClient, ProxyClient
from tests.client.colours import Colour

URL = "http://app.example"


def sent_by(path: str, base_url: str = URL, selector: str = "crm", **options: Any) -> httpx.Request:
    """The request for a path."""
    seen: list[httpx.Request] = []
    settings = {name: options.pop(name) for name in ("prefix", "token") if name in options}

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, request=request)

    with ProxyClient(base_url, transport=httpx.MockTransport(answer), **settings) as client:
        client.connection(selector).proxy.get(path, **options)
    return seen[0]


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("", ""),
        ("/", "/"),
        ("?a=1", "?a=1"),
        ("/crm/v3/owners/", "/crm/v3/owners/"),
        ("crm/v3", "/crm/v3"),
        ("/a%2fB//c;x=~'{}|^`\"<>\\", "/a%2fB//c;x=~'{}|^`\"<>\\"),
        ("/x?q=a+b&q=%zz&&'{}../", "/x?q=a+b&q=%zz&&'{}../"),
        ("https://files.example.com:8443/a?b", "/https://files.example.com:8443/a?b"),
        ("/https:/files.example.com/", "/https:/files.example.com/"),
        ("/...", "/..."),
    ],
)
def test_paths_are_sent_as_they_are(path: str, target: str) -> None:
    """A path, or a full URL, arrives byte for byte."""
    request = sent_by(path)
    assert request.url.raw_path == f"/connections/crm/proxy{target}".encode()
    assert (request.headers["host"], request.url.host) == ("app.example", "app.example")


@pytest.mark.parametrize(
    ("path", "query"),
    [("/x", "?a=1&b=x+y"), ("/x?", "?a=1&b=x+y"), ("/x?c=%zz", "?c=%zz&a=1&b=x+y"), ("", "?a=1&b=x+y")],
)
def test_parameters(path: str, query: str) -> None:
    """Parameters are added to the query that a path has."""
    request = sent_by(path, params={"a": 1, "b": "x y"})
    assert request.url.raw_path.partition(b"/proxy")[2] == f"{path.partition('?')[0]}{query}".encode()


@pytest.mark.parametrize("path", ["/a b", "/ü", "/a#b", "/a\r\nb", "/x?a=\x7f"])
def test_what_cannot_be_sent(path: str) -> None:
    """What would have to be encoded is refused, and not guessed at."""
    with pytest.raises(ValueError, match="percent-encode"):
        sent_by(path)


@pytest.mark.parametrize("path", ["/..", "/a/../b", "/./a", "/%2e%2E/", "/..;x/", "https://files.example.com/../x"])
def test_dot_segments(path: str) -> None:
    """Dot segments are refused, which a server in between might resolve."""
    with pytest.raises(ValueError, match="dot segments"):
        sent_by(path)


@pytest.mark.parametrize(
    ("selector", "segment"), [("a:b@c+d~e", "a:b@c+d~e"), ("my hubspot", "my%20hubspot"), ("A.b_c-1", "A.b_c-1")]
)
def test_selectors(selector: str, segment: str) -> None:
    """A selector is one segment of the path."""
    assert sent_by("/x", selector=selector).url.raw_path == f"/connections/{segment}/proxy/x".encode()


@pytest.mark.parametrize("selector", ["", "a/b", "a?b", "a%20b", "ü", "a" * 257])
def test_what_is_no_selector(selector: str) -> None:
    """What no connection can be called is a ValueError, also where it would lead elsewhere."""
    with pytest.raises(ValueError, match="A selector is"):
        sent_by("/x", selector=selector)


def test_selector_of_dots() -> None:
    """A selector that a server in between might take for a dot segment is refused."""
    with pytest.raises(ValueError, match="dot segments"):
        sent_by("/x", selector="..")


@pytest.mark.parametrize(
    ("base_url", "root"),
    [("http://[::1]:81", ""), ("https://app.example/", ""), ("http://app.example/api/v1/", "/api/v1")],
)
def test_base_urls(base_url: str, root: str) -> None:
    """The application may be mounted below a path, and its connections below another prefix."""
    request = sent_by("/x", base_url, prefix="/my/apis")
    assert request.url.raw_path == f"{root}/my/apis/crm/proxy/x".encode()
    assert base_url.startswith(f"{request.url.scheme}://{request.url.netloc.decode()}")


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"base_url": "app.example"}, "http:// or https://"),
        ({"base_url": "http://user:xyzzy@app.example"}, "user name"),
        ({"base_url": "http://app.example/?a"}, "query"),
        ({"prefix": "connections"}, "prefix"),
        ({"token": "xyzzy\r\n"}, "token"),
        ({"token": ""}, "token"),
    ],
)
def test_malformed_arguments(wrong: dict[str, Any], match: str) -> None:
    """A malformed argument is a ValueError that does not repeat what may be a secret."""
    arguments = {"base_url": URL, **wrong}
    for kind in (ProxyClient, AsyncProxyClient):
        with pytest.raises(ValueError, match=match) as raised:
            kind(**arguments)
        assert "xyzzy" not in str(raised.value)


def test_transports_of_the_other_colour() -> None:
    """A transport that cannot serve, a class and a client are TypeErrors that name the method."""
    with httpx.Client() as client:
        for wrong in (httpx.AsyncHTTPTransport(), httpx.HTTPTransport, client):
            with pytest.raises(TypeError, match="`handle_request`"):
                ProxyClient(URL, transport=wrong)
    with pytest.raises(TypeError, match="`handle_async_request`"):
        AsyncProxyClient(URL, transport=httpx.HTTPTransport())


def test_token() -> None:
    """The token goes along as a bearer token, where there is one; a call may say otherwise."""
    assert "authorization" not in sent_by("/x").headers
    assert sent_by("/x", token="t").headers["authorization"] == "Bearer t"
    assert sent_by("/x", token="t", headers={"Authorization": "Bearer u", "X-A": "b"}).headers.multi_items()[-2:] == [
        ("authorization", "Bearer u"),
        ("x-a", "b"),
    ]


def test_methods_and_payloads(each: Colour) -> None:
    """Every method takes its path, and post, put and patch a payload that is sent as JSON."""
    seen: list[tuple[str, bytes, str]] = []

    def answer(request: Any) -> Any:
        seen.append((request.method, request.content, request.headers.get("content-type", "")))
        return each.library.Response(200)

    client = each.proxy_client(URL, transport=each.library.MockTransport(answer))
    proxy = client.connection("crm").proxy
    for call in (proxy.get, proxy.delete):
        assert isinstance(each.run(call, "/x"), each.library.Response)
    for call in (proxy.post, proxy.put, proxy.patch):
        each.run(call, "/x", {"a": [1]})
    each.run(proxy.post, "/x", [])
    each.run(proxy.post, "/x", data={"a": "b"})
    each.run(proxy.request, "pAtch", "/x", {"a": [1]})
    json = (b'{"a":[1]}', "application/json")
    assert seen == [
        *(("GET", b"", ""), ("DELETE", b"", "")),
        *(("POST", *json), ("PUT", *json), ("PATCH", *json), ("POST", b"[]", "application/json")),
        *(("POST", b"a=b", "application/x-www-form-urlencoded"), ("pAtch", *json)),
    ]


@pytest.mark.parametrize("name", ["content", "data", "files", "json"])
def test_two_bodies(name: str) -> None:
    """A payload beside another body is a TypeError."""
    calls: Any = ProxyClient(URL, transport=httpx.MockTransport(lambda _: httpx.Response(200))).connection("crm").proxy
    with pytest.raises(TypeError, match="exclude each other"):
        calls.post("/x", {"a": 1}, **{name: b"x"})


def test_no_cookie_is_kept(each: Colour) -> None:
    """What one connection's upstream sets is not sent to the next one's; a cookie of the call's own is sent."""
    seen: list[str | None] = []

    def answer(request: Any) -> Any:
        seen.append(request.headers.get("cookie"))
        return each.library.Response(200, headers={"set-cookie": "session=tenant-a; Path=/"})

    client = each.proxy_client(URL, transport=each.library.MockTransport(answer))
    for selector in ("a", "b"):
        each.run(client.connection(selector).proxy.get, "/x")
    each.run(client.connection("c").proxy.get, "/x", headers={"cookie": "own=1"})
    assert seen == [None, None, "own=1"]


def test_time_outs(each: Colour) -> None:
    """The client waits longer than the proxy does, unless it or the call is told otherwise."""
    seen: list[Any] = []

    def answer(request: Any) -> Any:
        seen.append(request.extensions["timeout"]["read"])
        return each.library.Response(200)

    client = each.proxy_client(URL, transport=each.library.MockTransport(answer))
    each.run(client.connection("a").proxy.get, "/x")
    each.run(client.connection("a").proxy.get, "/x", timeout=3)
    client = each.proxy_client(URL, transport=each.library.MockTransport(answer), timeout=None)
    each.run(client.connection("a").proxy.get, "/x")
    assert seen == [90.0, 3, None]

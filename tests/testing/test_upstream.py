"""The fake upstream: what it keeps, how it answers, and what it says when a test goes wrong."""

import http.client
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import pytest

from proxy_middleware.testing import FakeUpstream, ReceivedRequest, Reply
from tests.callers import NoResponse, call, request


def address(upstream: FakeUpstream) -> tuple[str, int]:
    """Where it listens."""
    split = urlsplit(upstream.url)
    return str(split.hostname), int(split.port or 0)


def test_keeps_every_byte() -> None:
    """Head, framing and body of a request are kept as they came."""
    head = b"POST /a%2Fb?x=1 HTTP/1.1\r\nHost: h\r\nX-One:  1 \r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: t\r\n\r\n"
    with FakeUpstream() as upstream:
        assert call(address(upstream), head + body).body == b"ok"
    (received,) = upstream.requests
    assert (received.method, received.target) == ("POST", b"/a%2Fb?x=1")
    assert (received.head, received.raw, received.body) == (head, head + body, b"abcde")
    assert received.fields[1] == (b"X-One", b"1")
    assert (received.header("x-one"), received.header("x-two")) == ("1", None)
    assert received.complete


def test_repr_of_a_request_shows_no_credential() -> None:
    """Neither fields nor query are in the `repr` of a request."""
    with FakeUpstream() as upstream:
        httpx.get(f"{upstream.url}/path?key=secret", headers={"Authorization": "Bearer secret"})
    assert "/path" in repr(upstream.requests)
    assert "secret" not in repr(upstream.requests)


def _echo(request: ReceivedRequest) -> Reply:
    return Reply(200, request.body)


def test_answers_in_turn() -> None:
    """Each request gets the next answer, and the last one is for all that follow."""
    with FakeUpstream(Reply(401, fields={"X-A": "1"}), Reply(404, b"no"), _echo) as upstream, httpx.Client() as client:
        answers = [client.post(upstream.url, content=b"echo") for _ in range(4)]
    assert [(answer.status_code, answer.content) for answer in answers] == [
        (401, b""),
        (404, b"no"),
        (200, b"echo"),
        (200, b"echo"),
    ]
    assert answers[0].headers["x-a"] == "1"
    assert upstream.connections == 1


@pytest.mark.parametrize("status", [204, 304])
def test_answers_without_a_body(status: int) -> None:
    """HEAD, 204 and 304 have no body, and the connection stays usable."""
    with FakeUpstream(Reply(200, b"body"), Reply(status)) as upstream, httpx.Client() as client:
        assert client.head(upstream.url).headers["content-length"] == "4"
        assert client.get(upstream.url).status_code == status
        assert client.get(upstream.url).status_code == status
        assert upstream.connections == 1


def test_raw_bytes() -> None:
    """Bytes are sent as they are; the connection is closed unless they were one whole response."""
    whole = b"HTTP/1.1 299 Odd\r\ncontent-LENGTH: 2\r\n\r\nok"
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    bodiless, open_end = b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\nto the end"
    with FakeUpstream(whole, chunked, bodiless, open_end) as upstream, httpx.Client() as client:
        assert client.get(upstream.url).status_code == 299
        assert [client.get(upstream.url).content for _ in range(3)] == [b"ok", b"", b"to the end"]
        assert upstream.connections == 1
        assert client.get(upstream.url).content == b"to the end"
        assert upstream.connections == 2


@pytest.mark.parametrize("body", [b"0123456789", [b"0123", b"456789"]])
def test_breaks_off(body: "bytes | list[bytes | threading.Event]") -> None:
    """A body breaks off after so many bytes, whether it has a length or is chunked."""
    with FakeUpstream(Reply(200, body, break_after=5)) as upstream:
        answer = call(address(upstream), request("GET", "/"))
    assert not answer.complete
    assert answer.body == b"01234"


def test_waits_for_events() -> None:
    """Head and pieces of the body wait for their events."""
    head, piece = threading.Event(), threading.Event()
    reply = Reply(200, [b"one", piece, b"two"], wait_for=head)
    with FakeUpstream(reply) as upstream, ThreadPoolExecutor(1) as pool, httpx.Client() as client:
        stream = client.stream("GET", upstream.url)
        entered = pool.submit(stream.__enter__)
        upstream.wait_for_requests(1)
        assert not entered.done()
        head.set()
        pieces = entered.result(10).iter_raw()
        assert next(pieces) == b"one"
        piece.set()
        assert next(pieces) == b"two"
        stream.__exit__(None, None, None)


def test_waiting_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event that is never set is an error of the `with` block, which names the request."""
    monkeypatch.setattr("proxy_middleware.testing.upstream.WAIT", 0.05)
    upstream = FakeUpstream(Reply(wait_for=threading.Event()))
    with pytest.raises(ExceptionGroup) as caught, upstream, pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"{upstream.url}/slow")
    assert "GET /slow" in str(caught.value.exceptions[0])


def test_too_few_requests() -> None:
    """Waiting for requests that do not come is a TimeoutError that says which did."""
    with FakeUpstream() as upstream:
        httpx.get(f"{upstream.url}/one")
        with pytest.raises(TimeoutError, match=r"1 of 2 requests came within 0\.05 s: .*GET /one"):
            upstream.wait_for_requests(2, 0.05)


def test_failing_function() -> None:
    """What an answering function raises comes out of the `with` block, as a note where that fails by itself."""

    def answer(request: ReceivedRequest) -> Reply:
        raise LookupError("no answer")

    upstream = FakeUpstream(answer)
    with pytest.raises(ExceptionGroup, match="upstream failed"), upstream, pytest.raises(httpx.RemoteProtocolError):
        httpx.get(upstream.url)
    with pytest.raises(httpx.RemoteProtocolError) as caught, FakeUpstream(answer) as upstream:
        httpx.get(upstream.url)
    assert "no answer" in caught.value.__notes__[0]


def test_demands_a_credential() -> None:
    """Without the demanded field the answer is a 401, which takes no turn."""
    with FakeUpstream.demanding("X-Api-Key", "right", Reply(200, b"first"), Reply(200, b"second")) as upstream:
        asked = [httpx.get(upstream.url, headers={"x-api-key": key}) for key in ("wrong", "right", "right")]
    assert [answer.status_code for answer in asked] == [401, 200, 200]
    assert [answer.content for answer in asked[1:]] == [b"first", b"second"]


def test_cut_requests() -> None:
    """A request whose body breaks off is kept, and known for it; it is not answered."""
    with FakeUpstream() as upstream:
        with socket.create_connection(address(upstream)) as sock:
            sock.sendall(b"PUT / HTTP/1.1\r\nContent-Length: 10\r\n\r\nhalf")
        (received,) = upstream.wait_for_requests(1)
    assert (received.body, received.complete) == (b"half", False)


def test_what_is_no_http() -> None:
    """Whatever is no request is an error of the `with` block."""
    upstream = FakeUpstream()
    with pytest.raises(ExceptionGroup, match="upstream failed"), upstream, pytest.raises(NoResponse):
        call(address(upstream), b"hello\r\n\r\n")


def test_many_callers() -> None:
    """Many threads may call at once; every request is kept and every answer given once."""
    with FakeUpstream(*(Reply(200, b"%d" % number) for number in range(40))) as upstream:

        def ask(_: int) -> bytes:
            connection = http.client.HTTPConnection(*address(upstream), timeout=10)
            connection.request("GET", "/")
            body = connection.getresponse().read()
            connection.close()
            return body

        with ThreadPoolExecutor(8) as pool:
            bodies = list(pool.map(ask, range(40)))
    assert sorted(map(int, bodies)) == list(range(40))
    assert len(upstream.requests) == 40


def test_listens_inside_its_block_only() -> None:
    """There is no URL before and after the `with` block, and no second one."""
    upstream = FakeUpstream()
    with pytest.raises(RuntimeError, match="inside its `with` block"):
        _ = upstream.url
    with upstream:
        assert upstream.url
    with pytest.raises(RuntimeError, match="entered once"):
        upstream.__enter__()

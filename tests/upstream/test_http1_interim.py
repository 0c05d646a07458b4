"""HTTP/1.1 without I/O: content where there must be none, in interim responses and in answers to HEAD."""

import pytest

from proxy_middleware.errors import ProtocolViolation
from tests.upstream.test_http1 import CHUNKED, LENGTH, OneResponse, cut, every_byte, feed_all, parse
from tests.wire import chunked

CONTENTS = [b"Content-Length: 4\r\n\r\nevil", b"Transfer-Encoding: chunked\r\n\r\n" + chunked(b"evil")]


@pytest.mark.parametrize("content", CONTENTS, ids=["length", "chunked"])
@pytest.mark.parametrize("status", [100, 102, 103, 104, 199])
def test_interim_response_with_content(status: int, content: bytes) -> None:
    """An interim response with content is refused, wherever it is cut, and nothing of it gets into a body."""
    data = b"HTTP/1.1 %d Interim\r\n" % status + content + LENGTH + b"ok"
    for pieces in (every_byte(data), *(cut(data, [at]) for at in range(len(data)))):
        parser = OneResponse(head_request=False, head_limit=65536)
        with pytest.raises(ProtocolViolation):
            feed_all(parser, pieces)
        assert (parser.head_complete, parser.complete, parser.reusable) == (False, False, False)
        assert parser.take() == b""


def test_head_answered_with_the_beginning_of_a_chunk() -> None:
    """No connection is used again on which a HEAD was answered with chunks, be it only the first one's size line."""
    data = CHUNKED + b"27\r\n"
    for pieces in (every_byte(data), *(cut(data, [at]) for at in range(len(data)))):
        parser = parse(pieces, head=True)
        assert (parser.complete, parser.reusable, parser.take()) == (True, False, b"")

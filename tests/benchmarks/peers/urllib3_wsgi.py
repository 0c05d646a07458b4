"""The peer: a WSGI proxy on urllib3, streaming as its documentation shows it."""

from collections.abc import Iterable, Iterator
from wsgiref.types import StartResponse, WSGIEnvironment

import urllib3

from tests.benchmarks.peers.common import CREDENTIAL, PIECE_SIZE, POOL_SIZE, end_to_end, is_known, target, wsgi_fields

pools = urllib3.PoolManager(maxsize=POOL_SIZE)


def wsgi(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Forward one request."""
    if not is_known(environ.get("HTTP_AUTHORIZATION", "")):
        start_response("401 Unauthorized", [("Content-Length", "0")])
        return []
    response = pools.request(
        environ["REQUEST_METHOD"],
        target(environ["PATH_INFO"], environ.get("QUERY_STRING", "")),
        headers={**dict(end_to_end(wsgi_fields(environ))), "Authorization": CREDENTIAL},
        body=environ["wsgi.input"] if environ["REQUEST_METHOD"] == "POST" else None,
        redirect=False,
        retries=False,
        preload_content=False,
    )
    start_response(f"{response.status} {response.reason}", end_to_end(response.headers.items()))
    return _pieces(response)


def _pieces(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    try:
        yield from response.stream(PIECE_SIZE, decode_content=False)
    finally:
        response.release_conn()

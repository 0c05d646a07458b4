"""The peer: a WSGI proxy on requests, streaming as its documentation shows it."""

from collections.abc import Iterable, Iterator
from wsgiref.types import StartResponse, WSGIEnvironment

import requests
from requests.adapters import HTTPAdapter

from tests.benchmarks.peers.common import CREDENTIAL, PIECE_SIZE, POOL_SIZE, end_to_end, is_known, target, wsgi_fields

session = requests.Session()
# Else each request looks for proxies and a .netrc, whose credential would replace ours.
session.trust_env = False
session.mount("http://", HTTPAdapter(pool_maxsize=POOL_SIZE))


def wsgi(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Forward one request."""
    if not is_known(environ.get("HTTP_AUTHORIZATION", "")):
        start_response("401 Unauthorized", [("Content-Length", "0")])
        return []
    response = session.request(
        environ["REQUEST_METHOD"],
        target(environ["PATH_INFO"], environ.get("QUERY_STRING", "")),
        headers={**dict(end_to_end(wsgi_fields(environ))), "Authorization": CREDENTIAL},
        data=environ["wsgi.input"] if environ["REQUEST_METHOD"] == "POST" else None,
        allow_redirects=False,
        stream=True,
    )
    start_response(f"{response.status_code} {response.reason}", end_to_end(response.raw.headers.items()))
    return _pieces(response)


def _pieces(response: requests.Response) -> Iterator[bytes]:
    with response:
        yield from response.raw.stream(PIECE_SIZE, decode_content=False)

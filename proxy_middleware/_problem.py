"""The proxy's own answers: `application/problem+json` (RFC 9457), marked by `Proxy-Status` (RFC 9209)."""

import json

from proxy_middleware._fields import Field
from proxy_middleware.errors import ProxyError


def problem(error: ProxyError) -> tuple[list[Field], bytes]:
    """Fields and body of the answer to an error.

    `type` and `key` are what the SDKs of Membrane recognise, `message` repeats `detail` for them.
    """
    content = json.dumps(
        {
            "type": error.type,
            "title": error.title,
            "status": error.status,
            "detail": error.detail,
            "key": error.key,
            "message": error.detail,
            "data": {},
        }
    ).encode("ascii")
    fields = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(content)),
        # One URL means different connections to different callers; not even a 404 is to be stored.
        (b"cache-control", b"no-store"),
        (b"proxy-status", b"proxy_middleware; error=" + error.proxy_status.encode("ascii")),
        *error.fields,
    ]
    return fields, content

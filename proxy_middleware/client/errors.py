"""What the proxy has answered by itself.

    ProxyFailed                     any status
    ├── InvalidRequest              400, 405, 411
    ├── NotAuthenticated            401
    ├── AccessDenied                403
    ├── ConnectionNotFound          404
    ├── AmbiguousSelector           409
    ├── PayloadTooLarge             413
    ├── CredentialUnavailable       424
    ├── TooManyRequests             429
    ├── InternalError               500
    ├── UpstreamError               502
    ├── PoolExhausted               503
    └── UpstreamTimeout             504

They are called like their counterparts in `proxy_middleware.errors`, and are none of them: a plugin that calls another
proxy must not have its own callers told what that one answered.
"""

import json
from collections.abc import Mapping
from typing import Any

from proxy_middleware.client._proxy_status import own_error
from proxy_middleware.client.response import Response

__all__ = [
    "AccessDenied",
    "AmbiguousSelector",
    "ConnectionNotFound",
    "CredentialUnavailable",
    "InternalError",
    "InvalidRequest",
    "NotAuthenticated",
    "PayloadTooLarge",
    "PoolExhausted",
    "ProxyFailed",
    "TooManyRequests",
    "UpstreamError",
    "UpstreamTimeout",
]


class ProxyFailed(Exception):
    """The proxy has answered by itself, and not with the upstream's response.

    Attributes:
        response: The answer, already read.
        status: Its status.
        error: The error type of RFC 9209 in its `Proxy-Status`, such as "dns_error".
        type: As in its body, such as "connection"; empty where there is no readable body, as for HEAD.
        key: The same, such as "upstream_unreachable".
        message: What went wrong, for people.
        data: Further members; none as yet.
    """

    def __init__(self, response: Response, error: str) -> None:
        members = _members(response.content)
        self.response = response
        self.status = response.status_code
        self.error = error
        self.type = _text(members.get("type"))
        self.key = _text(members.get("key"))
        self.message = _text(members.get("message")) or f"The proxy answered {self.status}"
        data = members.get("data")
        self.data: Mapping[str, Any] = data if isinstance(data, dict) else {}
        super().__init__(f"{self.message} ({self.status}, {self.key or error})")

    def __reduce__(self) -> tuple[Any, ...]:
        # An exception's own calls its class with the message, and process pools and task queues pickle what is raised.
        return type(self), (self.response, self.error)


class InvalidRequest(ProxyFailed):
    """The target, method, a header field or the framing was refused."""


class NotAuthenticated(ProxyFailed):
    """The token is missing, or is nobody's."""


class AccessDenied(ProxyFailed):
    """The caller, method, path, origin or address is not allowed."""


class ConnectionNotFound(ProxyFailed):
    """There is no such connection, or the caller may not know of it."""


class AmbiguousSelector(ProxyFailed):
    """More than one connection has this integration key or id."""


class PayloadTooLarge(ProxyFailed):
    """The request body is longer than is allowed."""


class CredentialUnavailable(ProxyFailed):
    """The connection has no credential that works: its account has to be connected anew."""


class TooManyRequests(ProxyFailed):
    """The connection has had its share of requests; `response.headers["retry-after"]` says when to come back."""


class InternalError(ProxyFailed):
    """Something failed in the application around the proxy; its log says what."""


class UpstreamError(ProxyFailed):
    """The upstream could not be reached, or not be understood."""


class PoolExhausted(ProxyFailed):
    """Too many requests to the upstream are under way."""


class UpstreamTimeout(ProxyFailed):
    """The upstream took too long."""


_BY_STATUS: dict[int, type[ProxyFailed]] = {
    400: InvalidRequest,
    401: NotAuthenticated,
    403: AccessDenied,
    404: ConnectionNotFound,
    405: InvalidRequest,
    409: AmbiguousSelector,
    411: InvalidRequest,
    413: PayloadTooLarge,
    424: CredentialUnavailable,
    429: TooManyRequests,
    500: InternalError,
    502: UpstreamError,
    503: PoolExhausted,
    504: UpstreamTimeout,
}


def error_of(response: Response) -> str | None:
    """The proxy's error type, by the head alone; None if the response is the upstream's, errors included."""
    return own_error(response.headers.get_list("proxy-status"))


def failure(response: Response, error: str) -> ProxyFailed:
    """The exception for an answer of the proxy's own that has been read."""
    return _BY_STATUS.get(response.status_code, ProxyFailed)(response, error)


def _members(content: bytes) -> Mapping[str, Any]:
    """A problem's members (RFC 9457 section 3); none where a server in between has put something else in its place."""
    try:
        members = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return members if isinstance(members, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""

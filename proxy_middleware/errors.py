"""What can go wrong, and how each case is answered.

    ProxyError                          status  type / key                          Proxy-Status error (RFC 9209)
    ├── NotAuthenticated                401     bad_request / not_authenticated     http_request_denied
    ├── AccessDenied                    403     bad_request / access_denied         http_request_denied
    │   └── AddressRefused              403     bad_request / access_denied         destination_ip_prohibited
    ├── ConnectionNotFound              404     bad_request / not_found             http_request_error
    ├── AmbiguousSelector               409     bad_request / ambiguous_selector    http_request_error
    ├── InvalidRequest                  400     bad_request / invalid_request       http_request_error
    │   ├── InvalidTarget               400     bad_request / invalid_target        http_request_error
    │   ├── MethodRefused               405     bad_request / invalid_request       http_request_error
    │   └── LengthRequired              411     bad_request / invalid_request       http_request_error
    ├── PayloadTooLarge                 413     bad_request / payload_too_large     http_request_error
    ├── TooManyRequests                 429     bad_request / rate_limit_exceeded   http_request_denied
    ├── CredentialUnavailable           424     connection / access_token_expired   proxy_configuration_error
    │   └── RefreshFailed               424     connection / access_token_expired   proxy_configuration_error
    │       └── RefreshPending          424     connection / access_token_expired   proxy_configuration_error
    ├── StoreError                      424     connection / access_token_expired   proxy_configuration_error
    │   ├── StoreUnavailable            424     connection / access_token_expired   proxy_configuration_error
    │   └── StoreCorrupted              424     connection / access_token_expired   proxy_configuration_error
    ├── InternalError                   500     internal / internal                 proxy_internal_error
    ├── UpstreamError                   502     connection / upstream_unreachable   connection_terminated
    │   ├── DNSFailure                  502     connection / upstream_unreachable   dns_error
    │   ├── ConnectFailed               502     connection / upstream_unreachable   connection_refused
    │   ├── TLSFailure                  502     connection / upstream_unreachable   tls_protocol_error
    │   │   └── CertificateRefused      502     connection / upstream_unreachable   tls_certificate_error
    │   ├── ConnectionTerminated        502     connection / upstream_unreachable   connection_terminated
    │   └── ProtocolViolation           502     connection / upstream_protocol_error http_protocol_error
    ├── PoolExhausted                   503     concurrency / lock_timeout          connection_limit_reached
    └── UpstreamTimeout                 504     connection / upstream_timeout       connection_read_timeout
        ├── ConnectTimeout              504     connection / upstream_timeout       connection_timeout
        ├── HeadTimeout                 504     connection / upstream_timeout       http_response_timeout
        ├── ReadTimeout                 504     connection / upstream_timeout       connection_read_timeout
        └── WriteTimeout                504     connection / upstream_timeout       connection_write_timeout

    ResponseTruncated (ConnectionError) the response broke off after its head: the caller's transfer is broken too
    CallerLeft                          the caller went away, or its body ended short; nobody is left to answer

A `detail` is shown to the caller; never put a secret into one.
"""

from typing import ClassVar

__all__ = [
    "AccessDenied",
    "AddressRefused",
    "AmbiguousSelector",
    "CallerLeft",
    "CertificateRefused",
    "ConnectFailed",
    "ConnectTimeout",
    "ConnectionNotFound",
    "ConnectionTerminated",
    "CredentialUnavailable",
    "DNSFailure",
    "HeadTimeout",
    "InternalError",
    "InvalidRequest",
    "InvalidTarget",
    "LengthRequired",
    "MethodRefused",
    "NotAuthenticated",
    "PayloadTooLarge",
    "PoolExhausted",
    "ProtocolViolation",
    "ProxyError",
    "ReadTimeout",
    "RefreshFailed",
    "RefreshPending",
    "ResponseTruncated",
    "StoreCorrupted",
    "StoreError",
    "StoreUnavailable",
    "TLSFailure",
    "TooManyRequests",
    "UpstreamError",
    "UpstreamTimeout",
    "WriteTimeout",
]


class ProxyError(Exception):
    """An answer the proxy gives by itself, as `application/problem+json` (RFC 9457).

    Args:
        detail: One sentence for the caller, replacing the class's own. Sent to the caller.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "internal"
    key: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"
    proxy_status: ClassVar[str] = "proxy_internal_error"
    fields: tuple[tuple[bytes, bytes], ...] = ()

    def __init__(self, detail: str | None = None) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title


class NotAuthenticated(ProxyError):
    """The authenticator returned None."""

    status = 401
    type = "bad_request"
    key = "not_authenticated"
    title = "The caller is not authenticated"
    proxy_status = "http_request_denied"
    fields = ((b"www-authenticate", b'Bearer realm="proxy"'),)


class AccessDenied(ProxyError):
    """The caller, method, path, origin or browser context is not allowed."""

    status = 403
    type = "bad_request"
    key = "access_denied"
    title = "Access denied"
    proxy_status = "http_request_denied"


class AddressRefused(AccessDenied):
    """The egress policy refuses every address of the upstream."""

    title = "The upstream's address is not allowed"
    proxy_status = "destination_ip_prohibited"


class ConnectionNotFound(ProxyError):
    """No connection has this selector, or the caller may not know of it."""

    status = 404
    type = "bad_request"
    key = "not_found"
    title = "No such connection"
    proxy_status = "http_request_error"


class AmbiguousSelector(ProxyError):
    """More than one connection answers to an integration key or id."""

    status = 409
    type = "bad_request"
    key = "ambiguous_selector"
    title = "More than one connection has this selector"
    proxy_status = "http_request_error"


class InvalidRequest(ProxyError):
    """A header field or the framing is malformed."""

    status = 400
    type = "bad_request"
    key = "invalid_request"
    title = "The request is malformed"
    proxy_status = "http_request_error"


class InvalidTarget(InvalidRequest):
    """The target path or URL is malformed, or has dot segments."""

    key = "invalid_target"
    title = "The target is malformed"


class MethodRefused(InvalidRequest):
    """TRACE, TRACK and CONNECT are never forwarded."""

    status = 405
    title = "The method is not forwarded"
    # RFC 9110 section 10.2.1 asks for Allow with a 405.
    fields = ((b"allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),)


class LengthRequired(InvalidRequest):
    """The server hides where the request body ends."""

    status = 411
    title = "The request needs a Content-Length"


class PayloadTooLarge(ProxyError):
    """The request body is longer than `Limits.request_body`, or too long to be signed."""

    status = 413
    type = "bad_request"
    key = "payload_too_large"
    title = "The request body is too large"
    proxy_status = "http_request_error"


class TooManyRequests(ProxyError):
    """The connection has had its share of requests: `Limits.rate` or `Limits.per_connection_concurrency`.

    Args:
        detail: One sentence for the caller.
        retry_after: Seconds after which it may go better (RFC 9110 section 10.2.3).
    """

    status = 429
    type = "bad_request"
    key = "rate_limit_exceeded"
    title = "Too many requests"
    proxy_status = "http_request_denied"

    def __init__(self, detail: str | None = None, *, retry_after: int = 1) -> None:
        super().__init__(detail)
        self.fields = ((b"retry-after", b"%d" % retry_after),)


class CredentialUnavailable(ProxyError):
    """There is no credential for the connection, or none that could still work."""

    status = 424
    type = "connection"
    key = "access_token_expired"
    title = "The connection has no usable credential"
    proxy_status = "proxy_configuration_error"


class RefreshFailed(CredentialUnavailable):
    """The credential could not be refreshed."""

    title = "The connection's credential could not be refreshed"


class RefreshPending(RefreshFailed):
    """Another process is refreshing the credential, and was not done in time: nothing was asked."""


class StoreError(ProxyError):
    """The token store is of no help.

    Args:
        reason: For the host and its log; the caller is told the title alone.
    """

    status = 424
    type = "connection"
    key = "access_token_expired"
    title = "The token store failed"
    proxy_status = "proxy_configuration_error"

    def __init__(self, reason: str | None = None) -> None:
        super().__init__()
        self.args = (reason or self.title,)


class StoreUnavailable(StoreError):
    """The token store cannot be reached: what is known already goes on being used, what needs the store fails."""

    title = "The token store cannot be reached"


class StoreCorrupted(StoreError):
    """A stored record cannot be decrypted: its key is not in the ring, or it was tampered with."""

    title = "The connection's stored tokens cannot be read"


class InternalError(ProxyError):
    """A plugin raised something else; its message is not shown."""


class UpstreamError(ProxyError):
    """The upstream could not be reached, or its answer could not be understood."""

    status = 502
    type = "connection"
    key = "upstream_unreachable"
    title = "The upstream could not be reached"
    proxy_status = "connection_terminated"


class DNSFailure(UpstreamError):
    """The upstream's name does not resolve."""

    title = "The upstream's name does not resolve"
    proxy_status = "dns_error"


class ConnectFailed(UpstreamError):
    """The upstream refused the connection, or no route leads there."""

    title = "The upstream refused the connection"
    proxy_status = "connection_refused"


class TLSFailure(UpstreamError):
    """The TLS handshake failed."""

    title = "The TLS handshake with the upstream failed"
    proxy_status = "tls_protocol_error"


class CertificateRefused(TLSFailure):
    """The upstream's certificate is not valid for its name."""

    title = "The upstream's certificate was refused"
    proxy_status = "tls_certificate_error"


class ConnectionTerminated(UpstreamError):
    """The upstream closed the connection before it answered."""

    title = "The upstream closed the connection"


class ProtocolViolation(UpstreamError):
    """The upstream's answer is not well-formed HTTP/1.1 (RFC 9112)."""

    key = "upstream_protocol_error"
    title = "The upstream's answer is malformed"
    proxy_status = "http_protocol_error"


class PoolExhausted(ProxyError):
    """No connection to the upstream came free within `Timeouts.pool`."""

    status = 503
    type = "concurrency"
    key = "lock_timeout"
    title = "Too many requests to the upstream are under way"
    proxy_status = "connection_limit_reached"
    fields = ((b"retry-after", b"1"),)


class UpstreamTimeout(ProxyError):
    """The upstream took too long."""

    status = 504
    type = "connection"
    key = "upstream_timeout"
    title = "The upstream took too long"
    proxy_status = "connection_read_timeout"


class ConnectTimeout(UpstreamTimeout):
    """Look-up, connect and TLS handshake took longer than `Timeouts.connect`."""

    proxy_status = "connection_timeout"


class HeadTimeout(UpstreamTimeout):
    """The response head was not complete within `Timeouts.head` of the request's last byte."""

    proxy_status = "http_response_timeout"


class ReadTimeout(UpstreamTimeout):
    """The response body stood still for `Timeouts.idle`."""


class WriteTimeout(UpstreamTimeout):
    """The upstream took nothing of the request body for `Timeouts.idle`."""

    proxy_status = "connection_write_timeout"


class ResponseTruncated(ConnectionError):
    """The upstream's response broke off after its head had been passed on.

    A ConnectionError, because werkzeug ends a response cleanly on any other exception.
    """


class CallerLeft(Exception):
    """The caller closed its connection, or its body ended before its declared length."""

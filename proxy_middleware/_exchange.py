"""THE CORE: one generator that takes every decision about one request.

It does no I/O and knows no clock, lock, thread, event loop or framework. It yields what it wants done, a step; a loop
in `_drive.py`, one per colour, performs the step and sends the outcome back, or throws what went wrong in at the
`yield`. Bodies and responses are opaque handles, and the core owns nothing that must be closed.
"""

import re
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

from proxy_middleware._browser import check_browser
from proxy_middleware._credential import Credential
from proxy_middleware._fields import Field, RequestFields, canonical, is_token, read_request
from proxy_middleware._globs import path_allowed
from proxy_middleware._links import rewrite_links
from proxy_middleware._response_fields import read_response
from proxy_middleware._steps import (
    Admit,
    Authenticate,
    Body,
    Clock,
    Collect,
    Discard,
    Forward,
    Judge,
    Obtain,
    Probe,
    Refresh,
    Relay,
    Resolve,
    Response,
    Step,
    Steps,
)
from proxy_middleware._target import Origin, is_ordinary, resolve_target
from proxy_middleware.errors import (
    AccessDenied,
    CredentialUnavailable,
    InternalError,
    InvalidRequest,
    MethodRefused,
    NotAuthenticated,
    PayloadTooLarge,
    ProtocolViolation,
    RefreshFailed,
)
from proxy_middleware.models import (
    BrowserPolicy,
    Connection,
    Limits,
    ProxyRequest,
    Replay,
    ResponseHead,
    Timeouts,
)

# RFC 9110 section 9.2.2: may be sent again by whoever did not get an answer.
IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"})
_USUAL_METHODS = {name: name.encode() for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")}
# What a method restriction would be worth nothing with: fields that make frameworks act on another method.
_METHOD_OVERRIDES = frozenset({b"x-http-method-override", b"x-http-method", b"x-method-override"})
# The same for paths: what IIS, Symfony and Laminas take for the path.
_PATH_OVERRIDES = frozenset({b"x-original-url", b"x-rewrite-url"})
_INSUFFICIENT_SCOPE = re.compile(rb'\berror\s*=\s*"?insufficient_scope\b', re.IGNORECASE)


# A NamedTuple's own constructor is a Python function; the steps are made by its base's, which is not.
_make = tuple.__new__


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings that the core decides by."""

    limits: Limits
    timeouts: Timeouts
    browser: BrowserPolicy
    replay: Replay
    cache_guard: bool
    max_status: int
    lower_case: bool
    root_path: str | None = None  # Pins the mount prefix.
    admits: bool = field(init=False)  # Whether a connection gets only so many requests.

    def __post_init__(self) -> None:
        limited = self.limits.per_connection_concurrency is not None or self.limits.rate is not None
        object.__setattr__(self, "admits", limited)


def exchange(request: ProxyRequest, version: str, body: Body, rules: Rules) -> Steps:
    """Everything that happens to one request.

    Args:
        request: The caller's request.
        version: The caller's HTTP version, as ASGI spells it.
        body: Handle of its body, whether there is one or not.
        rules: The settings.

    Raises:
        ProxyError: What is answered instead.
    """
    method = _USUAL_METHODS.get(request.method) or _check_method(request.method)
    found = read_request(request.fields)
    length, chunked, withhold = found.length, found.chunked, False
    if found.special:
        if chunked and version in ("1.0", "1"):
            raise InvalidRequest("HTTP/1.0 has no transfer codings")
        withhold = check_browser(rules.browser, found, request.fields)
    unsaid = length is None and not chunked and version[:1] not in ("0", "1")
    body.expect(None if chunked or unsaid else length or 0)

    caller = request.caller = yield _make(Authenticate, (request,))
    if caller is None:
        raise NotAuthenticated
    if hasattr(caller, "__await__"):
        raise InternalError  # A coroutine that nobody awaited says nothing about the caller.
    connection: Connection = yield _make(Resolve, (request.selector, request))
    target = request.target
    if connection.plain and is_ordinary(target):
        origin = connection.base.origin
    else:
        origin, target = _resolve(request, connection)

    if rules.admits:
        yield Admit(connection.id, body)
    limit = rules.limits.request_body
    if limit is not None and length is not None and length > limit:
        raise PayloadTooLarge
    if unsaid:
        chunked = yield Probe(body)

    credential, now, refreshes, judges, margin = yield _make(Obtain, (connection,))
    if credential.expires_at is not None and credential.expires_at - now < margin:
        credential = yield from _refresh_early(connection, credential, now, refreshes)
        refreshes = False  # Once per request.

    fields = _compose(connection, found, origin, rules.browser)
    sent = body if chunked or length else None
    timeouts = connection.timeouts or rules.timeouts
    stripped = not connection.added  # The caller's Authorization is gone; the connection's own may be there.
    draft = method, origin, target, fields, stripped, length, chunked, sent, body, timeouts
    content = None  # The whole body, where a signer wants it.
    if credential.needs_body and _wants_body(draft, credential):
        content = yield Collect(body, rules.replay.memory + rules.replay.disk)
    response: Response = yield _forward(draft, credential, content, refreshes, False, True)
    if refreshes and (yield from _is_rejected(connection, response, judges)):
        try:
            newer = yield from _refresh(connection, credential)
        except RefreshFailed:
            newer = credential
        if newer != credential and (yield Discard(response, sent)):
            if newer.needs_body and content is None and _wants_body(draft, newer):
                content = yield Collect(body, rules.replay.memory + rules.replay.disk)
            response = yield _forward(draft, newer, content, False, True, not response.retried)

    kept, has_length, valid = response.kept, True, response.status <= rules.max_status
    if kept is None or withhold:
        found_in = read_response(
            response.raw,
            bodiless=response.status in (204, 304),
            withhold=withhold,
            cache_guard=rules.cache_guard,
            lower_case=rules.lower_case,
        )
        kept, has_length, valid = found_in.kept, found_in.has_length, valid and not found_in.invalid
    if not valid:
        yield Discard(response, None)
        raise ProtocolViolation
    if connection.rewrite_links:
        kept = rewrite_links(kept, request, connection, origin, target, rules.root_path)
    return _make(Relay, (response, kept, has_length))


def _check_method(method: str) -> bytes:
    spelled = method.encode("latin-1", "replace")
    if not is_token(spelled):
        raise InvalidRequest("The method is malformed")
    if method.upper() in ("TRACE", "TRACK", "CONNECT"):
        raise MethodRefused
    return spelled


def _resolve(request: ProxyRequest, connection: Connection) -> tuple[Origin, bytes]:
    """Where the request goes, after everything that the connection restricts."""
    path, mark, query = request.target.partition(b"?")
    origin, target, inside = resolve_target(path, query if mark else None, connection.base, connection.origins)
    if connection.methods is not None and request.method not in connection.methods:
        raise AccessDenied("The connection does not allow this method")
    if connection.globs is not None and not (inside and path_allowed(connection.globs, target, connection.base)):
        raise AccessDenied("The connection does not allow this path")
    return origin, target


def _refresh_early(
    connection: Connection, credential: Credential, now: float, refreshes: bool
) -> Generator[Step, Any, Credential]:
    """A credential about to expire is refreshed first; if that fails, it serves for as long as it lives."""
    if refreshes:
        try:
            return (yield from _refresh(connection, credential))
        except RefreshFailed:
            now = yield _make(Clock, ())  # It may have taken seconds.
    if credential.expires_at is not None and credential.expires_at <= now:
        raise CredentialUnavailable("The credential has expired and could not be refreshed")
    return credential


def _refresh(connection: Connection, rejected: Credential) -> Generator[Step, Any, Credential]:
    newer = yield Refresh(connection, rejected)
    if not isinstance(newer, Credential):
        raise RefreshFailed
    return newer


def _is_rejected(connection: Connection, response: Response, judges: bool) -> Generator[Step, Any, bool]:
    if not judges:
        return response.status == 401 and is_expiry(ResponseHead(response.status, response.fields))
    return bool((yield Judge(connection, response)))


def is_expiry(head: ResponseHead) -> bool:
    """Whether the response says, as it should, that the credential has expired: 401, and not for want of scope."""
    return head.status == 401 and not lacks_scope(head)


def lacks_scope(head: ResponseHead) -> bool:
    """Whether the credential is good, but not for this; a newer one would not help (RFC 6750 section 3.1)."""
    return any(name.lower() == b"www-authenticate" and _INSUFFICIENT_SCOPE.search(value) for name, value in head.fields)


# The upstream request but for its credential, so that it can be sent with one and then another: method, origin, target,
# fields, whether there is no Authorization among them, length, whether it is chunked, body to send, handle of the body,
# timeouts.
_Draft = tuple[bytes, Origin, bytes, list[Field], bool, int | None, bool, Body | None, Body, Timeouts]


def _wants_body(draft: _Draft, credential: Credential) -> bool:
    method, origin, target, fields, _, _, _, body, _, _ = draft
    if body is None:
        return False
    return credential.wants_body(method.decode("ascii"), str(origin) + target.decode("ascii"), fields)


def _forward(
    draft: _Draft, credential: Credential, content: bytes | None, keep: bool, again: bool, retry: bool
) -> Forward:
    """The request with this credential on it.

    Args:
        draft: The rest of it.
        credential: Goes on last.
        content: The whole body, if it has been read already.
        keep: Whether the body may be needed once more.
        again: Whether this is the second time.
        retry: Whether the engine may send once more on a connection that turns out to be dead.
    """
    method, origin, target, fields, stripped, length, chunked, body, handle, timeouts = draft
    fields, target = credential.put_on(fields, target, stripped)
    if length is not None:
        fields.append((b"content-length", b"%d" % length))
    elif content is not None:
        fields.append((b"content-length", b"%d" % len(content)))
    elif chunked:
        fields.append((b"transfer-encoding", b"chunked"))
    if credential.signs:
        url = str(origin) + target.decode("ascii")
        fields = credential.sign(method.decode("ascii"), url, fields, b"" if body is None else content)
    retry = retry and method in IDEMPOTENT
    return _make(
        Forward,
        (
            origin,
            method,
            target,
            fields,
            chunked and content is None,
            body,
            handle,
            keep or (retry and body is not None),
            again or content is not None,
            retry,
            timeouts,
        ),
    )


def _compose(connection: Connection, found: RequestFields, origin: Origin, browser: BrowserPolicy) -> list[Field]:
    """The fields but for credential and framing: Host first, then the caller's, then the connection's own."""
    host = connection.host if origin is connection.base.origin else (b"host", origin.authority)
    fields = [host, *found.kept]
    if connection.plain and not found.special:
        return fields
    if connection.methods is not None:
        fields = [field for field in fields if canonical(field[0]) not in _METHOD_OVERRIDES]
    if connection.globs is not None or connection.base.path:
        fields = [field for field in fields if canonical(field[0]) not in _PATH_OVERRIDES]
    if found.cookies and browser.forward_cookies:
        # HTTP/2 splits them; HTTP/1.1 wants one field (RFC 9113 section 8.2.3).
        fields.append((b"cookie", b"; ".join(found.cookies)))
    if connection.added:
        present = {canonical(name) for name, _ in fields}
        fields += [pair for pair in connection.added if canonical(pair[0]) not in present]
    return fields

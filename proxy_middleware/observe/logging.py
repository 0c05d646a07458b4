"""An observer that writes what happens to requests with the standard library's `logging`."""

import logging

from proxy_middleware.models import Event

__all__ = ["LoggingObserver"]

_access = logging.getLogger("proxy_middleware.access")
_refresh = logging.getLogger("proxy_middleware.refresh")
_upstream = logging.getLogger("proxy_middleware.upstream")

# How a request ends where nothing is out of order here: well, or by what its caller did.
_ORDINARY = frozenset({None, "caller_left", "http_request_denied", "http_request_error"})
# What is out of order here, and not at the upstream.
_OWN = frozenset({"proxy_configuration_error", "proxy_internal_error"})


class LoggingObserver:
    """Writes a record for each request when it is finished, and others for its refreshes and attempts.

    Loggers are `proxy_middleware.access`, `proxy_middleware.refresh` and `proxy_middleware.upstream`. Every record has
    further attributes, named `proxy_…`, for structured logs. No record holds a query or a credential, and control
    characters are escaped in each text of it.

    Records are written by the application's own handlers, while the request waits: one that may be slow belongs behind
    `logging.handlers.QueueHandler`.
    """

    def __init__(self) -> None:
        self._requests: dict[int, _Request] = {}

    def __call__(self, event: Event) -> None:
        """Writes what there is to write."""
        kind = event.kind
        if kind in ("matched", "resolved"):
            return
        request = self._requests.get(event.request)
        if request is None:
            request = self._requests[event.request] = _Request()
        if kind == "attempt":
            _write_attempt(event, request)
        elif kind == "response_started":
            _write_response(event, request)
        elif kind == "refresh_started":
            _write_refresh(event, request)
        elif kind == "refresh_finished":
            _write_refreshed(event, request)
        elif kind == "denied":
            request.denied = True
        elif kind == "finished":
            del self._requests[event.request]
            _write_failure(event, request)
            _write_access(event, request)


class _Request:
    """What later records say of earlier events."""

    __slots__ = ("denied", "origin", "path", "refreshing_since", "sent_at")

    def __init__(self) -> None:
        self.denied = False
        self.origin: str | None = None
        self.path: str | None = None
        self.sent_at = self.refreshing_since = 0.0


def _write_attempt(event: Event, request: _Request) -> None:
    request.origin, request.path, request.sent_at = event.origin, _escaped(event.path), event.time
    if _upstream.isEnabledFor(logging.DEBUG):
        extra = _extra(event, request)
        _upstream.debug("%s %s%s is sent, attempt %d", *_target(extra), event.attempts, extra=extra)


def _write_response(event: Event, request: _Request) -> None:
    if _upstream.isEnabledFor(logging.DEBUG):
        seconds = event.time - request.sent_at
        extra = _extra(event, request, seconds)
        _upstream.debug("%s %s%s answered %s after %.3f s", *_target(extra), event.status, seconds, extra=extra)


def _write_failure(event: Event, request: _Request) -> None:
    failed = event.attempts and event.error not in _ORDINARY and event.error not in _OWN
    if failed and _upstream.isEnabledFor(logging.WARNING):
        seconds = event.time - request.sent_at
        extra = _extra(event, request, seconds)
        _upstream.warning("%s %s%s failed after %.3f s: %s", *_target(extra), seconds, event.error, extra=extra)


def _write_refresh(event: Event, request: _Request) -> None:
    request.refreshing_since = event.time
    if _refresh.isEnabledFor(logging.DEBUG):
        extra = _extra(event, request)
        _refresh.debug('The credential of "%s" is refreshed', extra["proxy_connection_id"], extra=extra)


def _write_refreshed(event: Event, request: _Request) -> None:
    seconds = event.time - request.refreshing_since
    if event.error is None:
        if _refresh.isEnabledFor(logging.INFO):
            extra = _extra(event, request, seconds)
            connection = extra["proxy_connection_id"]
            _refresh.info('The credential of "%s" was refreshed in %.3f s', connection, seconds, extra=extra)
    elif _refresh.isEnabledFor(logging.WARNING):
        extra = _extra(event, request, seconds)
        values = extra["proxy_connection_id"], seconds, event.error
        _refresh.warning('The credential of "%s" was not refreshed in %.3f s: %s', *values, extra=extra)


def _write_access(event: Event, request: _Request) -> None:
    wrong = event.error not in _ORDINARY or (event.status or 0) >= 500
    level = logging.WARNING if wrong else logging.INFO
    if not _access.isEnabledFor(level):
        return
    timings = event.timings
    extra = _extra(event, request, timings.get("total"))
    for phase in ("resolve", "credential", "upstream", "relay"):
        extra[f"proxy_seconds_{phase}"] = timings.get(phase)
    extra |= {"proxy_denied": request.denied, "proxy_received": event.received, "proxy_sent": event.sent}
    _access.log(
        level,
        '%s "%s" %s %s %s attempts=%d received=%d sent=%d seconds=%.3f',
        extra["proxy_method"],
        extra["proxy_connection_id"] or extra["proxy_selector"],
        "denied" if request.denied else f"{request.origin}{request.path}" if request.origin else "-",
        event.status or "-",
        event.error or "-",
        event.attempts,
        event.received,
        event.sent,
        timings.get("total", 0.0),
        extra=extra,
    )


def _extra(event: Event, request: _Request, seconds: float | None = None) -> dict[str, object]:
    """The attributes that all records have, so that a format string may name them."""
    return {
        "proxy_event": event.kind,
        "proxy_request": event.request,
        "proxy_method": _escaped(event.method),
        "proxy_selector": _escaped(event.selector),
        "proxy_connection_id": _escaped(event.connection_id),
        "proxy_origin": request.origin,
        "proxy_path": request.path,
        "proxy_attempts": event.attempts,
        "proxy_status": event.status,
        "proxy_error": event.error,
        "proxy_seconds": seconds,
    }


def _target(extra: dict[str, object]) -> tuple[object, object, object]:
    return extra["proxy_method"], extra["proxy_origin"], extra["proxy_path"]


def _escaped(text: str | None) -> str | None:
    """The text, which is a caller's, without anything that could make a second line of it, or change how it reads."""
    return text if text is None or text.isprintable() else repr(text)[1:-1]

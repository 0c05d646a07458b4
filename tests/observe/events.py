"""Requests as observers are told of them, without any proxy."""

from typing import Any

from proxy_middleware import Event, Observer

STEP = 0.25
"""Seconds between one event and the next."""
ORIGIN = "https://api.example.com"


class Told:
    """One request that an observer is told of, event by event; each comes `STEP` seconds after the one before."""

    def __init__(self, observer: Observer, request: int = 1, method: str = "GET", selector: str = "crm") -> None:
        self._observer = observer
        self._known: dict[str, Any] = {"request": request, "method": method, "selector": selector}
        self._time = self._began = 1000.0

    def __call__(self, kind: Any, **details: Any) -> "Told":
        """This happens next. What is known of the connection and of attempts stays known."""
        self._known.update((name, details[name]) for name in ("connection_id", "attempts") if name in details)
        self._observer(Event(kind=kind, time=self._time, **self._known | details))
        self._time += STEP
        return self

    def resolved(self, connection_id: str = "crm") -> "Told":
        """It is the proxy's, and for this connection."""
        return self("matched")("resolved", connection_id=connection_id)

    def attempt(self, number: int = 1, path: str = "/items") -> "Told":
        """It is sent."""
        return self("attempt", attempts=number, origin=ORIGIN, path=path)

    def answered(self, status: int = 200) -> "Told":
        """The head of a response comes."""
        return self("response_started", status=status)

    def refreshed(self, error: str | None = None) -> "Told":
        """The credential is refreshed."""
        return self("refresh_started")("refresh_finished", error=error)

    def denied(self, status: int, error: str) -> "Told":
        """The proxy refuses it, and it is over."""
        return self("denied", status=status, error=error).finished(status, error)

    def finished(self, status: int | None = 200, error: str | None = None, received: int = 0, sent: int = 0) -> "Told":
        """It is over."""
        timings = {"resolve": STEP, "credential": STEP, "upstream": STEP, "relay": STEP}
        timings["total"] = self._time - self._began
        return self("finished", status=status, error=error, received=received, sent=sent, timings=timings)


def good(observer: Observer, **request: Any) -> Told:
    """A request that goes well."""
    return Told(observer, **request).resolved().attempt().answered().finished(received=3, sent=5)


def refreshed(observer: Observer, **request: Any) -> Told:
    """A request that is sent once more with a newer credential."""
    told = Told(observer, **request).resolved().attempt().answered(401).refreshed()
    return told.attempt(2).answered(200).finished()


def unreachable(observer: Observer, **request: Any) -> Told:
    """A request whose upstream refuses connections."""
    return Told(observer, **request).resolved().attempt().finished(502, "connection_refused")


def broken(observer: Observer, **request: Any) -> Told:
    """A request whose response breaks off."""
    return Told(observer, **request).resolved().attempt().answered().finished(200, "http_response_incomplete", sent=2)


def unknown(observer: Observer, **request: Any) -> Told:
    """A request for a connection that is not there."""
    return Told(observer, **request)("matched").denied(404, "http_request_error")


def left(observer: Observer, **request: Any) -> Told:
    """A request whose caller leaves before there is an answer."""
    return Told(observer, **request).resolved().attempt().finished(None, "caller_left")

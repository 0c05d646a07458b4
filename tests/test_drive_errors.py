"""What becomes of the errors that plugins raise, in both colours."""

import asyncio
import logging
import traceback
from collections.abc import Callable, Generator
from typing import Any

import pytest

from proxy_middleware import AccessDenied, AmbiguousSelector, ConnectionNotFound, Credential, RefreshFailed
from proxy_middleware.errors import CallerLeft, ConnectFailed, CredentialUnavailable, InternalError, ProxyError
from tests.plugins import COLOURS, App, Function, asynchronous, marked, plain

SECRET = "s3cret-canary"

every_colour = pytest.mark.parametrize("colour", COLOURS)


class Unprintable(Exception):
    """An exception that cannot even be shown."""

    def __str__(self) -> str:
        raise ValueError(SECRET)


ERRORS = [
    ValueError(SECRET),
    KeyError(SECRET),
    OSError(5, SECRET),
    AssertionError(SECRET),
    StopIteration(SECRET),
    StopAsyncIteration(SECRET),
    ExceptionGroup(SECRET, [ValueError(SECRET)]),
    TimeoutError(SECRET),
    Unprintable(SECRET),
]
every_error = pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)


def raising(error: Exception) -> Function:
    """A plugin that raises this, with something secret before it, too."""

    def plugin(*args: Any) -> Any:
        try:
            raise LookupError(SECRET)
        except LookupError as before:
            raise error from before

    return plugin


@every_colour
@every_error
@pytest.mark.parametrize("kind", [plain, asynchronous, marked])
@pytest.mark.parametrize("seam", ["authenticate", "resolve", "obtain", "is_rejected"])
def test_whatever_a_plugin_raises_is_told_to_nobody(
    seam: str,
    kind: Callable[[Function], Function],
    error: Exception,
    colour: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A plugin's exception is a 500 without its message, and an error in the log, without it, too."""
    app = App().plug(seam, kind(raising(error)))
    with pytest.raises(InternalError) as caught:
        app.run(colour)
    assert caught.value.detail == InternalError.title
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert_logged_without_message(caplog)
    assert seam == "is_rejected" or app.sent == []


@every_colour
@every_error
@pytest.mark.parametrize("kind", [plain, asynchronous, marked])
def test_whatever_a_refresher_raises_is_a_failed_refresh(
    kind: Callable[[Function], Function], error: Exception, colour: str, caplog: pytest.LogCaptureFixture
) -> None:
    """If `refresh` raises anything, the original response is returned, and the log says so without the message."""
    app = App(refresh=kind(raising(error)))
    assert app.run(colour).response is app.responses[0]
    assert_logged_without_message(caplog)


def assert_logged_without_message(caplog: pytest.LogCaptureFixture) -> None:
    """One error of ours is in the log, and nothing that was secret is in any record."""
    shown = [caplog.handler.format(record) for record in caplog.records]
    assert not any(SECRET in text for text in shown)
    (ours,) = [record for record in caplog.records if record.name.startswith("proxy_middleware")]
    assert ours.levelno == logging.ERROR


@every_colour
@pytest.mark.parametrize("error", [AccessDenied("Not now"), ConnectionNotFound(), AmbiguousSelector("Two of them")])
def test_answers_that_a_plugin_chooses(error: ProxyError, colour: str, caplog: pytest.LogCaptureFixture) -> None:
    """A ProxyError that a plugin raises is the answer, with its detail, and no incident for the log."""
    for seam in ("authenticate", "resolve", "obtain"):
        app = App().plug(seam, raising(error))
        with pytest.raises(type(error)) as caught:
            app.run(colour)
        assert caught.value.detail == error.detail
        assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert caplog.records == []


@every_colour
@pytest.mark.parametrize("error", [RefreshFailed(), CredentialUnavailable(), AccessDenied("no")])
def test_failed_refresh_returns_the_original(error: ProxyError, colour: str) -> None:
    """Any error of a refresher, those of the proxy's own kind too, leaves the original response."""
    app = App(refresh=raising(error))
    assert app.run(colour).response is app.responses[0]


@every_colour
def test_expired_and_not_refreshed(colour: str, caplog: pytest.LogCaptureFixture) -> None:
    """An expired credential whose refresh failed is a 424 that says so, and no incident for the log."""
    app = App(obtain=lambda connection: Credential.bearer("old", expires_at=1), refresh=raising(RefreshFailed()))
    with pytest.raises(CredentialUnavailable) as caught:
        app.run(colour)
    assert "expired" in caught.value.detail
    assert caplog.records == []


@every_colour
def test_signer_that_fails_after_an_early_refresh(colour: str) -> None:
    """A signer that raises is an internal error, not a failed refresh, although one went before it."""
    newer = Credential.signed(raising(ValueError(SECRET)))
    app = App(
        obtain=lambda connection: Credential.bearer("old", expires_at=1), refresh=lambda connection, rejected: newer
    )
    with pytest.raises(InternalError):
        app.run(colour)


@every_colour
def test_signer_that_fails(colour: str, caplog: pytest.LogCaptureFixture) -> None:
    """What a signer raises is told to nobody, either."""
    app = App(credential=Credential.signed(raising(ValueError(SECRET))))
    with pytest.raises(InternalError):
        app.run(colour)
    assert_logged_without_message(caplog)


@every_colour
@pytest.mark.parametrize("seam", ["resolve", "obtain"])
def test_plugins_that_return_nonsense(seam: str, colour: str) -> None:
    """A plugin that returns what it should not is an internal error."""
    with pytest.raises(InternalError):
        App().plug(seam, lambda *args: None).run(colour)


class Later:
    """An awaitable that does not complain if nobody awaits it."""

    def __await__(self) -> Generator[Any, Any, str]:
        yield from ()
        return "mallory"


@every_colour
def test_caller_that_nobody_awaited(colour: str) -> None:
    """An authenticator's result that has still to be awaited says nothing about the caller: nothing is sent."""
    app = App(authenticate=asynchronous(lambda request: Later()))
    with pytest.raises(InternalError):
        app.run(colour)
    assert app.sent == []


@every_colour
@pytest.mark.parametrize("nothing", [None, "token"])
def test_refresher_that_returns_nonsense(nothing: object, colour: str) -> None:
    """A refresher that returns no credential has failed, and the original response is returned."""
    app = App(refresh=lambda *args: nothing)
    assert app.run(colour).response is app.responses[0]
    assert app.responses[0].ended == []


@every_colour
def test_errors_of_the_upstream(colour: str) -> None:
    """What the engine raises is the answer."""
    with pytest.raises(ConnectFailed):
        App(responses=[ConnectFailed()]).run(colour)
    with pytest.raises(CallerLeft):
        App(responses=[CallerLeft()]).run(colour)


@every_colour
def test_log_names_the_place(colour: str, caplog: pytest.LogCaptureFixture) -> None:
    """The log says which step failed, with what kind of error, and where in the application's code."""
    with pytest.raises(InternalError):
        App(resolve=raising(LookupError(SECRET))).run(colour)
    (record,) = caplog.records
    assert all(part in record.getMessage() for part in ("Resolve", "LookupError", "test_drive_errors.py"))


@every_colour
@pytest.mark.parametrize("seam", ["authenticate", "resolve", "obtain", "is_rejected"])
def test_cancellation_out_of_a_thread_is_a_failure(seam: str, colour: str, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody cancels a thread: what a plain function was told of a cancellation of its own is a failure of it."""

    def cancelled(*args: Any) -> Any:
        raise asyncio.CancelledError(SECRET)

    with pytest.raises(InternalError):
        App().plug(seam, plain(cancelled)).run(colour)
    assert_logged_without_message(caplog)


@every_colour
def test_cancellation_out_of_a_refreshing_thread_is_a_failed_refresh(colour: str) -> None:
    """The same in `refresh`: the original response is returned."""

    def cancelled(*args: Any) -> Any:
        raise asyncio.CancelledError(SECRET)

    assert App(refresh=plain(cancelled)).run(colour).response.status == 401

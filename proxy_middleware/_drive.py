"""The two loops that perform the core's steps, one per colour."""

from collections.abc import Mapping
from time import time
from typing import Any

from proxy_middleware._admission import Admission
from proxy_middleware._plugins import Call, Plugins, background, for_asgi, for_wsgi, log_failure
from proxy_middleware._providers import AsyncProviders, Providers
from proxy_middleware._single_flight import CredentialCache
from proxy_middleware._steps import (
    Admit,
    Authenticate,
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
    Step,
    Steps,
)
from proxy_middleware._trail import Trail, reason
from proxy_middleware.errors import CallerLeft, InternalError, ProxyError, RefreshFailed, ResponseTruncated

Perform = Mapping[type, Call]

# The loops. A performer's answer may be awaitable, whatever kind of function gave it.


async def adrive(steps: Steps, perform: Perform, trail: Trail | None = None) -> Relay:
    """Performs the steps on an event loop.

    Raises:
        ProxyError: What is answered instead.
        CallerLeft: Nobody is left to answer.
    """
    send, response = perform[Forward], None
    step: Step | None = None
    try:
        step = next(steps)
        while True:
            try:
                kind = type(step)
                if kind is Forward:
                    if trail is not None:
                        trail.tell("attempt", step)
                    value = response = await send(step)
                    if trail is not None:
                        trail.tell("response_started", response)
                else:
                    if trail is not None and kind is Refresh:
                        trail.tell("refresh_started")
                    value = perform[kind](*step)
                    if hasattr(value, "__await__"):
                        value = await value
                    if trail is not None:
                        if kind is Resolve:
                            trail.tell("resolved", value)
                        elif kind is Refresh:
                            trail.tell("refresh_finished")
            except Exception as error:
                failed, step = step, None
                step = steps.throw(_failed(failed, error, trail))
            else:
                step = None
                step = steps.send(value)
    except StopIteration as done:
        relay: Relay = done.value
        return relay
    except BaseException as error:
        if response is not None:
            response.abort()
        raise _answerable(step, error) from None


def drive(steps: Steps, perform: Perform, trail: Trail | None = None) -> Relay:
    """Performs the steps in the calling thread. Raises what `adrive` raises."""
    send, response = perform[Forward], None
    step: Step | None = None
    try:
        step = next(steps)
        while True:
            try:
                kind = type(step)
                if kind is Forward:
                    if trail is not None:
                        trail.tell("attempt", step)
                    value = response = send(step)
                    if trail is not None:
                        trail.tell("response_started", response)
                else:
                    if trail is not None and kind is Refresh:
                        trail.tell("refresh_started")
                    value = perform[kind](*step)
                    if hasattr(value, "__await__"):
                        value = background.run(value)
                    if trail is not None:
                        if kind is Resolve:
                            trail.tell("resolved", value)
                        elif kind is Refresh:
                            trail.tell("refresh_finished")
            except Exception as error:
                failed, step = step, None
                step = steps.throw(_failed(failed, error, trail))
            else:
                step = None
                step = steps.send(value)
    except StopIteration as done:
        relay: Relay = done.value
        return relay
    except BaseException as error:
        if response is not None:
            response.abort()
        raise _answerable(step, error) from None


def _failed(step: Step | None, error: Exception, trail: Trail | None) -> BaseException:
    """What the core is told. No local of a loop may hold it: its traceback leads back there."""
    answer = _answerable(step, error)
    if trail is not None and type(step) is Refresh:
        trail.tell("refresh_finished", None, reason(answer))
    return answer


def _answerable(step: Step | None, error: BaseException) -> BaseException:
    """The error as it may be answered: what a plugin raised is told to nobody, since it may hold a credential."""
    if type(step) is Refresh and isinstance(error, Exception) and not isinstance(error, CallerLeft):
        if not isinstance(error, RefreshFailed):
            log_failure(type(step).__name__, error)
        return RefreshFailed()
    if isinstance(error, ProxyError | CallerLeft | ResponseTruncated) or not isinstance(error, Exception):
        return error
    log_failure(type(step).__name__, error)
    return InternalError()


# Who performs which step. Each is called with what its step holds; `drive` and `adrive` await what is awaitable.


def asgi_performers(plugins: Plugins, cache: CredentialCache, admission: Admission, send: Call) -> Perform:
    """Who performs which step on an event loop; `send` is the upstream's, and gets all of a Forward."""
    providers = AsyncProviders(plugins.find, cache)
    authenticate, resolve = for_asgi(plugins.authenticate), for_asgi(plugins.resolver.resolve)
    take = for_asgi(admission.take)

    def admit_blocking(connection_id: str, body: Any) -> Any:
        # Counted here, and not in the thread: that may go on after the request has been cancelled, and its body closed.
        admission.enter(connection_id, body)
        return take(connection_id)

    admit = admit_blocking if admission.blocks else admission.admit
    return _performers(authenticate, resolve, admit, providers, send, _adiscard)


def wsgi_performers(plugins: Plugins, cache: CredentialCache, admission: Admission, send: Call) -> Perform:
    """Who performs which step in a thread."""
    authenticate, resolve = for_wsgi(plugins.authenticate), for_wsgi(plugins.resolver.resolve)
    return _performers(authenticate, resolve, admission.admit, Providers(plugins.find, cache), send, _discard)


def _performers(
    authenticate: Call, resolve: Call, admit: Call, providers: Providers, send: Call, discard: Call
) -> Perform:
    return {
        Authenticate: authenticate,
        Resolve: resolve,
        Admit: admit,
        Obtain: providers.obtain,
        Clock: time,
        Refresh: providers.refresh,
        Judge: providers.judge,
        Probe: lambda body: body.probe(),
        Collect: lambda body, limit: body.collect(limit),
        Forward: send,
        Discard: discard,
    }


async def _adiscard(response: Any, body: Any) -> bool:
    if body is not None and not body.replayable:
        return False
    await response.aclose()
    return True


def _discard(response: Any, body: Any) -> bool:
    if body is not None and not body.replayable:
        return False
    response.close()
    return True

"""The two loops, and plugins of every kind in both colours."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from proxy_middleware import Credential
from proxy_middleware._admission import Admission
from proxy_middleware._drive import adrive, asgi_performers
from proxy_middleware._exchange import exchange
from proxy_middleware._single_flight import CredentialCache
from proxy_middleware.errors import (
    InternalError,
    NotAuthenticated,
)
from proxy_middleware.models import Limits
from tests.plugins import COLOURS, KINDS, App, Function, Handle, asynchronous, callable_object, marked, plain
from tests.script import NEW, OLD, Body, request, rules

every_colour = pytest.mark.parametrize("colour", COLOURS)
every_kind = pytest.mark.parametrize("kind", KINDS)


# Every kind of function


@every_colour
@every_kind
def test_plugins_of_every_kind(kind: Callable[[Function], Function], colour: str) -> None:
    """Each seam takes each kind of function, in each colour, and is given what it should be."""
    seen: list[Any] = []

    def noting(name: str, function: Function) -> Function:
        def plugin(*args: Any) -> Any:
            seen.append((name, *args))
            return function(*args)

        return kind(plugin)

    app = App()
    app.authenticate = noting("authenticate", app.authenticate)
    app.resolve = noting("resolve", app.resolve)
    app.obtain = noting("obtain", app.obtain)
    assert app.refresh
    assert app.is_rejected
    app.refresh, app.is_rejected = noting("refresh", app.refresh), noting("is_rejected", app.is_rejected)
    relay = app.run(colour)
    assert relay.response is app.responses[1]
    assert [dict(sent.fields)[b"authorization"] for sent in app.sent] == [b"Bearer old", b"Bearer new"]
    assert [name for name, *_ in seen] == ["authenticate", "resolve", "obtain", "is_rejected", "refresh"]
    given = seen[0][1]
    assert given.caller == "alice"
    connection = seen[2][1]
    assert seen[1][1:] == ("c", given)
    assert seen[3][1:] == (connection, seen[3][2])
    assert seen[3][2].status == 401
    assert seen[4][1:] == (connection, OLD)


@every_colour
@every_kind
def test_nobody_is_let_in_by_accident(kind: Callable[[Function], Function], colour: str) -> None:
    """Whatever kind of function says None, the caller is not authenticated."""
    app = App(authenticate=kind(lambda request: None))
    with pytest.raises(NotAuthenticated):
        app.run(colour)
    assert app.sent == []


@every_colour
def test_provider_of_obtain_alone(colour: str) -> None:
    """Without `refresh` and `is_rejected` a 401 is relayed."""
    app = App(refresh=None, is_rejected=None)
    assert app.run(colour).response is app.responses[0]


@every_colour
def test_provider_without_judgement(colour: str) -> None:
    """Without `is_rejected` a 401 is a rejection."""
    assert App(is_rejected=None).run(colour).response.status == 200


@every_colour
def test_static_credential(colour: str) -> None:
    """A credential by itself is used, and not refreshed."""
    app = App(credential=Credential.bearer("fixed"))
    assert app.run(colour).response.status == 401
    assert dict(app.sent[0].fields)[b"authorization"] == b"Bearer fixed"


# Threads and loops


def noting_threads(seen: list[int]) -> Function:
    """An authenticator that notes in which thread it runs."""

    def authenticate(request: object) -> str:
        seen.append(threading.get_ident())
        return "alice"

    return authenticate


@pytest.mark.parametrize("colour", ["asyncio", "trio"])
@pytest.mark.parametrize(("kind", "threads"), [(plain, 1), (callable_object, 1), (marked, 0), (asynchronous, 0)])
def test_only_blocking_functions_get_a_thread(kind: Callable[[Function], Function], threads: int, colour: str) -> None:
    """On an event loop a plain `def` runs in a worker thread, and whatever does not block on the loop."""
    seen: list[int] = []
    App(authenticate=kind(noting_threads(seen))).run(colour)
    assert (seen == [threading.get_ident()]) is not bool(threads)


def test_loop_goes_on_while_a_plugin_blocks() -> None:
    """A plain `def` that waits holds up nobody: it may wait for what the loop does next."""
    waiting, freed = threading.Event(), threading.Event()

    def authenticate(request: object) -> str:
        waiting.set()
        return "alice" if freed.wait(5) else "nobody came"

    async def main() -> None:
        given = request()
        app = App(authenticate=authenticate)
        steps = exchange(given, "1.1", Body(), rules())
        task = asyncio.create_task(
            adrive(steps, asgi_performers(app.plugins, CredentialCache(), Admission(Limits()), app.asend))
        )
        await asyncio.to_thread(waiting.wait, 5)
        freed.set()
        await task
        assert given.caller == "alice"

    asyncio.run(main())


def test_plain_functions_stay_in_the_thread_under_wsgi() -> None:
    """Under WSGI a `def` runs in the thread that the server called in."""
    seen: list[int] = []
    App(authenticate=noting_threads(seen)).run("wsgi")
    assert seen == [threading.get_ident()]


def test_one_loop_for_all_async_plugins_under_wsgi() -> None:
    """Under WSGI every `async def` of every thread runs on the same loop, so that its connections live."""
    loops: set[int] = set()

    async def authenticate(request: object) -> str:
        loops.add(id(asyncio.get_running_loop()))
        await asyncio.sleep(0)
        return "alice"

    threads = [threading.Thread(target=App(authenticate=authenticate).run, args=("wsgi",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    App(authenticate=authenticate).run("wsgi")
    assert len(loops) == 1


def test_async_plugins_do_not_wait_for_each_other_under_wsgi() -> None:
    """One `async def` that waits does not hold up the others on the background loop."""
    barrier = asyncio.Barrier(2)

    async def authenticate(request: object) -> str:
        async with asyncio.timeout(5):
            await barrier.wait()
        return "alice"

    apps = [App(authenticate=authenticate) for _ in range(2)]
    threads = [threading.Thread(target=app.run, args=("wsgi",)) for app in apps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(app.sent) for app in apps] == [2, 2]


FORKING = """
import os, sys
from tests.plugins import App, asynchronous
app = App(authenticate=asynchronous(lambda request: "alice"))
app.run("wsgi")
child = os.fork()
if not child:
    os._exit(0 if App(authenticate=asynchronous(lambda request: "alice")).run("wsgi").response.status == 200 else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_async_plugins_after_a_fork() -> None:
    """A child that was forked after the background loop had started has a loop of its own."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", FORKING], timeout=30, check=False)
    assert done.returncode == 0


# Responses are never left open


@every_colour
def test_first_response_is_closed_before_the_second(colour: str) -> None:
    """A response that is given up is closed; the one that is relayed is left to the door."""
    app = App()
    app.run(colour)
    assert [response.ended for response in app.responses] == [["close"], []]


@every_colour
def test_response_stays_open_if_the_body_cannot_be_sent_again(colour: str) -> None:
    """A response that turns out to be the answer after all is not closed."""
    app = App()
    steps_body = Body(b"12345", replayable=False)
    app.run(colour, steps_body)
    assert app.responses[1].ended == []


@every_colour
def test_response_is_aborted_if_an_error_follows(colour: str) -> None:
    """If something fails after the head has come, the response is broken off."""
    app = App(is_rejected=lambda *args: [][0])
    with pytest.raises(InternalError):
        app.run(colour)
    assert app.responses[0].ended == ["abort"]


def test_response_is_aborted_if_the_request_is_cancelled() -> None:
    """If the caller leaves while a credential is refreshed, the first response is broken off."""
    refreshing = asyncio.Event()

    async def refresh(connection: object, rejected: object) -> Credential:
        refreshing.set()
        await asyncio.sleep(60)
        return NEW

    async def main(app: App) -> None:
        steps = exchange(request(), "1.1", Body(), rules())
        task = asyncio.create_task(
            adrive(steps, asgi_performers(app.plugins, CredentialCache(), Admission(Limits()), app.asend))
        )
        await refreshing.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    app = App(refresh=refresh, responses=[Handle(401)])
    asyncio.run(main(app))
    assert app.responses[0].ended == ["abort"]

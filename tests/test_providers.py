"""Credential providers behind the cache: which credentials count as expired, and providers that hang."""

import asyncio
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import anyio
import anyio.to_thread
import pytest
import trio

from proxy_middleware import AccessDenied, Connection, Credential, RefreshFailed, StaticCredentials, _providers
from proxy_middleware._admission import Admission
from proxy_middleware._drive import drive, wsgi_performers
from proxy_middleware._exchange import exchange
from proxy_middleware._plugins import Plugins
from proxy_middleware._providers import AsyncProviders, Providers
from proxy_middleware._single_flight import CredentialCache
from proxy_middleware.errors import CredentialUnavailable
from proxy_middleware.models import Limits
from tests.plugins import COLOURS, App
from tests.script import CONNECTION, NEW, OLD, Body, Response, request, rules
from tests.upstreams import WAIT


@pytest.mark.parametrize(("life", "refreshes"), [(10, 1), (3600, 1), (0, 1), (-3600, 1)])
def test_short_lived_tokens_are_not_refreshed_for_every_request(life: float, refreshes: int) -> None:
    """A token that lives for less than 30 seconds serves until half of its life is over; without any, for a while."""
    given: list[Credential] = []

    def obtain(connection: Connection) -> Credential:
        return Credential.bearer("first", expires_at=time.time() + 5)

    def refresh(connection: Connection, rejected: Credential) -> Credential:
        given.append(Credential.bearer(f"refreshed {len(given)}", expires_at=time.time() + life))
        return given[-1]

    provider = SimpleNamespace(obtain=obtain, refresh=refresh)
    plugins = Plugins(
        lambda request: "alice", SimpleNamespace(resolve=lambda *args: CONNECTION), lambda connection: provider
    )
    perform = wsgi_performers(plugins, CredentialCache(), Admission(Limits()), lambda forward: Response())
    for _ in range(5):
        drive(exchange(request(), "1.1", Body(), rules()), perform)
    assert len(given) == refreshes


@pytest.mark.parametrize("colour", COLOURS)
def test_expired_static_credential_is_a_424(colour: str) -> None:
    """A credential that was given at start is not sent once it has expired."""
    app = App(credential=Credential.bearer("expired", expires_at=time.time() - 1))
    with pytest.raises(CredentialUnavailable):
        app.run(colour)
    assert app.sent == []


@pytest.mark.parametrize("colour", COLOURS)
def test_credential_that_expires_during_its_refresh_is_a_424(colour: str) -> None:
    """A credential is not sent that has expired by the time its refresh has failed."""

    def refresh(connection: Connection, rejected: Credential) -> Credential:
        while time.time() <= (rejected.expires_at or 0):
            time.sleep(0.01)
        raise RefreshFailed

    app = App(obtain=lambda connection: Credential.bearer("old", expires_at=time.time() + 0.3), refresh=refresh)
    with pytest.raises(CredentialUnavailable):
        app.run(colour)
    assert app.sent == []


def test_subclass_of_static_credentials_is_asked() -> None:
    """StaticCredentials within others are asked by their own `obtain`, where they have one."""

    class Guarded(StaticCredentials):
        def obtain(self, connection: Connection) -> Credential:
            raise AccessDenied

    nested = StaticCredentials({CONNECTION.id: StaticCredentials({CONNECTION.id: Guarded({CONNECTION.id: OLD})})})
    with pytest.raises(AccessDenied):
        Providers(nested.select, CredentialCache()).obtain(CONNECTION)


class Hanging:
    """A provider that gives no answer for long."""

    def __init__(self) -> None:
        self.cancelled = 0

    async def obtain(self, connection: Connection) -> Credential:
        """Hangs, and gives an answer when it is too late."""
        try:
            await asyncio.sleep(WAIT)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return NEW

    async def refresh(self, connection: Connection, rejected: Credential) -> Credential:
        """The same."""
        return await self.obtain(connection)


def test_hung_provider_is_given_up_in_a_thread(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An `async def` provider that hangs is cancelled in WSGI, too, so that its thread is free again."""
    monkeypatch.setattr(_providers, "PATIENCE", 0.1)
    provider = Hanging()
    providers = Providers(lambda connection: provider, CredentialCache())
    with pytest.raises(RefreshFailed):
        providers.obtain(CONNECTION)
    with pytest.raises(RefreshFailed):
        providers.refresh(replace(CONNECTION, id="other"), OLD)
    assert provider.cancelled == 2
    assert caplog.text.count("no answer within 0.1 seconds") == 2


def test_hung_provider_leaves_the_host_its_threads_under_trio() -> None:
    """A blocking provider that hangs takes none of the threads in which the host's own calls run."""
    started, released = threading.Event(), threading.Event()
    outcomes: list[bool] = []

    def obtain(connection: Connection) -> Credential:
        started.set()
        outcomes.append(released.wait(WAIT))
        return NEW

    provider = SimpleNamespace(obtain=obtain)
    providers = AsyncProviders(lambda connection: provider, CredentialCache())

    async def main() -> None:
        anyio.to_thread.current_default_thread_limiter().total_tokens = 1
        async with anyio.create_task_group() as group:
            group.start_soon(providers.obtain, CONNECTION)
            while not started.is_set():  # noqa: ASYNC110 -- set in a thread
                await anyio.sleep(0.01)
            await anyio.to_thread.run_sync(released.set)

    trio.run(main)
    assert outcomes == [True]

"""Credential providers behind the cache: when a credential counts as about to expire."""

import time
from types import SimpleNamespace

import pytest

from proxy_middleware import Connection, Credential
from proxy_middleware._drive import drive, wsgi_performers
from proxy_middleware._exchange import exchange
from proxy_middleware._plugins import Plugins
from proxy_middleware._single_flight import CredentialCache
from tests.script import CONNECTION, Body, Response, request, rules


@pytest.mark.parametrize(("life", "refreshes"), [(10, 1), (3600, 1)])
def test_short_lived_tokens_are_not_refreshed_for_every_request(life: float, refreshes: int) -> None:
    """A token that lives for less than 30 seconds serves until half of its life is over."""
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
    perform = wsgi_performers(plugins, CredentialCache(), lambda forward: Response())
    for _ in range(5):
        drive(exchange(request(), "1.1", Body(), rules()), perform)
    assert len(given) == refreshes

"""Contracts over plugins that are broken, each in one way; run by `test_contracts_broken`, which knows what fails."""

# ruff: noqa: D106 -- the class around each says what it is

import itertools
import logging
import threading
import time
from typing import Any

import pytest

from proxy_middleware import Connection, ConnectionNotFound, Credential, RefreshFailed, ResponseHead, nonblocking
from proxy_middleware.resolvers import CachedResolver
from proxy_middleware.testing import CredentialProviderContract, ResolverContract

ACME = Connection("acme", "https://api.example.com")
GLOBEX = Connection("globex", "https://api.example.com")


class Good:
    """A resolver that breaks nothing."""

    def resolve(self, selector: str, request: Any) -> Any:
        if selector == request.caller == "acme":
            return ACME
        raise ConnectionNotFound


class OfResolver(ResolverContract):
    known_selector = "acme"
    other_tenant_selector = "globex"
    caller = "acme"
    broken: type = Good

    @pytest.fixture
    def resolver(self) -> Any:
        return self.broken()


class TestNotOverridden(ResolverContract):
    known_selector = "acme"


class TestNoSelector(OfResolver):
    known_selector = None  # type: ignore[assignment]


class TestGivesNone(OfResolver):
    class broken(Good):
        def resolve(self, selector: str, request: Any) -> Any:
            return ACME if selector == "acme" else None


class TestRaisesKeyError(OfResolver):
    class broken(Good):
        def resolve(self, selector: str, request: Any) -> Any:
            return {"acme": ACME}[selector]


class TestFindsNothing(OfResolver):
    class broken(Good):
        def resolve(self, selector: str, request: Any) -> Any:
            raise ConnectionNotFound


class TestIgnoresTheCaller(OfResolver):
    class broken(Good):
        def resolve(self, selector: str, request: Any) -> Any:
            if selector in ("acme", "globex"):
                return {"acme": ACME, "globex": GLOBEX}[selector]
            raise ConnectionNotFound


class TestGivesEveryoneEverything(OfResolver):
    class broken(Good):
        def resolve(self, selector: str, request: Any) -> Any:
            return ACME


class TestFreshIds(OfResolver):
    class broken(Good):
        numbers = itertools.count()

        def resolve(self, selector: str, request: Any) -> Any:
            super().resolve(selector, request)
            return Connection(f"acme-{next(self.numbers)}", "https://api.example.com")


class TestFreshAttributes(OfResolver):
    class broken(Good):
        def resolve(self, selector: str, request: Any) -> Any:
            super().resolve(selector, request)
            return Connection("acme", "https://api.example.com", attributes={"session": object()})


class TestChokesOnLength(OfResolver):
    class broken(Good):
        def resolve(self, selector: str, request: Any) -> Any:
            if len(selector) > 255 or ":" in selector:
                raise ValueError("data too long for column")
            return super().resolve(selector, request)


class TestSharesState(OfResolver):
    class broken(Good):
        def resolve(self, selector: str, request: Any) -> Any:
            self.selector = selector
            time.sleep(0.005)
            return super().resolve(self.selector, request)


class TestRemembersForOthers(OfResolver):
    other_caller = "globex"

    @pytest.fixture
    def resolver(self) -> Any:
        return CachedResolver(Good(), 30, key=lambda selector, request: selector)


class TestBlocks(OfResolver):
    class broken(Good):
        @nonblocking
        def resolve(self, selector: str, request: Any) -> Any:
            if len(selector) == 4 and request.scope == {}:
                time.sleep(0.06)
            return super().resolve(selector, request)


class TestBlocksInCoroutine(OfResolver):
    class broken(Good):
        async def resolve(self, selector: str, request: Any) -> Any:
            if request.scope == {}:
                time.sleep(0.06)  # noqa: ASYNC251
            return super().resolve(selector, request)


class Tokens:
    """A provider that breaks nothing."""

    def __init__(self) -> None:
        self.number = 1
        self.lock = threading.Lock()

    def token(self) -> Credential:
        return Credential.bearer(f"secret-token-{self.number}")

    def obtain(self, connection: Connection) -> Any:
        return Credential.bearer("of-globex") if connection.id == "globex" else self.token()

    def refresh(self, connection: Connection, rejected: Credential) -> Any:
        with self.lock:
            if rejected == self.token():
                self.number += 1
            return self.token()


class OfProvider(CredentialProviderContract):
    connection = ACME
    other_connection = GLOBEX
    broken: type = Tokens

    @pytest.fixture
    def provider(self) -> Any:
        return self.broken()


class TestObtainsText(OfProvider):
    class broken(Tokens):
        def obtain(self, connection: Connection) -> Any:
            return "secret-token-1"


class TestOneForAll(OfProvider):
    class broken(Tokens):
        def obtain(self, connection: Connection) -> Any:
            return self.token()


class TestUnknownIsKeyError(OfProvider):
    class broken(Tokens):
        def obtain(self, connection: Connection) -> Any:
            return {"acme": self.token(), "globex": Credential.bearer("of-globex")}[connection.id]


class TestLifetimeForMoment(OfProvider):
    class broken(Tokens):
        def token(self) -> Credential:
            return Credential.bearer(f"secret-token-{self.number}", expires_at=3600)


class TestNothingOnTheRequest(OfProvider):
    class broken(Tokens):
        def token(self) -> Credential:
            return Credential()

        refresh = None  # type: ignore[assignment]


class TestRefreshGivesTheSame(OfProvider):
    class broken(Tokens):
        def refresh(self, connection: Connection, rejected: Credential) -> Any:
            return rejected


class TestRefreshRaisesAnything(OfProvider):
    class broken(Tokens):
        def refresh(self, connection: Connection, rejected: Credential) -> Any:
            raise RuntimeError


class TestForgetsTheRefresh(OfProvider):
    class broken(Tokens):
        def obtain(self, connection: Connection) -> Any:
            return Credential.bearer("of-globex" if connection.id == "globex" else "secret-token-1")


class TestRefreshesTwice(OfProvider):
    class broken(Tokens):
        def refresh(self, connection: Connection, rejected: Credential) -> Any:
            self.number += 1
            return self.token()


class TestSpendsTwice(OfProvider):
    class broken(Tokens):
        def __init__(self) -> None:
            super().__init__()
            self.another = threading.Event()
            self.busy = False

        def refresh(self, connection: Connection, rejected: Credential) -> Any:
            if rejected != self.token():
                return self.token()
            if self.busy:
                self.another.set()
                raise RefreshFailed
            self.busy = True
            self.another.wait(10)
            self.number += 1
            return self.token()


class TestJudgesWithText(OfProvider):
    class broken(Tokens):
        def is_rejected(self, connection: Connection, response: ResponseHead) -> Any:
            return response.status == 401 or None


class TestRejectsEverything(OfProvider):
    class broken(Tokens):
        def is_rejected(self, connection: Connection, response: ResponseHead) -> Any:
            return True


class TestMissesTheRejection(OfProvider):
    class broken(Tokens):
        def is_rejected(self, connection: Connection, response: ResponseHead) -> Any:
            return response.status == 419


class TestShowsInRepr(OfProvider):
    class broken(Tokens):
        def __repr__(self) -> str:
            return f"Tokens(secret-token-{self.number})"


class TestShowsInLog(OfProvider):
    class broken(Tokens):
        def refresh(self, connection: Connection, rejected: Credential) -> Any:
            newer = super().refresh(connection, rejected)
            answer = {"access_token": f"secret-token-{self.number}"}
            logging.getLogger("vault").debug("renewed", extra={"answer": answer})
            return newer


class TestFailsInCrowds(OfProvider):
    class broken(Tokens):
        def __init__(self) -> None:
            super().__init__()
            self.another = threading.Event()
            self.busy = False

        def obtain(self, connection: Connection) -> Any:
            if self.busy:
                self.another.set()
                raise RuntimeError("not safe in threads")
            self.busy = True
            self.another.wait(10)
            return super().obtain(connection)


class TestProviderBlocks(OfProvider):
    class broken(Tokens):
        @nonblocking
        def obtain(self, connection: Connection) -> Any:
            time.sleep(0.06)
            return super().obtain(connection)

"""What the tests of a credential provider are made of: its methods called, and requests through doors."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any, ClassVar

from proxy_middleware._credential import Credential
from proxy_middleware.errors import ProxyError
from proxy_middleware.models import Connection
from proxy_middleware.protocols import CredentialProvider
from proxy_middleware.resolvers import StaticResolver
from proxy_middleware.testing._contract import Contract, call, fail, pytest, raised
from proxy_middleware.testing._doors import Answer, Colour, Doors, Request
from proxy_middleware.testing._secrets import SHORTEST, Secret, parts_of, secrets_of
from proxy_middleware.testing.messages import ReceivedRequest, Reply
from proxy_middleware.testing.upstream import FakeUpstream

__all__ = ["CROWD", "FirstRejected", "ProviderRuns"]

CROWD = 24


class ProviderRuns(Contract):
    """See `CredentialProviderContract`."""

    connection: Connection = Connection("contract", "https://api.example.com")
    other_connection: Connection | None = None
    rejection: Reply = Reply(401)
    secrets: ClassVar[Sequence[str]] = ()

    def _obtain(self, provider: CredentialProvider, connection: Connection) -> Credential:
        try:
            credential = call(provider.obtain, connection)
        except Exception as error:
            fail(f"obtain {raised(error)} for {connection.id!r}, whose credential it should have")
        if not isinstance(credential, Credential):
            fail(f"obtain gave {type(credential).__name__} for {connection.id!r}, not a Credential")
        return credential

    def _refresh(self, provider: CredentialProvider, rejected: Credential) -> Credential:
        refresh = self._refresher(provider)
        try:
            credential = call(refresh, self.connection, rejected)
        except ProxyError as error:
            pytest.skip(f"refresh raised {type(error).__name__}: there is no newer credential to look at")
        except Exception as error:
            fail(f"refresh {raised(error)}: raise RefreshFailed where there is no newer credential")
        if not isinstance(credential, Credential):
            fail(f"refresh gave {type(credential).__name__}, not a Credential")
        if credential == rejected:
            fail("refresh gave the credential that was rejected: raise RefreshFailed where there is no newer one")
        return credential

    def _refresher(self, provider: CredentialProvider) -> Callable[..., Any]:
        refresh: Callable[..., Any] | None = getattr(provider, "refresh", None)
        if refresh is None:
            pytest.skip("no refresh")
        return refresh

    def _secrets(self, *credentials: Credential) -> list[Secret]:
        shown = [secret for text in self.secrets for secret in secrets_of("one of `secrets`", text)]
        for credential in credentials:
            shown += parts_of("a credential", credential)
        found = [secret for secret in shown if len(secret.value) >= SHORTEST]
        if not found:
            pytest.skip("the credentials show no secret of four characters or more: set `secrets`")
        return found

    def _connections(self) -> list[Connection]:
        return [self.connection, *([self.other_connection] if self.other_connection is not None else [])]

    def _requests(self) -> list[Request]:
        connections = self._connections()
        return [self._request(connections[number % len(connections)].id) for number in range(CROWD)]

    def _doors(self, provider: CredentialProvider, upstream: FakeUpstream) -> Doors:
        return Doors(upstream, StaticResolver(self._connections()), provider, self.caller)

    def _ask_in_two_proxies(
        self, provider: CredentialProvider, upstream: FakeUpstream, colour: Colour, requests: Sequence[Request]
    ) -> list[Answer]:
        """With caches of their own, they ask the provider at the same time, as two processes do."""
        doors = [self._doors(provider, upstream) for _ in range(2)]
        with ThreadPoolExecutor(len(doors)) as pool:
            asked = pool.map(lambda door: door.ask(colour, *requests), doors)
            return [answer for answers in asked for answer in answers]


class FirstRejected:
    """An upstream's answers: the credential that came first has expired, and every other one is good."""

    def __init__(self, rejection: Reply) -> None:
        self._rejection = rejection
        self._first: bytes | None = None
        self._lock = Lock()

    def __call__(self, request: ReceivedRequest) -> Reply:
        """The requests of one test are the same but for the credential."""
        with self._lock:
            if self._first is None:
                self._first = request.head
        return self._rejection if request.head == self._first else Reply(200, b"ok")

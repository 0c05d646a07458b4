"""What every CredentialProvider has to do, as tests to inherit."""

from collections.abc import Callable, Iterator
from typing import Any

from proxy_middleware._credential import Credential
from proxy_middleware.errors import ProxyError
from proxy_middleware.models import Connection, ResponseHead, header_fields
from proxy_middleware.protocols import CredentialProvider
from proxy_middleware.testing._contract import call, complaints, fail, holds_up, pytest, raised
from proxy_middleware.testing._doors import Colour
from proxy_middleware.testing._provider_runs import CROWD, FirstRejected, ProviderRuns
from proxy_middleware.testing.leaks import in_log, where_found
from proxy_middleware.testing.messages import ReceivedRequest, Reply
from proxy_middleware.testing.upstream import FakeUpstream

__all__ = ["CredentialProviderContract"]

# Unix seconds of 2001 and 5138: what is outside is a lifetime, or in milliseconds.
SECONDS = (1e9, 1e11)


class CredentialProviderContract(ProviderRuns):
    """Tests of a credential provider, which runs behind both doors of a real proxy in front of a FakeUpstream.

    Inherit it, override the fixture `provider`, and say for which connection it has a credential:

        class TestProvider(CredentialProviderContract):
            connection = Connection("acme", "https://api.example.com")

            @pytest.fixture
            def provider(self):
                return Provider(vault)

    What is asked of `refresh` and `is_rejected` counts where the provider has them. A test that asks for what yours
    does not promise, such as that each refresh is remembered, can be overridden like any method.

    Attributes:
        connection: One whose credential the provider has.
        other_connection: One with a credential of its own; None where all connections have the same.
        rejection: What the API answers to an expired credential.
        secrets: What must not be shown beside what the credentials inject: a client secret, a key for signatures.
    """

    @pytest.fixture
    def provider(self) -> CredentialProvider:
        """The provider under test; to be overridden."""
        fail(f"{type(self).__name__} has to override the fixture `provider`")

    @pytest.fixture
    def contract_upstream(self) -> Iterator[FakeUpstream]:
        """The API behind the proxy, which accepts everything until it is told otherwise."""
        with FakeUpstream() as upstream:
            yield upstream

    # Obtain.

    def test_obtain_gives_a_credential(self, provider: CredentialProvider) -> None:
        """`obtain` gives a Credential."""
        self._obtain(provider, self.connection)

    def test_credential_reaches_the_upstream(
        self,
        provider: CredentialProvider,
        contract_upstream: FakeUpstream,
        colour: Colour,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """A request through the door carries a credential."""
        answer = self._doors(provider, contract_upstream).ask(colour, self._request(self.connection.id))[0]
        if answer.status != 200:
            fail(f"through the {colour} door a request was answered with {answer.status}" + complaints(caplog))
        if not _adds_anything(contract_upstream.requests[0], len(self.headers)):
            fail(f"through the {colour} door a request reached the upstream without anything on it")

    def test_expiry_is_in_unix_seconds(self, provider: CredentialProvider) -> None:
        """`expires_at` is a moment in Unix seconds, or None: no lifetime, and no milliseconds."""
        expires_at = self._obtain(provider, self.connection).expires_at
        if expires_at is not None and not SECONDS[0] < expires_at < SECONDS[1]:
            fail(f"expires_at is {expires_at!r}; it is when the credential expires, in Unix seconds")

    def test_connections_have_their_own(self, provider: CredentialProvider) -> None:
        """Two connections get different credentials."""
        if self.other_connection is None:
            pytest.skip("no `other_connection`: all connections have the same credential")
        if self._obtain(provider, self.connection) == self._obtain(provider, self.other_connection):
            fail(f"{self.connection.id!r} and {self.other_connection.id!r} got the same credential")

    def test_unknown_connection(self, provider: CredentialProvider) -> None:
        """A connection that the provider has nothing for is a ProxyError, such as CredentialUnavailable."""
        unknown = Connection("no-such-connection", self.connection.base_url)
        try:
            credential = call(provider.obtain, unknown)
        except ProxyError:
            return
        except Exception as error:
            fail(f"obtain {raised(error)} for a connection that it does not know: raise CredentialUnavailable")
        if not isinstance(credential, Credential):
            fail(f"obtain gave {type(credential).__name__} for a connection that it does not know")

    # Refresh.

    def test_refresh_gives_another_credential(self, provider: CredentialProvider) -> None:
        """`refresh` gives a credential other than the rejected one, or raises RefreshFailed."""
        rejected = self._obtain(provider, self.connection)
        self._refresh(provider, rejected)

    def test_refresh_is_remembered(self, provider: CredentialProvider) -> None:
        """After a refresh `obtain` gives no credential that was rejected."""
        rejected = self._obtain(provider, self.connection)
        self._refresh(provider, rejected)
        if self._obtain(provider, self.connection) == rejected:
            fail("after a refresh obtain gave the rejected credential again, which every worker would be refused with")

    def test_outdated_rejection_gives_the_newer_one(self, provider: CredentialProvider) -> None:
        """Whoever was rejected with a credential that has been replaced since gets its successor."""
        rejected = self._obtain(provider, self.connection)
        newer = self._refresh(provider, rejected)
        if self._refresh(provider, rejected) != newer:
            fail(
                "refresh was called again with a credential that had been replaced, and gave another one than the one "
                "that replaced it: two workers who are rejected together would refresh twice"
            )

    def test_rejected_requests_are_cured(
        self,
        provider: CredentialProvider,
        contract_upstream: FakeUpstream,
        colour: Colour,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Through the doors, callers who are rejected together all get through, or none where a refresh fails."""
        self._refresher(provider)
        contract_upstream.answer(FirstRejected(self.rejection))
        requests = [self._request(self.connection.id)] * CROWD
        answers = self._ask_in_two_proxies(provider, contract_upstream, colour, requests)
        statuses = {answer.status for answer in answers}
        if len(statuses) > 1 or statuses - {200, self.rejection.status}:
            fail(f"{len(answers)} callers who were rejected together got {sorted(statuses)}" + complaints(caplog))
        if "failed with" in complaints(caplog):
            fail(f"refresh raises something else than RefreshFailed{complaints(caplog)}")

    # Is rejected.

    def test_is_rejected_knows_a_rejection(self, provider: CredentialProvider) -> None:
        """`is_rejected` says True of a rejection and False of a success, and nothing but these two of others."""
        judge = getattr(provider, "is_rejected", None)
        if judge is None:
            pytest.skip("no is_rejected: a 401 is a rejection")
        for reply in (self.rejection, Reply(200), Reply(403), Reply(404), Reply(429), Reply(500)):
            judged = _judged(judge, self.connection, reply)
            if not isinstance(judged, bool):
                fail(f"is_rejected gave {type(judged).__name__} for a response with {reply.status}, not a bool")
            if reply is self.rejection and not judged:
                fail(f"is_rejected gave False for the API's rejection, {reply.status}; is `rejection` what it sends?")
            if reply.status == 200 and reply is not self.rejection and judged:
                fail("is_rejected gave True for a 200 with nothing in it")

    # As a guest.

    def test_shows_no_secret(
        self,
        provider: CredentialProvider,
        contract_upstream: FakeUpstream,
        colour: Colour,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """No secret is in the provider's `repr` or `str`, nor in the log of what it does."""
        caplog.set_level("DEBUG")
        first = self._obtain(provider, self.connection)
        if hasattr(provider, "refresh"):
            contract_upstream.answer(FirstRejected(self.rejection))
        answer = self._doors(provider, contract_upstream).ask(colour, self._request(self.connection.id))[0]
        secrets = self._secrets(first, self._obtain(provider, self.connection))
        shown = [("its repr", repr(provider).encode()), ("its str", str(provider).encode()), ("a body", answer.body)]
        if found := where_found(secrets, [*in_log(caplog), *shown]):
            fail("\n  ".join(["the provider shows secrets:", *found]))

    def test_survives_a_crowd(
        self,
        provider: CredentialProvider,
        contract_upstream: FakeUpstream,
        colour: Colour,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Callers of several connections at once, in two proxies, all get through."""
        answers = self._ask_in_two_proxies(provider, contract_upstream, colour, self._requests())
        if refused := sorted({answer.status for answer in answers} - {200}):
            fail(f"in a crowd of {len(answers)} requests some were answered with {refused}" + complaints(caplog))

    def test_survives_event_loops(
        self, provider: CredentialProvider, contract_upstream: FakeUpstream, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The provider serves several event loops of one process at the same time."""
        answers = self._doors(provider, contract_upstream).ask_on_loops(3, self._requests())
        if refused := sorted({answer.status for answer in answers} - {200}):
            fail(f"on three event loops some requests were answered with {refused}" + complaints(caplog))

    def test_does_not_hold_up_the_event_loop(self, provider: CredentialProvider) -> None:
        """An `async def`, or a `def` that is marked as nonblocking, blocks nothing."""
        credential = self._obtain(provider, self.connection)
        calls: dict[str, tuple[Any, ...]] = {"obtain": (), "refresh": (credential,)}
        for name, arguments in calls.items():
            method = getattr(provider, name, None)
            seconds = None if method is None else holds_up(method, self.connection, *arguments)
            if seconds is not None:
                fail(f"{name} held up the event loop for {seconds * 1000:.0f} ms: await what it waits for")


def _adds_anything(request: ReceivedRequest, given: int) -> bool:
    """Whether there is more than Host and the caller's own fields, or a query."""
    return len(request.fields) > 1 + given or b"?" in request.target


def _judged(judge: Callable[..., Any], connection: Connection, reply: Reply) -> Any:
    pairs = reply.fields if not hasattr(reply.fields, "items") else reply.fields.items()
    fields = header_fields("rejection", pairs)
    head = ResponseHead(reply.status, fields)
    needs_body = getattr(judge, "needs_body", None)
    if needs_body is not None and needs_body(head) and isinstance(reply.body, bytes):
        head = ResponseHead(reply.status, fields, reply.body)
    try:
        return call(judge, connection, head)
    except Exception as error:
        fail(f"is_rejected {raised(error)} for a response with {reply.status}")

"""What every ConnectionResolver has to do, as tests to inherit."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from proxy_middleware._cache_entries import facts_of
from proxy_middleware._credential import Credential
from proxy_middleware.errors import AccessDenied, AmbiguousSelector, ConnectionNotFound
from proxy_middleware.models import Connection, ProxyRequest, header_fields
from proxy_middleware.protocols import ConnectionResolver, nonblocking
from proxy_middleware.testing._contract import Contract, call, complaints, fail, holds_up, pytest, raised
from proxy_middleware.testing._doors import Answer, Colour, Doors
from proxy_middleware.testing.messages import ReceivedRequest, Reply
from proxy_middleware.testing.upstream import FakeUpstream

__all__ = ["ResolverContract"]

# What a selector may be made of, and how long it may be.
ODD_SELECTORS = (*"aZ09_.~:@+ -", "..", "-1", " a ", "a b", "x" * 256, "~" * 256, "a.b:c@d+e~f_g-h")
CROWD = 12
LOOPS = 3

_NAME = "x-connection-id"


class ResolverContract(Contract):
    """Tests of a resolver, which runs behind both doors of a real proxy in front of a FakeUpstream.

    Inherit it, override the fixture `resolver`, and say which selectors there are:

        class TestResolver(ResolverContract):
            known_selector = "acme"
            other_tenant_selector = "globex"
            caller = User(tenant="acme")

            @pytest.fixture
            def resolver(self):
                return Resolver(database)

    A test that asks for what your resolver does not promise can be overridden like any method.

    Attributes:
        known_selector: Names a connection that the caller may use.
        unknown_selector: Names nothing.
        other_tenant_selector: Names a connection that the caller must not reach; None where all callers reach all.
        other_caller: Must not reach what `known_selector` leads the caller to; None where all callers reach all.
    """

    known_selector: str | None = None
    unknown_selector: str = "no-such-connection"
    other_tenant_selector: str | None = None
    other_caller: Any = None

    @pytest.fixture
    def resolver(self) -> ConnectionResolver:
        """The resolver under test; to be overridden."""
        fail(f"{type(self).__name__} has to override the fixture `resolver`")

    @pytest.fixture
    def door_runs(self, resolver: ConnectionResolver) -> "Iterator[_Runs]":
        """Runs the resolver behind doors."""
        if self.known_selector is None:
            fail(f"{type(self).__name__} has to set `known_selector`")
        with FakeUpstream(_echo) as upstream:
            yield _Runs(self, resolver, upstream)

    def test_finds_what_is_known(self, door_runs: "_Runs", colour: Colour, caplog: pytest.LogCaptureFixture) -> None:
        """A known selector leads to a connection."""
        answer = door_runs.ask(colour, self._known)[0]
        if answer.status != 200:
            hint = f"; if the connection does not allow {self.method} {self.path}, set `method` and `path`"
            explained = door_runs.explain(self._known, "a Connection", answer)
            fail(explained + (hint if answer.status == 403 else "") + complaints(caplog))

    def test_gives_the_same_connection_every_time(self, door_runs: "_Runs", colour: Colour) -> None:
        """Two look-ups give connections that share a cached credential."""
        found = [door_runs.connection(colour, self._known) for _ in range(2)]
        first, second = found
        if first is None or second is None:
            fail(door_runs.explain(self._known, "a Connection"))
        if first.id != second.id:
            fail(f"resolve({self._known!r}) gave the id {first.id!r}, then {second.id!r}; credentials go by id")
        facts = ("revision", "base_url", "integration_key", "integration_id", "attributes")
        pairs = zip(facts, facts_of(first), facts_of(second), strict=True)
        if changed := [name for name, one, other in pairs if one != other]:
            names = ", ".join(changed)
            fail(f"resolve({self._known!r}) gave another {names} each time, so that no credential is cached")

    def test_knows_nothing_of_the_unknown(
        self, door_runs: "_Runs", colour: Colour, caplog: pytest.LogCaptureFixture
    ) -> None:
        """An unknown selector is ConnectionNotFound, or AccessDenied."""
        answer = door_runs.ask(colour, self.unknown_selector)[0]
        if answer.status not in (403, 404):
            fail(door_runs.explain(self.unknown_selector, "ConnectionNotFound", answer) + complaints(caplog))

    def test_keeps_tenants_apart(self, door_runs: "_Runs", colour: Colour, caplog: pytest.LogCaptureFixture) -> None:
        """Another tenant's selector is ConnectionNotFound, or AccessDenied."""
        if self.other_tenant_selector is None:
            pytest.skip("no `other_tenant_selector`: every caller may use every connection")
        answer = door_runs.ask(colour, self.other_tenant_selector)[0]
        if answer.status not in (403, 404):
            explained = door_runs.explain(self.other_tenant_selector, "ConnectionNotFound", answer)
            fail(f"another tenant's connection can be reached: {explained}" + complaints(caplog))

    def test_remembers_nothing_for_others(self, door_runs: "_Runs", colour: Colour) -> None:
        """What the caller has been given is not given to another tenant's caller who asks for the same."""
        if self.other_caller is None:
            pytest.skip("no `other_caller`: every caller may use every connection")
        own = door_runs.connection(colour, self._known)
        others = door_runs.connection(colour, self._known, self.other_caller)
        if own is not None and others is not None and own.id == others.id:
            fail(f"resolve({self._known!r}) gave {own.id!r} to the caller, and then to `other_caller`, too")

    def test_takes_every_selector(self, door_runs: "_Runs", colour: Colour) -> None:
        """Whatever a selector is made of, the outcome is a connection or an error that names the case."""
        for selector, answer in zip(ODD_SELECTORS, door_runs.ask(colour, *ODD_SELECTORS), strict=True):
            if answer.status not in (200, 403, 404, 409):
                fail(door_runs.explain(selector, "a Connection or ConnectionNotFound", answer))

    def test_survives_a_crowd(self, door_runs: "_Runs", colour: Colour) -> None:
        """Look-ups that are under way together do not get in each other's way."""
        selectors = self._mixed()
        expected = {selector: door_runs.ask("wsgi", selector)[0] for selector in set(selectors)}
        door_runs.compare(selectors, expected, door_runs.ask(colour, *selectors))

    def test_survives_event_loops(self, door_runs: "_Runs") -> None:
        """The resolver serves several event loops of one process at the same time."""
        selectors = self._mixed()
        expected = {selector: door_runs.ask("wsgi", selector)[0] for selector in set(selectors)}
        door_runs.compare(selectors * LOOPS, expected, door_runs.ask_on_loops(*selectors))

    def test_does_not_hold_up_the_event_loop(self, door_runs: "_Runs") -> None:
        """An `async def`, or a `def` that is marked as nonblocking, blocks nothing."""
        seconds = holds_up(door_runs.resolver.resolve, self._known, door_runs.request(self._known))
        if seconds is not None:
            fail(f"resolve held up the event loop for {seconds * 1000:.0f} ms: await what it waits for")

    @property
    def _known(self) -> str:
        assert self.known_selector is not None
        return self.known_selector

    def _mixed(self) -> list[str]:
        """All selectors there are, each followed by the others, many times."""
        return [name for name in (self._known, self.unknown_selector, self.other_tenant_selector) if name] * CROWD


class _Runs:
    """Runs a resolver behind doors, a new pair for each question, so that nothing is cached."""

    def __init__(self, contract: Contract, resolver: ConnectionResolver, upstream: FakeUpstream) -> None:
        self._contract = contract
        self._upstream = upstream
        self.resolver = resolver

    def ask(self, colour: Colour, *selectors: str) -> list[Answer]:
        """The answers to requests with these selectors, all at once."""
        return self._doors(_Recorder()).ask(colour, *map(self._contract._request, selectors))

    def ask_on_loops(self, *selectors: str) -> list[Answer]:
        """The same, on several event loops."""
        return self._doors(_Recorder()).ask_on_loops(LOOPS, [self._contract._request(name) for name in selectors])

    def connection(self, colour: Colour, selector: str, caller: Any = None) -> Connection | None:
        """The connection that the door was given; None if it was none."""
        recorder = _Recorder()
        self._doors(recorder, caller).ask(colour, self._contract._request(selector))
        return recorder.connections[0] if recorder.connections else None

    def request(self, selector: str) -> ProxyRequest:
        """What the resolver is handed."""
        contract = self._contract
        fields = header_fields("headers", ((name.lower(), value) for name, value in contract.headers.items()))
        path = contract.path.encode("ascii")
        return ProxyRequest(contract.method, selector, path, fields, None, contract.caller, {}, {})

    def explain(self, selector: str, wanted: str, answer: Answer | None = None) -> str:
        """What the resolver does with a selector, and what it ought to."""
        shown = repr(selector if len(selector) < 40 else f"{selector[:20]}... ({len(selector)} characters)")
        try:
            outcome = call(self.resolver.resolve, selector, self.request(selector))
        except Exception as error:
            did = raised(error)
            if isinstance(error, ConnectionNotFound | AccessDenied | AmbiguousSelector):
                did = f"raised {type(error).__name__}"
        else:
            did = f"gave {outcome!r}" if isinstance(outcome, Connection) else f"gave {type(outcome).__name__}"
        status = f" (the proxy answered {answer.status})" if answer is not None else ""
        return f"resolve({shown}) {did} where {wanted} was expected{status}"

    def compare(self, selectors: list[str], expected: dict[str, Answer], answers: list[Answer]) -> None:
        """Fails where an answer in a crowd is another than the same request got alone."""
        for selector, answer in zip(selectors, answers, strict=True):
            alone = expected[selector]
            if _shown(answer) != _shown(alone):
                fail(
                    f"in a crowd of {len(selectors)} requests, {selector!r} was answered with {_shown(answer)}, "
                    f"alone with {_shown(alone)}: look-ups share what they must not"
                )

    def _doors(self, recorder: "_Recorder", caller: Any = None) -> Doors:
        caller = self._contract.caller if caller is None else caller
        return Doors(self._upstream, self.resolver, recorder, caller)


class _Recorder:
    """A credential provider that keeps the connections it is asked for, and tells the upstream which one it was."""

    def __init__(self) -> None:
        self.connections: list[Connection] = []

    @nonblocking
    def obtain(self, connection: Connection) -> Credential:
        self.connections.append(connection)
        return Credential.header(_NAME, quote(connection.id))


def _echo(request: ReceivedRequest) -> Reply:
    return Reply(200, (request.header(_NAME) or "").encode())


def _shown(answer: Answer) -> str:
    return f"{answer.status}, connection {answer.body.decode()!r}" if answer.status == 200 else str(answer.status)

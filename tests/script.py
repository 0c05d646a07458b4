"""A plain loop that answers the core's steps from a script: no I/O, no plugins, no engine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from proxy_middleware import (
    BrowserPolicy,
    Connection,
    Credential,
    Limits,
    ProxyError,
    ProxyRequest,
    Replay,
    ResponseHead,
    Timeouts,
)
from proxy_middleware._exchange import Rules, exchange
from proxy_middleware._fields import Field
from proxy_middleware._steps import (
    Authenticate,
    Clock,
    Collect,
    Discard,
    Forward,
    Judge,
    Obtain,
    Obtained,
    Probe,
    Refresh,
    Relay,
    Resolve,
)

OLD, NEW = Credential.bearer("old"), Credential.bearer("new")
CONNECTION = Connection("c", "https://api.example.com")
HOST = (b"host", b"api.example.com")


@dataclass
class Body:
    """A request body's handle."""

    content: bytes = b""
    replayable: bool = True
    expected: object = "never said"

    def expect(self, length: int | None) -> None:
        """Notes the length that the core announces."""
        self.expected = length


@dataclass
class Response:
    """An upstream response's handle."""

    status: int = 200
    fields: list[Field] = field(default_factory=list)
    retried: bool = False
    kept: list[Field] | None = None

    @property
    def raw(self) -> list[bytes]:
        """The fields as lines."""
        return [b"%b: %b" % pair for pair in self.fields]


def outcome(value: Any) -> Any:
    """The value, or what it says is raised."""
    if isinstance(value, Exception):
        raise value
    return value


@dataclass
class Script:
    """What the world answers to the core; an exception among the answers is thrown in.

    Attributes:
        refresh: What refreshing gives; None where the provider cannot refresh.
        judge: Whether a response rejects the credential; None where the provider leaves that to the core.
        responses: What the upstream answers in turn.
        steps: What the core wanted done, in order.
    """

    caller: Any = "alice"
    connection: Any = CONNECTION
    credential: Any = OLD
    now: float = 1000.0
    refresh: Any = None
    judge: Callable[[ResponseHead], bool] | None = None
    responses: Sequence[Any] = (Response(),)
    steps: list[Any] = field(default_factory=list)

    def answer(self, step: Any) -> Any:
        """The answer to a step."""
        self.steps.append(step)
        match step:
            case Authenticate():
                return outcome(self.caller)
            case Resolve():
                return outcome(self.connection)
            case Obtain():
                credential = outcome(self.credential)
                return Obtained(credential, self.now, self.refresh is not None, self.judge is not None)
            case Clock():
                return self.now
            case Refresh():
                return outcome(self.refresh)
            case Judge():
                assert self.judge is not None
                return self.judge(ResponseHead(step.response.status, step.response.fields))
            case Probe():
                return bool(step.body.content)
            case Collect():
                return step.body.content
            case Forward():
                return outcome(self.responses[len(self.sent) - 1])
            case Discard():
                return step.body is None or step.body.replayable
        raise AssertionError(f"an unknown step: {step}")

    @property
    def sent(self) -> list[Forward]:
        """The requests that went upstream."""
        return [step for step in self.steps if isinstance(step, Forward)]

    @property
    def kinds(self) -> list[str]:
        """The names of the steps."""
        return [type(step).__name__ for step in self.steps]


def request(method: str = "GET", target: bytes = b"/x", *fields: Field) -> ProxyRequest:
    """A caller's request; its own Authorization is what must never go upstream."""
    own = [(b"host", b"app.example.com"), (b"authorization", b"Bearer caller")]
    return ProxyRequest(method, "c", target, [*own, *fields])


def rules(**settings: Any) -> Rules:
    """The default settings, but for these."""
    defaults: dict[str, Any] = {
        "limits": Limits(),
        "timeouts": Timeouts(),
        "browser": BrowserPolicy(),
        "replay": Replay(),
        "cache_guard": True,
        "max_status": 599,
        "lower_case": False,
    }
    return Rules(**defaults | settings)


def play(
    script: Script, request: ProxyRequest, *, body: Body | None = None, version: str = "1.1", **settings: Any
) -> Relay:
    """The outcome of a request; raises the ProxyError that is answered instead."""
    steps = exchange(request, version, body or Body(), rules(**settings))
    try:
        step = next(steps)
        while True:
            try:
                value = script.answer(step)
            except ProxyError as error:
                step = steps.throw(error)
            else:
                step = steps.send(value)
    except StopIteration as done:
        relay: Relay = done.value
        return relay

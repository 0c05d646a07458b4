"""What the upstream has seen of each exchange, and what was wrong with it."""

from collections import defaultdict
from dataclasses import dataclass, field

from tests.host_plugins import CALLER_TOKEN, UPSTREAM_SECRET
from tests.soak.plan import Plan
from tests.soak.streams import Received
from tests.wire import Message, parse_head

WRONG = "wrong answers"
TRUNCATED = "truncated, but complete-looking"
TWICE = "sent twice"
MIXED_UP = "mix-ups"
# What never reaches the upstream as a whole.
_NEVER_WHOLE = frozenset({"leave-request", "short-upload", "malformed"})
KINDS = (WRONG, TRUNCATED, TWICE, MIXED_UP)


@dataclass(frozen=True)
class Fault:
    """Something that must not happen: which kind of it, and what it was."""

    kind: str
    text: str


@dataclass
class Arrivals:
    """The requests that came for one exchange.

    Attributes:
        heads: How many heads came.
        whole: How many requests came to their end.
        rejected: The credential that was answered with a 401.
        wrong: What was wrong with them.
        judged: How much of that has been told already; a request may come when its caller has gone.
    """

    heads: int = 0
    whole: int = 0
    rejected: str | None = None
    wrong: list[Fault] = field(default_factory=list)
    judged: int = 0


class Ledger:
    """Keeps the arrivals of every exchange, and judges each request as it comes."""

    def __init__(self) -> None:
        self.arrivals: defaultdict[int, Arrivals] = defaultdict(Arrivals)
        self.unplanned: list[str] = []

    def begin(self, plan: Plan, head: bytes) -> Arrivals:
        """A head has come."""
        entry = self.arrivals[plan.number]
        entry.heads += 1
        allowed = (3 if plan.idempotent else 1) + (entry.rejected is not None and not plan.idempotent)
        if entry.heads > allowed:
            entry.wrong.append(Fault(TWICE, f"{plan.method} came {entry.heads} times"))
        if plan.refused or plan.fault == "refuse":
            entry.wrong.append(Fault(WRONG, "the upstream got a request that was refused"))
        if plan.fault != "malformed":
            entry.wrong += _judge_head(plan, head, entry)
        return entry

    def end(self, plan: Plan, body: Received) -> None:
        """A body has come, whole or not."""
        entry, expected = self.arrivals[plan.number], plan.request_body
        data = bytes(body.data)
        entry.whole += body.complete
        if body.complete and plan.fault in _NEVER_WHOLE:
            entry.wrong.append(Fault(WRONG, "the upstream got a request that never was whole"))
        if plan.fault == "malformed":
            return  # Its body is not the plan's.
        if data != expected[: len(data)]:
            entry.wrong.append(differing(plan, data, expected, "request body"))
        elif body.complete and len(data) != len(expected):
            text = f"{len(data)} bytes of {len(expected)} looked like a whole request"
            entry.wrong.append(Fault(WRONG, text))


def _judge_head(plan: Plan, head: bytes, entry: Arrivals) -> list[Fault]:
    line, fields = parse_head(head)
    message = Message(fields=fields)
    target = plan.path + (f"?key={UPSTREAM_SECRET}" if plan.selector == "query" else "")
    wrong = []
    if line != f"{plan.method} {target} HTTP/1.1".encode():
        wrong.append(Fault(WRONG, f"the request line was {line!r}"))
    if message.values(b"x-soak") != [b"%d" % plan.number]:
        wrong.append(Fault(MIXED_UP, f"the fields were those of {message.values(b'x-soak')}"))
    if CALLER_TOKEN.encode() in head:
        wrong.append(Fault(WRONG, "the caller's token was sent on"))
    token = credential_of(message)
    if plan.selector == "expiring":
        if not token.startswith(f"Bearer {UPSTREAM_SECRET}-") or token == entry.rejected:
            wrong.append(Fault(WRONG, "the credential was not a fresh one"))
    elif plan.selector == "header":
        if message.values(b"x-api-key") != [UPSTREAM_SECRET.encode()] or token:
            wrong.append(Fault(WRONG, "the credential was not there"))
    elif token != ("" if plan.selector == "query" else f"Bearer {UPSTREAM_SECRET}"):
        wrong.append(Fault(WRONG, "the credential was not there"))
    return wrong


def credential_of(message: Message) -> str:
    """The values of `Authorization`."""
    return b", ".join(message.values(b"authorization")).decode("latin-1")


def differing(plan: Plan, data: bytes, expected: bytes, what: str) -> Fault:
    """Bytes that are not those expected: another exchange's, or just wrong."""
    at = next((at for at, (one, other) in enumerate(zip(data, expected, strict=False)) if one != other), len(expected))
    others = [tag for tag in data.split(b"<soak ")[1:] if not tag.startswith(b"%d " % plan.number)]
    if others:
        return Fault(MIXED_UP, f"{what} holds bytes of exchange {others[0][:20]!r}")
    return Fault(
        WRONG, f"{what} differs from byte {at} of {len(expected)} on, {len(data)} came: {data[at : at + 40]!r}"
    )

"""Which outcomes of an exchange are right."""

from tests.host_plugins import CALLER_TOKEN, UPSTREAM_SECRET
from tests.soak.answers import rejected_body
from tests.soak.caller import HOST_ANSWER, Answer
from tests.soak.ledger import MIXED_UP, TRUNCATED, WRONG, Arrivals, Fault, differing
from tests.soak.plan import Plan
from tests.soak.planning import UPSTREAM_FAULTS

_SECRETS = (CALLER_TOKEN.encode(), UPSTREAM_SECRET.encode())
# Faults of a caller who is not there for the answer, or for all of it.
_LEFT = frozenset({"leave-request", "leave-waiting", "leave-response"})
# Faults that leave no more than the proxy's own answer, and which.
_OWN = {
    **dict.fromkeys(("refuse", "reset-before", "close-before", "reset-upload", "cut-head"), 502),
    **dict.fromkeys(("two-lengths", "garbage", "large-head", "bad-field", "endless-interim", "switch"), 502),
    **dict.fromkeys(("hang-before", "hang-head"), 504),
}
# Faults in the middle of the answer: it breaks off, or, where nothing of it was sent yet, is the proxy's own.
_BREAKS = {"cut-body": (502,), "bad-chunk": (502,), "hang-body": (504, 502)}


def judge(plan: Plan, answer: Answer, seen: Arrivals) -> list[Fault]:
    """Everything that was wrong with an exchange; nothing where all was right."""
    return [*seen.wrong, *_judge_arrivals(plan, answer, seen), *_judge_answer(plan, answer)]


def _judge_arrivals(plan: Plan, answer: Answer, seen: Arrivals) -> list[Fault]:
    if plan.fault in UPSTREAM_FAULTS and plan.fault not in ("refuse", "idle-close") and not seen.heads:
        return [Fault(WRONG, f"the upstream got no request, the caller got {answer.status}")]
    if answer.status == plan.status and not plan.refused and not is_own(answer) and not seen.heads:
        return [Fault(WRONG, "the upstream got no request")]
    return []


def _judge_answer(plan: Plan, answer: Answer) -> list[Fault]:
    if answer.late:
        return [Fault(WRONG, "there was no answer")]
    if any(secret in answer.head or secret in answer.body for secret in _SECRETS):
        return [Fault(WRONG, "a secret was shown")]
    if not answer.status:
        may = plan.fault in _LEFT or plan.fault in ("short-upload", "malformed")
        return [] if may else [Fault(WRONG, f"the connection was closed without an answer, after {answer.head!r}")]
    if plan.fault in ("short-upload", "malformed"):
        refused = 400 <= answer.status < 500 or answer.status in (501, 505)
        return [] if refused else [Fault(WRONG, f"answered with {answer.status}")]
    if is_own(answer):
        return _judge_own(plan, answer)
    return _judge_relayed(plan, answer)


def is_own(answer: Answer) -> bool:
    """Whether it is the proxy's own answer."""
    return any(value.startswith(b"proxy_middleware;") for value in answer.values(b"proxy-status"))


def _judge_own(plan: Plan, answer: Answer) -> list[Fault]:
    if not answer.complete:
        return [Fault(WRONG, f"the proxy's own {answer.status} broke off")]
    return [] if answer.status in own_statuses(plan) else [Fault(WRONG, f"the proxy answered with {answer.status}")]


def own_statuses(plan: Plan) -> tuple[int, ...]:
    """The statuses of the proxy's own that are right."""
    if plan.refused:
        return (plan.refused,)
    if plan.fault in _OWN:
        return (_OWN[plan.fault],)
    if plan.fault in _BREAKS:
        return _BREAKS[plan.fault]
    # Where the request went out on a connection that had died, it is not for everyone to send it again.
    may_fail = plan.fault in ("reset-once", "both-framings")
    if plan.selector == "fragile" and not (plan.idempotent and plan.replayable):
        may_fail = True
    return (502,) if may_fail else ()


def _judge_relayed(plan: Plan, answer: Answer) -> list[Fault]:
    if plan.refused or plan.fault in _OWN:
        return [Fault(WRONG, f"answered with {answer.status}, without the proxy's mark")]
    if answer.values(b"x-soak") != [b"%d" % plan.number]:
        kind = MIXED_UP if answer.values(b"x-soak") else WRONG
        return [Fault(kind, f"the answer was that of {answer.values(b'x-soak')}: {answer.head!r}")]
    status, expected = _expected(plan)
    if answer.status != status:
        return [Fault(WRONG, f"the status was {answer.status}, not {status}")]
    if answer.body != expected[: len(answer.body)]:
        return [differing(plan, answer.body, expected, "answer")]
    return _judge_end(plan, answer, expected)


def _judge_end(plan: Plan, answer: Answer, expected: bytes) -> list[Fault]:
    if plan.fault in _BREAKS:
        return [Fault(TRUNCATED, f"{len(answer.body)} bytes of {len(expected)}")] if answer.complete else []
    if plan.fault in _LEFT:
        return []
    if not answer.complete:
        return [Fault(WRONG, f"broke off after {len(answer.body)} bytes of {len(expected)}")]
    if len(answer.body) != len(expected):
        return [Fault(TRUNCATED, f"{len(answer.body)} bytes of {len(expected)}")]
    if answer.next is not None and answer.next != HOST_ANSWER:
        return [Fault(WRONG, f"the request behind it was answered with {answer.next[:40]!r}")]
    return []


def _expected(plan: Plan) -> tuple[int, bytes]:
    """Status and body of the upstream's answer that the caller should get."""
    if plan.selector == "expiring" and not plan.replayable:
        return 401, b"" if plan.method == "HEAD" else rejected_body(plan)
    return plan.status, b"" if plan.bodiless else plan.answer_body

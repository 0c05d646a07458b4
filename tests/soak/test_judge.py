"""The judge of the soak: what is right passes, and each kind of wrong outcome is found."""

from dataclasses import replace

import pytest

from tests.host_plugins import CALLER_TOKEN, UPSTREAM_SECRET
from tests.soak.answers import head_of
from tests.soak.caller import Answer
from tests.soak.judge import judge
from tests.soak.ledger import MIXED_UP, TRUNCATED, TWICE, WRONG, Arrivals, Ledger
from tests.soak.plan import Plan, body_of
from tests.soak.planning import CALLER_FAULTS, UPSTREAM_FAULTS, make_plan
from tests.soak.samples import MEMORY_BOUND, Sample, leaks
from tests.soak.streams import Received
from tests.wire import parse_head

PLAN = Plan(1, 7, "asgi", size=5000)
POST = Plan(1, 8, "asgi", "POST", upload=5000)
SEEN = Arrivals(heads=1, whole=1)


def _answer(plan: Plan, body: bytes, *, complete: bool = True) -> Answer:
    head = head_of(plan)
    return Answer(status=plan.status, head=head, fields=parse_head(head)[1], body=body, complete=complete)


def _own(status: int) -> Answer:
    mark = ((b"Proxy-Status", b"proxy_middleware; error=connection_terminated"),)
    return Answer(status=status, head=b"HTTP/1.1 502 Bad Gateway\r\n\r\n", fields=mark, complete=True)


def _kinds(plan: Plan, answer: Answer, seen: Arrivals = SEEN) -> list[str]:
    return [fault.kind for fault in judge(plan, answer, seen)]


def _request(plan: Plan, secret: str = UPSTREAM_SECRET, number: int | None = None) -> bytes:
    lines = f"Host: x\r\nAuthorization: Bearer {secret}\r\nX-Soak: {number or plan.number}\r\n\r\n"
    return f"{plan.method} {plan.path} HTTP/1.1\r\n{lines}".encode()


def test_right_answer_passes() -> None:
    """The planned answer, whole, is right."""
    assert _kinds(PLAN, _answer(PLAN, PLAN.answer_body)) == []


@pytest.mark.parametrize(
    ("answer", "kinds"),
    [
        (_answer(PLAN, PLAN.answer_body[:-1]), [TRUNCATED]),
        (_answer(PLAN, PLAN.answer_body[:-1], complete=False), [WRONG]),
        (_answer(PLAN, PLAN.answer_body[:-1] + b"\0"), [WRONG]),
        (_answer(PLAN, PLAN.answer_body + b"evil"), [WRONG]),
        (_answer(PLAN, body_of(replace(PLAN, number=9), b"answer", 5000)), [MIXED_UP]),
        (replace(_answer(PLAN, PLAN.answer_body), fields=((b"X-Soak", b"9"),)), [MIXED_UP]),
        (replace(_answer(PLAN, PLAN.answer_body), status=500), [WRONG]),
        (replace(_answer(PLAN, PLAN.answer_body), head=UPSTREAM_SECRET.encode()), [WRONG]),
        (_own(502), [WRONG]),
        (Answer(), [WRONG]),
        (Answer(late=True), [WRONG]),
    ],
)
def test_wrong_answers_are_found(answer: Answer, kinds: list[str]) -> None:
    """Cut, changed, longer, another's, leaky, refused without a reason, or none: each is told for what it is."""
    assert _kinds(PLAN, answer) == kinds


@pytest.mark.parametrize("fault", ["cut-body", "hang-body", "bad-chunk"])
def test_broken_answer_must_not_look_whole(fault: str) -> None:
    """An upstream that broke off may end in a broken transfer, and in nothing that looks complete."""
    plan = replace(PLAN, fault=fault)
    assert _kinds(plan, _answer(plan, plan.answer_body[:99], complete=False)) == []
    assert _kinds(plan, _answer(plan, plan.answer_body[:99])) == [TRUNCATED]
    assert _kinds(plan, _answer(plan, plan.answer_body)) == [TRUNCATED]


def test_refused_request_must_be_refused() -> None:
    """A wrong token and an unknown selector have one right status each."""
    plan = replace(PLAN, token=False)
    assert _kinds(plan, _own(401), Arrivals()) == []
    assert _kinds(plan, _own(404), Arrivals()) == [WRONG]
    assert _kinds(plan, _answer(plan, plan.answer_body), Arrivals()) == [WRONG]


def test_second_post_is_found() -> None:
    """A POST may come once, and once more only after a 401; a GET three times."""
    ledger = Ledger()
    for _ in range(2):
        entry = ledger.begin(POST, _request(POST))
    assert [fault.kind for fault in entry.wrong] == [TWICE]
    replayed = replace(POST, selector="expiring", number=10)
    ledger.begin(replayed, _request(replayed, f"{UPSTREAM_SECRET}-1")).rejected = f"Bearer {UPSTREAM_SECRET}-1"
    entry = ledger.begin(replayed, _request(replayed, f"{UPSTREAM_SECRET}-2"))
    assert entry.wrong == []
    for _ in range(3):
        entry = ledger.begin(PLAN, _request(PLAN))
    assert entry.wrong == []


def test_wrong_requests_are_found() -> None:
    """Another's fields, the caller's token, a missing credential, and a rejected one sent again are told."""
    for head, kinds in [
        (_request(POST, number=9), [MIXED_UP]),
        (_request(POST, CALLER_TOKEN), [WRONG, WRONG]),
        (_request(POST).replace(b"Authorization", b"X-Other"), [WRONG]),
    ]:
        assert [fault.kind for fault in Ledger().begin(POST, head).wrong] == kinds
    expiring, ledger = replace(POST, selector="expiring"), Ledger()
    ledger.arrivals[POST.number].rejected = f"Bearer {UPSTREAM_SECRET}-1"
    assert ledger.begin(expiring, _request(POST, f"{UPSTREAM_SECRET}-1")).wrong


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (POST.request_body[:-1], WRONG),
        (POST.request_body[:-1] + b"\0", WRONG),
        (body_of(PLAN, b"request", 5000), MIXED_UP),
    ],
)
def test_wrong_request_bodies_are_found(body: bytes, kind: str) -> None:
    """A part that looks whole, changed bytes, and another's bytes are told."""
    ledger = Ledger()
    ledger.end(POST, Received(bytearray(body), complete=True))
    assert [fault.kind for fault in ledger.arrivals[POST.number].wrong] == [kind]


def test_half_request_must_not_arrive_whole() -> None:
    """What the caller left half-way is wrong where it looks whole upstream."""
    plan, ledger = replace(POST, fault="leave-request"), Ledger()
    ledger.end(plan, Received(bytearray(plan.request_body[:100])))
    assert not ledger.arrivals[plan.number].wrong
    ledger.end(plan, Received(bytearray(plan.request_body), complete=True))
    assert ledger.arrivals[plan.number].wrong


def test_growth_is_found() -> None:
    """Growth beyond what pools hold is a leak: of descriptors, threads and memory."""
    start = Sample(20, 8, 0)
    assert leaks(start, Sample(30, 9, MEMORY_BOUND), callers=8) == []
    assert len(leaks(start, Sample(60, 60, MEMORY_BOUND + 1), callers=8)) == 3


def test_plans_are_reproducible_and_hold_every_fault() -> None:
    """The same seed and number plan the same; every fault that there is comes up."""
    plans = [make_plan(3, number, "wsgi") for number in range(6000)]
    assert plans[77] == make_plan(3, 77, "wsgi")
    assert {plan.fault for plan in plans} == {None, *UPSTREAM_FAULTS, *CALLER_FAULTS}

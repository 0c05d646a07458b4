"""Which plans there are: the mix of ordinary exchanges and faults, by weights, and what each fault needs to happen."""

import random
from dataclasses import replace
from typing import Any

from tests.soak.plan import KIB, Door, Plan
from tests.wire import Framing

_BOUNDS = (0, 200, 16 * KIB, 256 * KIB, 3 * 1024 * KIB)
UPSTREAM_FAULTS = {
    "refuse": 6,
    "reset-before": 6,
    "close-before": 6,
    "reset-once": 8,
    "reset-upload": 6,
    "cut-head": 8,
    "cut-body": 24,
    "hang-before": 1,
    "hang-head": 1,
    "hang-body": 2,
    "idle-close": 16,
    "extra-bytes": 8,
    "bad-chunk": 6,
    "both-framings": 4,
    "two-lengths": 4,
    "garbage": 4,
    "large-head": 2,
    "bad-field": 3,
    "endless-interim": 3,
    "switch": 3,
}
CALLER_FAULTS = {
    "leave-request": 10,
    "leave-waiting": 6,
    "leave-response": 10,
    "slow-caller": 3,
    "short-upload": 8,
    "malformed": 10,
}
_FAULTS = {**UPSTREAM_FAULTS, **CALLER_FAULTS}
_NEEDS_BODY = frozenset({"cut-body", "hang-body", "bad-chunk", "both-framings", "extra-bytes"})
_NEEDS_UPLOAD = frozenset({"reset-upload", "short-upload"})
_HANGS = frozenset({"hang-before", "hang-head", "hang-body"})


def make_plan(seed: int, number: int, door: Door, fault_share: float = 0.13) -> Plan:
    """The plan of one exchange; the same for the same arguments."""
    rng = random.Random(f"{seed}/{number}")
    plan = _ordinary(rng, Plan(seed, number, door))
    if rng.random() < fault_share:
        fault = rng.choices(list(_FAULTS), list(_FAULTS.values()))[0]
        return _with_fault(rng, plan, fault)
    if rng.random() < 0.04:
        refusal: dict[str, Any] = {"token": False} if rng.random() < 0.5 else {"selector": "unknown"}
        return replace(plan, upload=_small(plan.upload), pipelined=False, **refusal)
    return plan


def _ordinary(rng: random.Random, plan: Plan) -> Plan:
    method = rng.choices(("GET", "HEAD", "POST", "PUT", "PATCH"), (50, 5, 25, 12, 8))[0]
    upload = _size(rng) if method not in ("GET", "HEAD") or rng.random() < 0.05 else None
    old = upload is None and rng.random() < 0.03
    return replace(
        plan,
        method=method,
        selector=rng.choices(("bearer", "header", "query", "expiring", "fragile"), (60, 10, 10, 10, 10))[0],
        upload=upload,
        upload_chunked=rng.random() < 0.4,
        status=rng.choices((200, 204, 304, 201, 404, 500), (84, 4, 4, 3, 3, 2))[0],
        size=_size(rng),
        framing=rng.choices(("length", "chunked", "close"), (60, 28, 12))[0],
        events=not old and rng.random() < 0.05,
        interim=rng.choice((1, 2, 8)) if rng.random() < 0.06 else 0,
        pieces=rng.randint(2, 9) if rng.random() < 0.08 else 1,
        closes=rng.random() < 0.05,
        keeps=not old and rng.random() < 0.85,
        version="1.0" if old else "1.1",
        pipelined=not old and rng.random() < 0.04,
        cut=rng.random(),
        abrupt=rng.random() < 0.5,
    )


def _size(rng: random.Random) -> int:
    upper = rng.choices(range(1, 6), (6, 52, 30, 10, 2))[0]
    return 0 if upper == 1 else rng.randint(_BOUNDS[upper - 2] + 1, _BOUNDS[upper - 1])


def _small(size: int | None) -> int | None:
    return None if size is None else size % (8 * KIB)


def _with_fault(rng: random.Random, plan: Plan, fault: str) -> Plan:
    """The plan changed so far that the fault can happen in it."""
    plan = replace(plan, fault=fault, upload=_small(plan.upload), pipelined=False, interim=0, closes=False)
    plan = replace(plan, selector=_selector(plan, fault))
    if fault in _NEEDS_BODY:
        framing: Framing = "chunked" if fault in ("bad-chunk", "both-framings") else plan.framing
        method = "GET" if plan.method == "HEAD" else plan.method
        # Of an event stream, silence is no fault.
        events = plan.events and fault != "hang-body"
        plan = replace(plan, method=method, status=200, size=max(1, plan.size), framing=framing, events=events)
    if fault in ("two-lengths", "extra-bytes"):
        # All of it in one piece, so that it is there before the connection can be used again.
        framing = "length" if fault == "two-lengths" or plan.framing == "close" else plan.framing
        plan = replace(plan, size=1 + plan.size % (16 * KIB), framing=framing, status=200, pieces=1)
    if fault in _NEEDS_UPLOAD or fault == "leave-request":
        plan = replace(plan, method=rng.choice(("POST", "PUT", "PATCH")), version="1.1", upload=rng.randint(64, 60000))
    if fault == "malformed":
        plan = replace(plan, method="POST", version="1.1")
    if fault == "idle-close":
        plan = replace(plan, size=plan.size % (16 * KIB), framing="length", pieces=1)
    if fault == "short-upload":
        plan = replace(plan, upload_chunked=False)
    if fault in ("leave-response", "slow-caller"):
        plan = replace(
            plan, method="GET", upload=None, status=200, size=rng.randint(1, 600 * KIB), pieces=rng.randint(1, 6)
        )
    return plan


def _selector(plan: Plan, fault: str) -> str:
    if fault == "refuse":
        return "closed"
    if fault == "idle-close":
        return "fragile"
    if fault in _HANGS:
        return "hasty"
    return "bearer" if plan.selector in ("fragile", "expiring") else plan.selector

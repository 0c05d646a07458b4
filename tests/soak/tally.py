"""The figures of a soak."""

from collections import Counter
from dataclasses import dataclass, field

from tests.soak.caller import Answer
from tests.soak.judge import is_own
from tests.soak.ledger import KINDS, Fault
from tests.soak.plan import Plan
from tests.soak.samples import Sample

_SHOWN = 20


@dataclass
class Tally:
    """Counts what was done and what was wrong; keeps the first wrong exchanges."""

    requests: Counter[str] = field(default_factory=Counter)
    methods: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    leaks: list[str] = field(default_factory=list)
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    shown: list[str] = field(default_factory=list)
    reconnected: int = 0
    seconds: float = 0.0

    def add(self, plan: Plan, answer: Answer, found: list[Fault]) -> None:
        """One exchange is over."""
        self.requests[plan.door] += 1
        self.methods[plan.method] += 1
        if plan.fault:
            self.faults[plan.fault] += 1
        self.answers[_kind(answer)] += 1
        for kind in {fault.kind for fault in found}:
            self.wrong[kind] += 1
        if found and len(self.shown) < _SHOWN:
            what = "\n  ".join(f"{fault.kind}: {fault.text}" for fault in found)
            self.shown.append(f"{plan.describe()}\n  {what}")

    def add_wrong(self, kind: str, text: str) -> None:
        """Something was wrong that belongs to no planned exchange."""
        self.wrong[kind] += 1
        self.shown.append(text)

    @property
    def clean(self) -> bool:
        """Whether nothing was wrong."""
        return not self.wrong and not self.leaks

    def report(self) -> str:
        """The figures, for people."""
        total, faults = self.requests.total(), self.faults.total()
        rate = total / max(self.seconds, 1e-9)
        lines = [
            f"requests: {total} in {self.seconds:.0f} s ({rate:.0f}/s): {_list(self.requests)}",
            f"methods: {_list(self.methods)}",
            f"faults: {faults}: {_list(self.faults)}",
            f"answers: {_list(self.answers)}",
            f"connections that a server closed under its caller: {self.reconnected}",
            *(f"{kind}: {self.wrong[kind]}" for kind in KINDS),
            *(f"{door}: {'; '.join(map(str, samples))}" for door, samples in self.samples.items()),
            f"leaks: {len(self.leaks)}",
            *self.leaks,
            *self.shown,
        ]
        return "\n".join(lines)


def _kind(answer: Answer) -> str:
    if not answer.status:
        return "none"
    ending = "" if answer.complete else " cut"
    return f"{answer.status}{' own' if is_own(answer) else ''}{ending}"


def _list(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counter.items()))

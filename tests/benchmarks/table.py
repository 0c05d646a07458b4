"""The results as Markdown: a table for each workload, with ratios, and how it was measured."""

from collections.abc import Mapping, Sequence
from statistics import median

from tests.benchmarks.load import Round
from tests.benchmarks.results import Measurement, Outcome, Results
from tests.benchmarks.workloads import WORKLOADS, Workload

LAST = ("failures", "peak RSS MiB", "/ go", "/ bare")


def render(results: Results) -> str:
    """Return the whole document."""
    measured = [workload for workload in WORKLOADS if workload.name in results]
    parts = [f"### {one.title} (`{one.name}`)\n\n{table(one, results[one.name].outcomes)}" for one in measured]
    return "\n\n".join([*parts, *_notes(results)]) + "\n"


def table(workload: Workload, outcomes: Mapping[str, Outcome]) -> str:
    """Return one workload's table, and below it what could not be measured."""
    rows = [_head(workload)]
    rows += [_row(workload, name, one, outcomes) for name, one in outcomes.items() if one.error is None]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [_line(row, widths) for row in rows]
    rule = ["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]
    lines.insert(1, f"|{'|'.join(rule)}|")
    failed = [f"- {name} failed: {_first_line(one.error)}" for name, one in outcomes.items() if one.error]
    return "\n".join([*lines, "", *failed] if failed else lines)


def _head(workload: Workload) -> tuple[str, ...]:
    what = "event's delay " if workload.load == "streams" else ""
    columns = ["target", workload.unit, "lowest", "highest", f"{what}p50 ms", f"{what}p99 ms"]
    if workload.load == "streams":
        columns.append("first event p50 ms")
    if workload.delay:
        columns.append("added p50 ms")
    return (*columns, *LAST)


def _row(workload: Workload, name: str, outcome: Outcome, outcomes: Mapping[str, Outcome]) -> tuple[str, ...]:
    rates = [one.rate for one in outcome.rounds]
    p50 = median(one.p50 for one in outcome.rounds)
    times = [_time(p50), _time(median(one.p99 for one in outcome.rounds))]
    if workload.load == "streams":
        times.append(_first(outcome.rounds))
    if workload.delay:
        times.append(_time(p50 - workload.delay * 1000))
    # Where nothing was answered, there is no latency either.
    times = times if outcome.rate else [""] * len(times)
    bare = f"bare-{name.partition('-')[2]}" if name.startswith(("proxy-", "observed-")) else name
    return (
        name,
        *(f"{rate:,.0f}" for rate in (outcome.rate, min(rates), max(rates))),
        *times,
        str(outcome.failures),
        f"{outcome.peak_memory / 2**20:.0f}",
        _ratio(outcome, outcomes.get("go")),
        _ratio(outcome, outcomes.get(bare)) if bare != name else "",
    )


def _ratio(one: Outcome, other: Outcome | None) -> str:
    share = one.beside(other)
    return "" if share is None else f"{share:.2f}"


def _first(rounds: Sequence[Round]) -> str:
    firsts = [one.first for one in rounds if one.first is not None]
    return _time(median(firsts)) if firsts else ""


def _time(milliseconds: float) -> str:
    return f"{milliseconds:,.2f}" if milliseconds < 100 else f"{milliseconds:,.0f}"


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = zip(row, widths, strict=True)
    cells = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]
    return "| " + " | ".join(cells) + " |"


def _first_line(error: str | None) -> str:
    return (error or "").partition("\n")[0]


def _notes(results: Results) -> list[str]:
    """How it was measured: once for all workloads that were measured alike."""
    alike: dict[str, list[str]] = {}
    for name, measurement in results.items():
        alike.setdefault(_how(measurement), []).append(f"`{name}`")
    return [f"{', '.join(names)}: {how}" for how, names in alike.items()]


def _how(measurement: Measurement) -> str:
    seen = dict(measurement.environment)
    machine = f"{seen.pop('date')}, {seen.pop('processor')}, {seen.pop('cores')} cores, {seen.pop('system')}"
    versions = ", ".join(f"{name} {value}" for name, value in seen.items())
    rounds = f"medians of {measurement.rounds} interleaved rounds of {measurement.seconds} s"
    return f"{rounds}; each target alone on one core, callers and upstream on another. {machine}. {versions}."

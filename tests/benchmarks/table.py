"""The result as a Markdown table, and the ratios under it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from tests.benchmarks.load import Round

HEAD = ("target", "req/s", "lowest", "highest", "p50 ms", "p99 ms", "failures", "peak RSS MiB")


@dataclass(frozen=True, slots=True)
class Result:
    """All rounds of one target, and its peak resident size in bytes."""

    rounds: Sequence[Round]
    peak_memory: int

    @property
    def rate(self) -> float:
        """The median over the rounds, in answered requests per second."""
        return median(one.rate for one in self.rounds)

    @property
    def failures(self) -> int:
        """Refused, broken and timed-out requests of all rounds."""
        return sum(one.failures for one in self.rounds)


def render(results: Mapping[str, Result], ratios: Sequence[tuple[str, str]]) -> str:
    """Return the table, and one line for each ratio of which both sides were measured."""
    rows = [HEAD, *(_row(name, result) for name, result in results.items())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    lines = [_line(row, widths) for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 1) + ":" for width in widths) + "|")
    lines.append("")
    for one, other in ratios:
        if one in results and other in results:
            lines.append(f"{one} / {other}: {results[one].rate / results[other].rate:.2f}")
    return "\n".join(lines)


def _row(name: str, result: Result) -> tuple[str, ...]:
    rates = [one.rate for one in result.rounds]
    return (
        name,
        f"{result.rate:.0f}",
        f"{min(rates):.0f}",
        f"{max(rates):.0f}",
        f"{median(one.p50 for one in result.rounds):.2f}",
        f"{median(one.p99 for one in result.rounds):.2f}",
        str(result.failures),
        f"{result.peak_memory / 2**20:.1f}",
    )


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) + " |"

"""The results as a picture: who forwards how many requests, and the proxy beside Go's over all workloads."""

import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.benchmarks.results import Outcome, Results
from tests.benchmarks.workloads import WORKLOADS

MAIN = "json-32"
COLORS = {"proxy": "#1f6feb", "bare": "#b8c0cc", "go": "#2da44e", "nginx": "#8ddb8c"}
OTHERS = "#e08b3e"
COMPARED = ("proxy-uvicorn", "proxy-granian", "nginx")


def available() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def draw(results: Results, directory: Path) -> list[Path]:
    """Draw `benchmarks.svg` and `benchmarks.png`; returns their paths, none where there is nothing to compare."""
    import matplotlib as mpl

    mpl.use("agg")
    # The same results make the same file.
    mpl.rcParams.update({"svg.hashsalt": "benchmarks", "font.size": 9, "axes.spines.top": False})
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 6), layout="constrained")
    if not (_rates(left, results) + _ratios(right, results)):
        return []
    paths = [directory / "benchmarks.svg", directory / "benchmarks.png"]
    figure.savefig(paths[0], metadata={"Date": None})
    figure.savefig(paths[1], dpi=120)
    pyplot.close(figure)
    return paths


def _rates(axes: Any, results: Results) -> int:
    """One bar for each target of the main workload; returns how many."""
    measured = _measured(results, MAIN)
    ordered = sorted(measured, key=lambda name: measured[name].rate)
    bars = axes.barh(ordered, [measured[name].rate for name in ordered], color=[_color(name) for name in ordered])
    axes.bar_label(bars, fmt="{:,.0f}", padding=3)
    axes.set_title("1 KB of JSON, 32 callers, one core: requests a second")
    axes.spines.right.set_visible(False)
    axes.margins(x=0.12)
    return len(ordered)


def _ratios(axes: Any, results: Results) -> int:
    """The rate as a share of Go's, for each workload that Go took part in; returns how many.

    Not where the upstream sets the pace.
    """
    loads = [one for one in WORKLOADS if one.load != "streams" and not one.delay]
    shown = [one.name for one in loads if "go" in _measured(results, one.name)]
    height = 0.8 / len(COMPARED)
    for number, target in enumerate(COMPARED):
        shares = [_share(_measured(results, name), target) for name in shown]
        places = [place + number * height for place in range(len(shown))]
        bars = axes.barh(places, shares, height, label=target, color=_shade(target))
        axes.bar_label(bars, fmt="%.2f", padding=2, fontsize=7)
    axes.axvline(1, color=COLORS["go"], linewidth=1)
    axes.set_yticks([place + height * (len(COMPARED) - 1) / 2 for place in range(len(shown))], shown)
    axes.invert_yaxis()
    axes.set_title("Rate as a share of Go's ReverseProxy")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.05), ncols=len(COMPARED), frameon=False)
    axes.margins(x=0.1)
    axes.spines.right.set_visible(False)
    return len(shown)


def _measured(results: Results, workload: str) -> dict[str, Outcome]:
    if workload not in results:
        return {}
    return {name: one for name, one in results[workload].outcomes.items() if one.error is None and one.rate}


def _share(measured: dict[str, Outcome], name: str) -> float:
    share = measured[name].beside(measured["go"]) if name in measured else None
    return math.nan if share is None else share


def _color(name: str) -> str:
    return COLORS.get(name.partition("-")[0], OTHERS)


def _shade(name: str) -> str:
    return "#79b0ff" if name == "proxy-granian" else _color(name)

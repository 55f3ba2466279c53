"""Pictures of a result, by matplotlib: one function a picture, each from the result alone."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ov_minilm.bench.measure import OURS, REFERENCE

MINE, BASE, OTHER = "#0b6e5f", "#c25e00", "#8a94a0"  # told apart by the colour-blind too
STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same picture everywhere
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "svg.hashsalt": "ov-minilm",  # the same SVG for the same data
    "svg.fonttype": "path",
}
DIGEST = "Description"  # the PNG field that holds the digest of what was drawn

Plot = Callable[[dict[str, Any]], Figure | None]


def latency(result: dict[str, Any]) -> Figure | None:
    """Milliseconds for one text against its tokens, both axes logarithmic."""
    lines = {
        name: {int(tokens): f["p50"] for tokens, f in contender["latency_ms"].items()}
        for name, contender in result["contenders"].items()
        if contender.get("latency_ms")
    }
    if not lines:
        return None
    return _lines(lines, "tokens", "One text, milliseconds p50 (lower is better)", factor=1.19)


def throughput(result: dict[str, Any]) -> Figure | None:
    """Texts a second as bars, one panel a workload: the median, with a line to the best round."""
    names = [name for name in result["workloads"] if _rates(result, name)]
    if not names:
        return None
    rows = max(len(_rates(result, name)) for name in names)
    figure = Figure(figsize=(3.2 * len(names) + 1.6, 0.26 * rows + 1.1), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        rates = dict(sorted(_rates(result, name).items(), key=lambda item: item[1]["median"]))
        facts = result["workloads"][name]
        _bars(
            axes,
            {contender: rate["median"] for contender, rate in rates.items()},
            f"{facts['texts']} {name} texts of {facts['mean_tokens']:.0f} tokens, texts/s",
            best={contender: rate["best"] for contender, rate in rates.items()},
        )
    return figure


def memory(result: dict[str, Any]) -> Figure | None:
    """Peak resident memory of each contender's process."""
    peaks = {name: c["peak_mb"] for name, c in result["contenders"].items() if c.get("peak_mb")}
    if not peaks:
        return None
    order = sorted(peaks, key=lambda name: -peaks[name])
    figure, axes = _figure(6.4, 0.24 * len(order) + 0.9)
    _bars(axes, {name: peaks[name] for name in order}, "Peak resident memory of the process, MB")
    return figure


def cost(result: dict[str, Any]) -> Figure | None:
    """Milliseconds a text against texts a call: what a batch saves."""
    lines = {
        name: {int(count): ms / int(count) for count, ms in contender["cost_ms"].items()}
        for name, contender in result["contenders"].items()
        if contender.get("cost_ms")
    }
    if not lines:
        return None
    return _lines(lines, "short texts a call", "Milliseconds a text (lower is better)", factor=1.22)


def drift(result: dict[str, Any]) -> Figure | None:
    """How much the similarity of two texts moves from FP32 to INT8, against the similarity itself."""
    if "scatter" not in result:
        return None
    figure = Figure(figsize=(6.4, 3.3), layout="constrained")
    for axes, (name, (fp32, int8)) in zip(
        figure.subplots(1, len(result["scatter"]), squeeze=False)[0], result["scatter"].items(), strict=True
    ):
        moves = [new - old for old, new in zip(fp32, int8, strict=True)]
        axes.axhline(0, color="black", lw=0.6)
        axes.plot(fp32, moves, ".", color=MINE, ms=3, alpha=0.5)
        axes.set(
            xlabel="similarity in FP32", ylim=(-0.05, 0.05), title=f"Pairs of {name} texts: INT8 minus FP32"
        )
    return figure


PLOTS: dict[str, Plot] = {
    "latency": latency,
    "throughput": throughput,
    "cost": cost,
    "memory": memory,
    "drift": drift,
}


def draw(name: str, result: dict[str, Any]) -> Figure | None:
    """Draw one picture of PLOTS; None where the result has nothing for it."""
    with matplotlib.rc_context(STYLE):
        return PLOTS[name](result)


def svg(figure: Figure) -> str:
    """Return a figure as an SVG element to put into a page."""
    text = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
    return re.sub(r"^.*?(?=<svg)", "", text.getvalue(), flags=re.DOTALL)


def png(figure: Figure, path: Path, result: dict[str, Any]) -> None:
    """Write a figure with the digest of its data inside, by which a test knows that it is up to date."""
    with matplotlib.rc_context(STYLE):
        figure.savefig(path, dpi=150, metadata={DIGEST: digest(result)})


def digest(result: dict[str, Any]) -> str:
    """Hash a result: equal data, equal digest."""
    return hashlib.sha256(json.dumps(result, sort_keys=True).encode()).hexdigest()[:16]


def colour(name: str) -> str:
    """Ours, its FP32 baseline, and everybody else."""
    return {OURS: MINE, REFERENCE: BASE}.get(name, OTHER)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _lines(lines: dict[str, dict[int, float]], xlabel: str, title: str, factor: float) -> Figure:
    """One line a contender, both axes logarithmic, its name at its end; `factor` keeps the names apart."""
    figure, axes = _figure(6.4, 4.2)
    ends = sorted(((line[max(line)], name) for name, line in lines.items()), reverse=True)
    for (_, name), y in zip(ends, _apart([y for y, _ in ends], factor), strict=True):
        x, values = zip(*sorted(lines[name].items()), strict=True)
        strong = name in (OURS, REFERENCE)
        axes.plot(x, values, "o-", color=colour(name), ms=3, lw=2 if strong else 1, zorder=2 + strong)
        axes.annotate(
            name,
            (max(x), y),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=colour(name),
            fontsize=8,
            weight="bold" if name == OURS else "normal",
            annotation_clip=False,
        )
    ticks = sorted({tick for line in lines.values() for tick in line if tick & (tick - 1) == 0})
    axes.set(xscale="log", yscale="log", xlabel=xlabel, title=title)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    _plain(axes.yaxis)
    axes.grid(alpha=0.25, which="both")
    return figure


def _bars(axes: Axes, values: dict[str, float], title: str, *, best: dict[str, float] | None = None) -> None:
    """One bar a contender with its value at the end; `best` draws a line from the bar to a better value."""
    axes.barh(list(values), list(values.values()), color=[colour(name) for name in values], height=0.7)
    for y, (name, value) in enumerate(values.items()):
        end = best[name] if best else value
        axes.plot([value, end], [y, y], color="black", lw=0.8)
        axes.annotate(
            f"{value:.0f}", (end, y), xytext=(3, 0), textcoords="offset points", va="center", fontsize=7.5
        )
    axes.set_title(title)
    axes.margins(x=0.14)
    axes.tick_params(axis="y", length=0, labelsize=8)


def _rates(result: dict[str, Any], workload: str) -> dict[str, dict[str, float]]:
    return {
        name: contender["throughput"][workload]
        for name, contender in result["contenders"].items()
        if workload in contender.get("throughput", {})
    }


def _apart(values: list[float], factor: float) -> list[float]:
    """Move falling label positions down so that neighbours on a logarithmic axis do not overlap."""
    placed: list[float] = []
    for value in values:
        placed.append(min(value, placed[-1] / factor) if placed else value)
    return placed


def _plain(axis: Any) -> None:
    """Write 0.5 and 20 on a logarithmic axis, not 5x10^-1."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    axis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))

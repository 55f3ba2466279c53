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
    title = "One text, milliseconds p50 (lower is better)"
    return _lines(result, "latency_ms", lambda _, figures: figures["p50"], "tokens", title)


def throughput(result: dict[str, Any]) -> Figure | None:
    """Texts a second as bars, short and long: the median, with a line to the best round."""
    names = [name for name in ("short", "long") if name in result["workloads"] and _rates(result, name)]
    if not names:
        return None
    rows = max(len(_rates(result, name)) for name in names)
    figure = Figure(figsize=(4.2 * len(names) + 1, 0.24 * rows + 0.9), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        rates = dict(sorted(_rates(result, name).items(), key=lambda item: item[1]["median"]))
        facts = result["workloads"][name]
        _bars(
            axes,
            {contender: rate["median"] for contender, rate in rates.items()},
            f"{name} texts, {facts['mean_tokens']:.0f} tokens: texts/s",
            best={contender: rate["best"] for contender, rate in rates.items()},
        )
        same = [rate["best"] for contender, rate in rates.items() if _same_model(result, contender)]
        limit = 1.2 * max(same or [rate["best"] for rate in rates.values()])
        axes.set_xlim(0, limit)
        for y, rate in enumerate(rates.values()):
            if rate["best"] > limit:  # off the scale: its figure stands inside the bar
                axes.text(0.98 * limit, y, f"{rate['median']:.0f} →", ha="right", va="center", fontsize=7.5)
    return figure


def _same_model(result: dict[str, Any], contender: str) -> bool:
    """Whether its vectors are of this model: another one, a hundred times as fast, would dwarf every bar."""
    return all(result["contenders"][contender].get("cosine", {}).values())


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
    title = "Milliseconds a text (lower is better)"
    return _lines(result, "cost_ms", lambda count, ms: ms / count, "short texts a call", title)


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


def _lines(
    result: dict[str, Any], key: str, height: Callable[[int, Any], float], xlabel: str, title: str
) -> Figure | None:
    """One line a contender, both axes logarithmic, its name at its end; `height` reads points of `key`."""
    lines = {
        name: {int(x): height(int(x), found) for x, found in contender[key].items()}
        for name, contender in result["contenders"].items()
        if contender.get(key)
    }
    if not lines:
        return None
    figure, axes = _figure(7.5, max(4.2, 0.27 * len(lines) + 1))
    values = [value for line in lines.values() for value in line.values()]
    axes.set(
        xscale="log", yscale="log", xlabel=xlabel, title=title, ylim=(min(values) / 1.3, max(values) * 1.3)
    )
    ends = sorted(((line[max(line)], name) for name, line in lines.items()), reverse=True)
    factor = (max(values) / min(values)) ** (0.65 / max(len(ends), 12))
    for (end, name), y in zip(ends, _apart([end for end, _ in ends], factor), strict=True):
        x, heights = zip(*sorted(lines[name].items()), strict=True)
        strong = name in (OURS, REFERENCE)
        axes.plot(x, heights, "o-", color=colour(name), ms=3, lw=2 if strong else 1, zorder=2 + strong)
        axes.annotate(
            name,
            (max(x), end),
            xytext=(max(x) * 1.35, y),
            va="center",
            color=colour(name),
            fontsize=8,
            weight="bold" if name == OURS else "normal",
            arrowprops={
                "arrowstyle": "-",
                "lw": 0.5,
                "color": colour(name),
                "relpos": (0, 0.5),
                "shrinkA": 0,
            },
            annotation_clip=False,
        )
    ticks = sorted({tick for line in lines.values() for tick in line if tick & (tick - 1) == 0})
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
            f"{value:.0f}",
            (end, y),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=7.5,
            annotation_clip=True,
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
    """Spread falling label positions on a logarithmic axis: neighbours differ by the factor or more.

    They are moved down where they crowd, and then all up by half of what the last one was moved.
    """
    placed: list[float] = []
    for value in values:
        placed.append(min(value, placed[-1] / factor) if placed else value)
    up = (values[-1] / placed[-1]) ** 0.5
    return [value * up for value in placed]


def _plain(axis: Any) -> None:
    """Write 0.5 and 20 on a logarithmic axis, not 5x10^-1."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    axis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))

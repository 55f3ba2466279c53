"""Draws pictures of the rows. ov_minilm comes first and has its own colour."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from limit import MULTIPLICATIONS_ONLY, ONE_TEXT
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from matplotlib.transforms import Bbox, BboxBase
from servers import CLIENT_COUNTS

from ov_minilm.measure.render import Figures, number
from ov_minilm.measure.row import OURS, RATIO, Row, shipped_fingerprint

OUR_COLOUR, OTHER_COLOUR, TEXT_COLOUR, NOTE_COLOUR = "#0b6e5f", "#9aa4ad", "#1b2530", "#5d6975"
STYLE = {
    # this font comes with matplotlib, so pictures are the same on every machine
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "figure.facecolor": "white",  # pictures have a white background, also on dark pages
}
WIDTH, DPI = 8.0, 110  # width in inches and dots per inch: 880 pixels, which pages show at 800
# maximum number of other libraries in a bar chart, and of lines or points in a picture
MAX_LIBRARIES, MAX_POINTS = 4, 7
# Places of a label, the best one first: offset in typographic points, and alignment.
LABEL_PLACES = ((8, 4, "left"), (8, -13, "left"), (-8, 4, "right"), (-8, -13, "right"), (0, 16, "center"))
PANELS = {  # workload -> quantity and title
    "sentences": ("texts_per_s", "short sentences, texts/s"),
    "chunks": ("texts_per_s", "long chunks, texts/s"),
    "32 callers": ("texts_per_s", "32 callers, texts/s"),
    "query": ("p50_ms", "query, ms (less is better)"),
}
NAME_WIDTH = 22  # characters per line of a name


def draw_all(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Draw every picture that has rows, for the machine with the most rows.

    StaleRows: the rows were measured with another artefact than the one in the package.
    """
    if not rows:
        return []
    machines = [row.machine for row in rows]
    machine = max(sorted(set(machines)), key=machines.count)
    figures = Figures([row for row in rows if row.machine == machine], shipped_fingerprint())
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with matplotlib.rc_context(STYLE):
        for name, draw in PICTURES.items():
            if figure := draw(figures):
                figure.supxlabel(figures.conditions, fontsize=7.5, color=NOTE_COLOUR)
                written.append(folder / f"{name}.png")
                figure.savefig(written[-1], dpi=DPI, metadata={"Software": None})
    return written


def throughput(figures: Figures) -> Figure | None:
    """Draw speed by workload, of ov_minilm and the four fastest other libraries."""
    panels = {}
    for name, (quantity, title) in PANELS.items():
        if figures.find(name, OURS, quantity):
            shown = [OURS, *best_variants(figures, name, quantity)[:MAX_LIBRARIES]]
            panels[title] = {contender: (figures.value(name, contender, quantity), "") for contender in shown}
            for contender, (value, _) in panels[title].items():
                if row := figures.find(name, contender, RATIO):
                    ratio, direction = max(row.value, 1 / row.value), "slower" if row.value > 1 else "faster"
                    panels[title][contender] = (
                        value,
                        f" ({ratio:.1f}× {direction})" if ratio > 1.05 else " (as fast)",
                    )
    return _draw_bars(panels, 2.1)


def serving(figures: Figures) -> Figure | None:
    """Draw the time of a request against requests per second, with one point per number of clients."""
    workloads = [f"server, {clients} clients" for clients in CLIENT_COUNTS]
    lines = {}
    for server in {name for workload in workloads for name in figures.contenders(workload, "p50_ms")}:
        found = [workload for workload in workloads if figures.find(workload, server, "p50_ms")]
        points = ([figures.value(w, server, q) for q in ("texts_per_s", "p50_ms")] for w in found)
        lines[server] = [(x, y) for x, y in points]
    title = "Servers, median ms of a request: lower is better"
    xlabel = f"requests answered per second, from 1 to {CLIENT_COUNTS[-1]} clients: right is better"
    return _draw_curves(lines, title, xlabel)


def roofline(figures: Figures) -> Figure | None:
    """Draw operations per second for one text, by its length: ov_minilm, and the multiplications alone."""
    lines = {}
    for name in (MULTIPLICATIONS_ONLY, OURS):
        rows = [(n, figures.find(f"limit, one text of {n} tokens", name, "gflops")) for n in ONE_TEXT]
        lines[name] = [(float(n), row.value) for n, row in rows if row]
    title = "One text at a time, billions of operations per second, against INT8 multiplications alone"
    return _draw_curves(lines, title, "tokens of the text", ONE_TEXT)


def accuracy(figures: Figures) -> Figure | None:
    """Draw how far Spearman's correlation is from that of FP32, against speed."""
    title = "Accuracy, Spearman points above or below FP32 (STS benchmark): higher is better"
    return _draw_against_speed(figures, "accuracy", "spearman_change", title)


def memory(figures: Figures) -> Figure | None:
    """Draw the peak memory of a process against speed."""
    return _draw_against_speed(
        figures, "new process", "peak_mb", "Peak memory of a process, MB: lower is better"
    )


def limit(figures: Figures) -> Figure | None:
    """Draw the share of the INT8 limit that is reached, and the parts of the time of a batch."""
    rows = sorted((r for r in figures.rows.values() if r.quantity == "share"), key=lambda row: -row.value)
    titles = {"limit, ": "INT8 limit that lists reach", "parts of a batch, ": "Where a batch's time goes"}
    panels = {}
    for prefix, title in titles.items():
        panel_rows = [row for row in rows if row.workload.startswith(prefix)]
        panels[title] = {row.workload.removeprefix(prefix): (row.value, " %") for row in panel_rows}
    return _draw_bars(panels, 1.9, total=100) if all(panels.values()) else None


PICTURES = {picture.__name__: picture for picture in (throughput, serving, accuracy, memory, limit, roofline)}


def best_variants(figures: Figures, workload: str, quantity: str) -> list[str]:
    """Return the best variant of each library whose vectors are known to be the same, best first."""
    best: dict[str, str] = {}
    for name in figures.contenders(workload, quantity):
        compared = figures.find("accuracy", name, "cosine") is not None
        if compared and figures.same_vectors(name) and not name.startswith(OURS):
            best.setdefault(name.split()[0], name)
    return list(best.values())


def _draw_against_speed(figures: Figures, workload: str, quantity: str, title: str) -> Figure | None:
    """Draw one point per library (its fastest variant): sentences per second against a quantity."""
    points: dict[str, tuple[float, float]] = {}
    for name in (OURS, *best_variants(figures, "sentences", "texts_per_s")):
        if len(points) < MAX_POINTS and (row := figures.find(workload, name, quantity)):
            points[name] = figures.value("sentences", name, "texts_per_s"), row.value
    if len(points) < 2:
        return None
    figure, axes = _single_axes(3.4)
    for name, point in points.items():
        axes.plot(*point, "o", color=_colour(name), ms=9 if name == OURS else 6)
    axes.set(xlabel="sentences per second: right is faster", title=title)
    axes.margins(0.2)
    axes.set_xlim(0, None)
    if min(y for _, y in points.values()) > 0:
        axes.set_ylim(0, None)
    else:
        axes.axhline(0, color=TEXT_COLOUR, lw=0.6)
        axes.annotate(
            "as FP32", (0, 0), xytext=(4, 3), textcoords="offset points", fontsize=9, color=NOTE_COLOUR
        )
    _place_labels(axes, points)
    return figure


def _draw_curves(
    lines: dict[str, list[tuple[float, float]]], title: str, xlabel: str, ticks: Sequence[int] = ()
) -> Figure | None:
    """Draw curves on logarithmic axes, with names at their ends."""
    lines = {name: points for name, points in lines.items() if points}
    if OURS not in lines:
        return None
    figure, axes = _single_axes(3.5)
    for name, points in sorted(lines.items()):
        x, y = zip(*points, strict=True)
        axes.plot(x, y, "o-", color=_colour(name), lw=2 if name == OURS else 1.2, ms=4)
    axes.set(xscale="log", yscale="linear" if ticks else "log", xlabel=xlabel, title=title)
    # labels such as 0.5 instead of 5x10^-1
    for axis in (axes.xaxis,) if ticks else (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(base=10, subs=(1, 2, 3, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    axes.margins(0.18)
    if ticks:
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.set_ylim(0, None)
    _place_labels(axes, {name: points[-1] for name, points in lines.items()})
    return figure


def _single_axes(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def _colour(name: str) -> str:
    return OUR_COLOUR if name == OURS else OTHER_COLOUR


def _display_name(name: str) -> str:
    return name if name == OURS else name.replace("_", " ")


Panel = dict[str, tuple[float, str]]  # name of a bar -> value, and the text after the value


def _draw_bars(panels: dict[str, Panel], height: float, total: float | None = None) -> Figure | None:
    """Draw panels of bars, two side by side; `total` is their common maximum, if bars are shares."""
    lines = (len(panels) + 1) // 2
    if not lines:
        return None
    figure = Figure(figsize=(WIDTH, height * lines + 0.4), layout="constrained")
    axes_list = figure.subplots(lines, 2, squeeze=False).ravel()
    for axes, (title, bars) in zip(axes_list, panels.items(), strict=False):
        _draw_panel(axes, bars, total)
        axes.set_title(title)
    for axes in axes_list[len(panels) :]:
        axes.axis("off")
    return figure


def _draw_panel(axes: Axes, bars: Panel, total: float | None) -> None:
    """Draw one bar per value, with the value at its end, the first bar on top."""
    colours = [OUR_COLOUR if total or name == OURS else OTHER_COLOUR for name in bars]
    labels = [textwrap.fill(_display_name(name), NAME_WIDTH) for name in bars]
    drawn = axes.barh(labels, [value for value, _ in bars.values()], color=colours, height=0.7)
    texts = [f"{number(value)}{suffix}" for value, suffix in bars.values()]
    axes.bar_label(drawn, texts, padding=4, fontsize=9)
    axes.invert_yaxis()
    # space for the text at the end of the longest bar
    axes.set_xlim(0, total or 2 * max(value for value, _ in bars.values()))
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    if OURS in bars:
        axes.get_yticklabels()[0].set(color=OUR_COLOUR, weight="bold")


def _place_labels(axes: Axes, points: dict[str, tuple[float, float]]) -> None:
    """Write names beside their points, without overlapping points or other names."""
    axes.get_figure().draw_without_rendering()  # type: ignore[union-attr]  # computes the layout; axes always have a figure
    pixels = axes.transData.transform(list(points.values()))
    occupied: list[BboxBase] = [Bbox.from_bounds(x - 6, y - 6, 12, 12) for x, y in pixels]
    for name, point in points.items():
        for dx, dy, alignment in LABEL_PLACES:
            offset: dict[str, Any] = {"xytext": (dx, dy), "textcoords": "offset points"}
            text = axes.annotate(_display_name(name), point, fontsize=9, ha=alignment, **offset)
            text.set(
                color=OUR_COLOUR if name == OURS else TEXT_COLOUR, weight="bold" if name == OURS else "normal"
            )
            box = text.get_window_extent()
            inside = axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1
            if inside and not any(box.overlaps(other) for other in occupied):
                break
            text.remove()
        else:
            axes.add_artist(text)  # without a free place, the name overlaps others
        occupied.append(box)

"""Pictures of the rows: one question each, ours first and in one colour, labels beside what they name."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from limit import ONE_TEXT, PLAIN
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from matplotlib.transforms import Bbox, BboxBase

from ov_minilm.measure.render import Figures, number
from ov_minilm.measure.row import OURS, Row, shipped_fingerprint

MINE, OTHER, INK = "#0b6e5f", "#9aa4ad", "#1b2530"
STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same picture everywhere
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "figure.facecolor": "white",  # a card of its own on a dark page too
}
WIDTH, DPI = 8.0, 110  # inches; 880 pixels, shown at 800
RIVALS = 4
MOST = 7  # bars, lines or points
PLACES = (
    (8, 4, "left"),
    (8, -13, "left"),
    (-8, 4, "right"),
    (-8, -13, "right"),
    (0, 16, "center"),
)  # of labels
PANELS = {  # workload -> quantity and title
    "sentences": ("texts_per_s", "sentences: texts a second"),
    "chunks": ("texts_per_s", "chunks: texts a second"),
    "32 callers": ("texts_per_s", "32 callers: texts a second"),
    "query": ("p50_ms", "one query: ms (less: better)"),
}
NAME_WIDTH = 22  # characters of a line of a name


def draw_all(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Write every picture that there are rows for, of the machine with the most rows.

    Raises:
        StaleRows: rows of another artefact than the shipped one.
    """
    if not rows:
        return []
    machines = [row.machine for row in rows]
    most = max(sorted(set(machines)), key=machines.count)
    figures = Figures([row for row in rows if row.machine == most], shipped_fingerprint())
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with matplotlib.rc_context(STYLE):
        for name, draw in PICTURES.items():
            figure = draw(figures)
            if figure:
                figure.supxlabel(figures.conditions, fontsize=7.5, color="#5d6975")
                figure.savefig(folder / f"{name}.png", dpi=DPI, metadata={"Software": None})
                written.append(folder / f"{name}.png")
    return written


def throughput(figures: Figures) -> Figure | None:
    """Speed by workload, ours against the four best of the others."""
    panels = {name: panel for name, panel in PANELS.items() if figures.contenders(name, panel[0])}
    if not panels:
        return None
    lines = (len(panels) + 1) // 2
    figure = Figure(figsize=(WIDTH, 2.1 * lines + 0.4), layout="constrained")
    places = figure.subplots(lines, 2, squeeze=False).ravel()
    for axes, (name, (quantity, title)) in zip(places, panels.items(), strict=False):
        best = rivals(figures, name, quantity)[:RIVALS]
        _bars(axes, [_found(figures, name, one, quantity) for one in (OURS, *best)])
        axes.set_title(title)
    for axes in places[len(panels) :]:
        axes.axis("off")
    return figure


def serving(figures: Figures) -> Figure | None:
    """How long a request takes against how many are answered, as clients are added."""
    clients = sorted(
        {int(row.workload.split()[1]) for row in figures.rows.values() if row.workload.endswith(" clients")}
    )
    servers = figures.contenders(f"server, {clients[-1]} clients", "texts_per_s")[:MOST] if clients else []
    if not servers:
        return None
    figure, axes = _one(3.6)
    ends = {}
    for server in servers:
        points = [
            tuple(_found(figures, f"server, {n} clients", server, q).value for q in ("texts_per_s", "p50_ms"))
            for n in clients
            if figures.find(f"server, {n} clients", server, "p50_ms")
        ]
        x, y = zip(*points, strict=True)
        axes.plot(x, y, "o-", color=colour(server), lw=2 if server == OURS else 1.2, ms=4)
        ends[server] = (x[-1], y[-1])
    axes.set(xscale="log", yscale="log", xlabel="requests answered a second, one sentence each")
    axes.set_title(
        f"Milliseconds a request takes (median), 1 to {clients[-1]} clients: low and right is better"
    )
    _plain(axes)
    axes.margins(0.18)
    _labels(axes, ends)
    return figure


def accuracy(figures: Figures) -> Figure | None:
    """Points of Spearman's correlation gained or lost to FP32 against speed."""
    title = "Spearman points gained or lost to FP32 (STS benchmark): up is better"
    return _against_speed(figures, "accuracy", "spearman_change", title)


def memory(figures: Figures) -> Figure | None:
    """Peak memory of a process against its speed."""
    return _against_speed(figures, "new process", "peak_mb", "Peak memory of the process, MB: down is better")


def _against_speed(figures: Figures, workload: str, quantity: str, title: str) -> Figure | None:
    """One point a library, its fastest variant: sentences a second to the right, a quantity upwards."""
    names = [OURS, *rivals(figures, "sentences", "texts_per_s")]
    names = [name for name in names if figures.find(workload, name, quantity)][:MOST]
    if len(names) < 2:
        return None
    figure, axes = _one(3.4)
    points = {}
    for name in names:
        x = _found(figures, "sentences", name, "texts_per_s").value
        points[name] = x, _found(figures, workload, name, quantity).value
        axes.plot(*points[name], "o", color=colour(name), ms=9 if name == OURS else 6)
    axes.set(xlabel="sentences a second: right is faster", title=title)
    axes.margins(0.2)
    axes.set_xlim(0, None)
    if min(y for _, y in points.values()) > 0:
        axes.set_ylim(0, None)
    else:
        axes.axhline(0, color=INK, lw=0.6)
    _labels(axes, points)
    return figure


def limit(figures: Figures) -> Figure | None:
    """Which share of the INT8 limit is reached, and where a batch's time goes."""
    reached = [row for row in figures.rows.values() if row.workload.startswith("limit, ") and row.unit == "%"]
    where = [row for row in figures.rows.values() if row.workload.startswith("parts of a batch, ")]
    if not reached or not where:
        return None
    figure = Figure(figsize=(WIDTH, 2.3), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, rows, title in (
        (left, reached, "INT8 limit reached, %"),
        (right, sorted(where, key=lambda row: -row.value), "Time of a batch of chunks, %"),
    ):
        _bars(axes, rows, [row.workload.split(", ", 1)[1] for row in rows])
        axes.set_title(title)
        axes.set_xlim(0, 100)
    return figure


def roofline(figures: Figures) -> Figure | None:
    """Operations a second of one text, few tokens to many, ours and of the multiplications alone."""
    tokens = [n for n in ONE_TEXT if figures.find(f"limit, one text of {n} tokens", OURS, "gflops")]
    if not tokens:
        return None
    figure, axes = _one(3.2)
    ends: dict[str, tuple[float, float]] = {}
    for name, style in ((PLAIN, "o--"), (OURS, "o-")):
        y = [_found(figures, f"limit, one text of {n} tokens", name, "gflops").value for n in tokens]
        axes.plot(tokens, y, style, color=colour(name), lw=2 if name == OURS else 1.2, ms=4)
        ends[name] = (tokens[-1], y[-1])
    axes.set(
        xscale="log", yscale="log", xlabel="tokens of the text: few are bound by memory, many by arithmetic"
    )
    axes.set_title("Billions of INT8 operations a second, one text at a time: up is better")
    _plain(axes)
    axes.set_xticks(tokens, [str(n) for n in tokens])
    axes.margins(0.2)
    _labels(axes, ends)
    return figure


PICTURES = {
    "throughput": throughput,
    "serving": serving,
    "accuracy": accuracy,
    "memory": memory,
    "limit": limit,
    "roofline": roofline,
}


def rivals(figures: Figures, workload: str, quantity: str) -> list[str]:
    """List other libraries with the same vectors, the best first, one variant of each."""
    names = [n for n in figures.contenders(workload, quantity) if not n.startswith(OURS)]
    best: dict[str, str] = {}
    for name in names:
        if figures.same_vectors(name):
            best.setdefault(name.split()[0], name)
    return list(best.values())


def colour(name: str) -> str:
    """Ours, and everybody else."""
    return MINE if name == OURS else OTHER


def _line(name: str) -> str:
    return name if name == OURS else name.replace("_", " ")


def _shown(name: str) -> str:
    """Write a name in lines that leave room for its bar."""
    return name if name == OURS else textwrap.fill(_line(name), NAME_WIDTH)


def _found(figures: Figures, workload: str, contender: str, quantity: str) -> Row:
    row = figures.find(workload, contender, quantity)
    if row is None:
        raise ValueError(f"no row {workload}/{contender}/{quantity}")
    return row


def _one(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def _bars(axes: Axes, rows: Sequence[Row], names: Sequence[str] | None = None) -> None:
    """One bar a row with its value at the end, the first on top."""
    labels = list(names or [_shown(row.contender) for row in rows])
    axes.barh(labels, [row.value for row in rows], color=[colour(row.contender) for row in rows], height=0.7)
    for y, row in enumerate(rows):
        text = number(row.value)
        axes.annotate(
            text, (row.value, y), xytext=(4, 0), textcoords="offset points", va="center", fontsize=9
        )
    axes.invert_yaxis()
    axes.margins(x=0.18)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    for label in axes.get_yticklabels():
        if label.get_text() == OURS:
            label.set(color=MINE, weight="bold")


def _labels(axes: Axes, points: dict[str, tuple[float, float]]) -> None:
    """Write names beside their points, each where no other name and no point is."""
    axes.get_figure().draw_without_rendering()  # type: ignore[union-attr]  # axes have one; ends the layout
    pixels = axes.transData.transform(list(points.values()))
    taken: list[BboxBase] = [Bbox.from_bounds(x - 6, y - 6, 12, 12) for x, y in pixels]
    for name, point in points.items():
        for dx, dy, side in PLACES:
            text = axes.annotate(
                _line(name), point, xytext=(dx, dy), textcoords="offset points", fontsize=9, ha=side
            )
            text.set(color=MINE if name == OURS else INK, weight="bold" if name == OURS else "normal")
            box = text.get_window_extent()
            inside = axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1
            if inside and not any(box.overlaps(other) for other in taken):
                break
            text.remove()
        else:
            axes.add_artist(text)  # crowded everywhere: better over another than not at all
        taken.append(box)


def _plain(axes: Axes) -> None:
    """Write 0.5 and 20 on logarithmic axes, not 5x10^-1."""
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())

"""Renders rows as tables for the terminal, Markdown and HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ov_minilm.measure.row import LOWER_IS_BETTER, OURS, RATIO, UNITS, Row, refuse_stale

PAGE = Path(__file__).with_name("page.html")
MIN_COSINE = 0.99  # mean cosine of a contender's vectors to FP32; below it no ratio of speeds is shown
AHEAD = "▲"
OTHER_VECTORS, NOT_COMPARED = "†", "‡"  # marks beside the names of contenders

Column = tuple[str, str]  # workload, quantity


@dataclass(frozen=True, slots=True)
class Table:
    """A table of text; its first column names the contender."""

    title: str
    header: list[str]
    cells: list[list[str]]
    notes: list[str] = field(default_factory=list)


class Figures:
    """Rows of one machine and one artefact, indexed by `Row.what`."""

    def __init__(self, rows: Sequence[Row], artefact: str) -> None:
        """Index rows.

        Raises:
            StaleRows: a row is of another artefact.
            ValueError: there are no rows, or rows of several machines.
        """
        refuse_stale(rows, artefact)
        self.machines = sorted({row.machine for row in rows})
        if len(self.machines) != 1:
            raise ValueError(f"rows of {len(self.machines)} machines: {'; '.join(self.machines)}")
        self.rows = {row.what: row for row in rows}
        self.taken = max(row.taken for row in rows)
        self.artefact = artefact

    def find(self, workload: str, contender: str, quantity: str) -> Row | None:
        """Return a row, or None if it was not measured."""
        return self.rows.get(f"{workload}/{contender}/{quantity}")

    def value(self, workload: str, contender: str, quantity: str) -> float:
        """Return a figure. KeyError: the figure was not measured."""
        return self.rows[f"{workload}/{contender}/{quantity}"].value

    def contenders(self, workload: str, quantity: str) -> list[str]:
        """Return the contenders with a row of this quantity: ov_minilm first, then from best to worst."""
        rows = [r for r in self.rows.values() if (r.workload, r.quantity) == (workload, quantity)]
        lower = UNITS[quantity] in LOWER_IS_BETTER
        rows.sort(key=lambda row: (row.contender != OURS, row.value if lower else -row.value))
        return [row.contender for row in rows]

    def same_vectors(self, contender: str) -> bool:
        """Return False if a contender's vectors are known to differ from the vectors of the model."""
        return self._mark(contender) != OTHER_VECTORS

    def _mark(self, contender: str) -> str:
        cosine = self.find("accuracy", contender, "cosine")
        if cosine is None:
            return "" if contender.startswith(OURS) else NOT_COMPARED
        return "" if cosine.value >= MIN_COSINE else OTHER_VECTORS

    @property
    def conditions(self) -> str:
        """Machine, artefact and date, as text: the note under every table and picture."""
        return f"{self.machines[0]}; artefact {self.artefact}; {self.taken}"

    def table(self, title: str, columns: Sequence[Column], contenders: Sequence[str] | None = None) -> Table:
        """Return a table with contenders in rows, figures in columns, and ratios to ov_minilm in brackets."""
        columns = [column for column in columns if self.contenders(*column)]
        names = list(contenders or ())
        for column in columns if contenders is None else ():
            names += [name for name in self.contenders(*column) if name not in names]
        first = dict(reversed(columns))  # workload -> its first quantity, which the ratio compares
        cells = []
        for name in names:
            line = (self._cell(w, name, quantity, with_ratio=first[w] == quantity) for w, quantity in columns)
            cells.append([f"{name} {self._mark(name)}".strip(), *line])
        text = " ".join(cell for line in cells for cell in line)
        marks = {
            "×)": "(n×): how many times better ov_minilm is, median of the rounds' ratios",
            AHEAD: f"{AHEAD} ahead of ov_minilm",
            OTHER_VECTORS: f"† its vectors are not those of the model (cosine under {MIN_COSINE})",
            NOT_COMPARED: "‡ its vectors were not compared with those of the model",
        }
        notes = [self.conditions, *(note for mark, note in marks.items() if mark in text)]
        return Table(title, ["", *(_heading(*column) for column in columns)], cells, notes)

    def _cell(self, workload: str, contender: str, quantity: str, *, with_ratio: bool) -> str:
        row = self.find(workload, contender, quantity)
        if row is None:
            return ""
        ratio = self.find(workload, contender, RATIO) if with_ratio else None
        if ratio is None or not self.same_vectors(contender):
            return number(row.value)
        return f"{number(row.value)} ({ratio.value:.2f}×){f' {AHEAD}' if ratio.high < 1 else ''}"


def _heading(workload: str, quantity: str) -> str:
    percentile = f"{quantity[:3]} " if quantity.endswith("_ms") else ""
    return f"{workload}, {percentile}{UNITS[quantity]}"


def number(value: float) -> str:
    """Format a number with three significant digits; from 100 on as an integer with commas."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def markdown(table: Table) -> str:
    """Return a table as Markdown, followed by its notes."""
    lines = [f"| {' | '.join(table.header)} |", "| --- |" + " ---: |" * (len(table.header) - 1)]
    for line in table.cells:
        bold = [f"**{cell}**" if cell else "" for cell in line] if line[0] == OURS else line
        lines.append("| " + " | ".join(bold) + " |")
    return "\n".join(lines) + "\n\n" + ". ".join(table.notes) + ".\n"


def terminal(table: Table) -> None:
    """Print a table."""
    from rich.console import Console
    from rich.table import Table as Grid

    console = Console()
    grid = Grid(title=table.title, title_justify="left", title_style="bold")
    for place, name in enumerate(table.header):
        grid.add_column(name, justify="right" if place else "left")
    for line in table.cells:
        grid.add_row(*line, style="bold" if line[0] == OURS else None)
    console.print(grid)
    for note in table.notes:
        console.print(note, style="dim", markup=False, highlight=False)


def page(title: str, sentences: Sequence[str], tables: Sequence[Table]) -> str:
    """Return an HTML page that needs no network."""
    from jinja2 import Environment, StrictUndefined

    jinja = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = jinja.from_string(PAGE.read_text("utf-8"))
    return template.render(title=title, sentences=sentences, tables=tables, ours=OURS)

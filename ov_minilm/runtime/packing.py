"""Packs texts of any length into batches of a few fixed shapes; several short texts share one row.

Placement is best-fit decreasing: longest text first, each into the fullest row that has room for it
(Johnson et al., "Worst-case performance bounds for simple one-dimensional packing algorithms", 1974).
A padded batch is a packed batch with one text per row, so one kind of batch is enough.

Rows wait in a pool until a batch takes them, and later texts may still fill their gaps. The next batch always
takes the oldest row, so no text waits forever. A batch runs in the narrowest grid that holds its rows.

Texts start at multiples of a lane's `align`: BF16 kernels add neighbouring cells in groups, and a text has
the same bits everywhere only if its tokens always fall into the same groups. FP32 needs no alignment (1).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np

from ov_minilm.spec import LONG_TEXT_TOKENS, SMALL_BATCH_TOKENS, WIDE_ROW, Grid, IntArray, Lane

# minimum share of a grid's rows that must be used; below it a grid of fewer rows is faster (8x64 takes 17.5
# ms, 2x64 takes 5.3 ms)
MIN_FILL = 0.75
# minimum share of used cells in a grid of two rows, which all threads run together: 10 texts in two
# half-empty rows take 9.0 ms, 7 texts in one full row take 4.4 ms
MIN_SMALL_FILL = 0.9

_free = attrgetter("free")


class Text(NamedTuple):
    """One text to be packed."""

    ids: IntArray  # [T]
    owner: Any = None  # the call that receives the vector; packing does not use it
    number: int = 0  # index among the owner's texts


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """The input of a compiled grid for one run.

    Segment 0 is padding; segment s belongs to slot s - 1 of its row.
    """

    grid: Grid
    inputs: IntArray  # [3, R, W] token ids; positions, counted from each text's own start; segments, 0..S
    texts: list[Text]  # N texts
    rows: list[int]  # row of each of the N texts
    slots: list[int]  # slot of each of the N texts in its row


@dataclass(eq=False, slots=True)
class Row:
    """One row being filled: its texts in slot order, and the cells still free."""

    lane: Lane
    capacity: int
    free: int
    texts: list[Text] = field(default_factory=list)

    @property
    def used(self) -> int:
        """Number of cells that texts occupy."""
        return self.capacity - self.free


def aligned(tokens: int, align: int) -> int:
    """Round the tokens of a text up to whole groups of `align` cells."""
    return -(-tokens // align) * align


def fill(grid: Grid, rows: Sequence[Sequence[Text]], align: int = 1) -> Batch:
    """Return the batch that holds these rows of texts."""
    batch = Batch(grid, np.zeros((3, grid.rows, grid.width), np.int32), [], [], [])
    ids, positions, segments = batch.inputs
    for r, row in enumerate(rows):
        start = 0
        for slot, text in enumerate(row):
            tokens = len(text.ids)
            cells = r, slice(start, start + tokens)
            ids[cells], positions[cells], segments[cells] = text.ids, np.arange(tokens), slot + 1
            batch.texts.append(text)
            batch.rows.append(r)
            batch.slots.append(slot)
            start += aligned(tokens, align)
    return batch


class Pool:
    """Waiting texts, placed into rows; batches take the oldest row first."""

    def __init__(self, lanes: Sequence[Lane]) -> None:
        """Use one lane for all texts; or two, the second one for texts over LONG_TEXT_TOKENS."""
        self._lanes = lanes
        self._rows: dict[Row, None] = {}  # oldest first
        # rows with free cells, sorted by the number of free cells
        self._open: dict[Lane, list[Row]] = {lane: [] for lane in lanes}
        self.cells = 0  # number of cells that texts occupy

    @property
    def texts(self) -> list[Text]:
        """All texts."""
        return [text for row in self._rows for text in row.texts]

    def add(self, texts: Iterable[Text]) -> None:
        """Place texts; texts of equal length keep their order, so that equal input gives equal rows."""
        for text in sorted(texts, key=lambda text: -len(text.ids)):
            lane = self._lanes[-1 if len(text.ids) > LONG_TEXT_TOKENS else 0]
            needed = aligned(len(text.ids), lane.align)
            open_rows = self._open[lane]
            place = bisect_left(open_rows, needed, key=_free)
            if place < len(open_rows):
                row = open_rows.pop(place)
            else:
                capacity = _capacity(lane, needed)
                row = Row(lane, capacity, capacity)
                self._rows[row] = None
            row.texts.append(text)
            row.free -= needed
            self.cells += needed
            if row.free and len(row.texts) < lane.grids[0].slots:
                insort(open_rows, row, key=_free)

    def take(self, *, streams: int = 1, compiled: Collection[Grid] | None = None) -> Batch | None:
        """Return a batch with the oldest row and other rows that fit the same grid; None if there is no row.

        Args:
            streams: number of idle streams, which share the rows. A grid is used if each stream can fill it.
            compiled: grids that are compiled. If given, rows that do not fill a batch run in a compiled grid,
                so that no grid has to be compiled for them.
        """
        if not self._rows:
            return None
        first = next(iter(self._rows))
        lane = first.lane
        width = next(width for width in lane.row_widths if width >= first.used)
        rows = [r for r in self._rows if r.lane is lane and r.capacity == first.capacity and r.used <= width]
        # the fullest rows leave the fewest cells empty
        rows.sort(key=lambda row: (row is not first, -row.used))
        grid = _choose_grid(rows, width, streams, compiled)
        rows = rows[: grid.rows]
        for row in rows:
            del self._rows[row]
            self.cells -= row.used
            if row in self._open[lane]:
                self._open[lane].remove(row)
        return fill(grid, [row.texts for row in rows], lane.align)


def _capacity(lane: Lane, needed: int) -> int:
    """Return the capacity, in cells, of a new row for a text that needs `needed` cells."""
    widths = lane.row_widths
    if needed > widths[-1]:
        raise ValueError(f"a text has {needed} tokens; the widest row holds {widths[-1]}")
    choices = (LONG_TEXT_TOKENS, WIDE_ROW, widths[-1])
    return next(width for width in choices if width >= needed and width in widths)


def _choose_grid(rows: Sequence[Row], width: int, streams: int, compiled: Collection[Grid] | None) -> Grid:
    """Return the grid in which the first of these rows runs, together with others of the same width.

    Among the grids that each stream can fill to MIN_FILL with its share of the rows, this is the one with the
    most rows. If there are too few rows for any of these, a small grid is used, which all threads run
    together: two short rows if both are full, otherwise one row. If `compiled` is given, a compiled grid is
    used instead of a small one that is not compiled.
    """
    full = sum(row.used for row in rows[:2]) >= MIN_SMALL_FILL * SMALL_BATCH_TOKENS
    fitting = [grid for grid in rows[0].lane.grids if grid.width >= rows[0].used]
    fitting.sort(key=lambda grid: (-grid.rows, grid.width))
    for grid in fitting:
        if grid.width == width and not grid.uses_all_threads and len(rows) >= MIN_FILL * grid.rows * streams:
            return grid
    small = next(g for g in fitting if g.rows == 1 or (g.uses_all_threads and g.width == width and full))
    ready = [grid for grid in fitting if compiled is not None and grid in compiled]
    return small if small in ready else min(ready, key=lambda grid: grid.cells, default=small)

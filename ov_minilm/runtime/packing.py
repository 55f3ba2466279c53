"""Texts of any length become batches of a few fixed shapes: several short texts share one row.

Placement is best-fit decreasing: longest first, each into the fullest row that still holds it
(Johnson et al., "Worst-case performance bounds for simple one-dimensional packing algorithms", 1974).
A padded bucket is only a row with one text, so there is one kind of batch and one way back.

Rows stay in a pool until a batch takes them, and later texts still find their gaps. A batch is any rows of
one width: those of a caller in a hurry go first, and full rows of others make up the number.

`align` is the multiple of cells at which texts start. It is 1 for FP32, whose kernels add a row's terms one
by one, so that zeros before a text change nothing. BF16 kernels add them in groups; a text has the same bits
everywhere only if its tokens always fall into the same groups.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ov_minilm.spec import LONG, Grid, IntArray

PATIENCE = 32  # batches that may pass a row over for lack of others to make a whole one with it
HURRY = 4  # the same, for a row with an urgent text


@dataclass(frozen=True, slots=True)
class Batch:
    """One input of a compiled grid. Segment 0 is padding; segment s belongs to slot s - 1 of its row."""

    grid: Grid
    ids: IntArray  # [R, W]
    positions: IntArray  # [R, W] counted from each text's own start
    segments: IntArray  # [R, W] 0..S
    owner: IntArray  # [R, S] which text a slot holds; -1 = empty

    @property
    def used(self) -> int:
        """Cells that hold a token."""
        return int(np.count_nonzero(self.segments))

    @property
    def names(self) -> list[int]:
        """What `owner` calls the texts, row by row."""
        names: list[int] = self.owner[self.owner >= 0].tolist()
        return names

    @property
    def texts(self) -> int:
        """Slots that hold a text."""
        return int(np.count_nonzero(self.owner >= 0))


@dataclass(slots=True, eq=False)
class Row:
    """One row being filled: the texts in it, in slot order, and the cells still free."""

    grid: Grid
    free: int
    since: int = 0  # batches that had been taken when it was opened, or became urgent
    urgent: bool = False
    texts: list[int] = field(default_factory=list)

    @property
    def used(self) -> int:
        """Cells that texts take."""
        return self.grid.width - self.free

    @property
    def open(self) -> bool:
        """Whether a text may still come."""
        return self.free > 0 and len(self.texts) < self.grid.slots


def narrowest(grids: Sequence[Grid], tokens: int) -> Grid:
    """Return the grid with the least width that holds a text of this many tokens in one row."""
    fitting = [grid for grid in grids if grid.width >= tokens]
    if not fitting:
        raise ValueError(f"{tokens} tokens; the widest row holds {max(grid.width for grid in grids)}")
    return min(fitting, key=lambda grid: grid.width)


def cells(tokens: int, align: int) -> int:
    """Return the cells that a text takes where every text starts at a multiple of `align`."""
    return -(-tokens // align) * align


def fill(grid: Grid, rows: Sequence[Row], ids: Mapping[int, IntArray], *, align: int = 1) -> Batch:
    """Write rows of texts into the arrays of one batch; `owner` calls each text what `ids` does."""
    shape = (grid.rows, grid.width)
    batch = Batch(
        grid,
        ids=np.zeros(shape, np.int32),
        positions=np.zeros(shape, np.int32),
        segments=np.zeros(shape, np.int32),
        owner=np.full((grid.rows, grid.slots), -1, np.int32),
    )
    for r, row in enumerate(rows):
        start = 0
        for slot, text in enumerate(row.texts):
            end = start + len(ids[text])
            batch.ids[r, start:end] = ids[text]
            batch.positions[r, start:end] = np.arange(end - start)
            batch.segments[r, start:end] = slot + 1
            batch.owner[r, slot] = text
            start = cells(end, align)
    return batch


class Lane:
    """The rows of grids whose texts may share rows, oldest first, and where each still has room.

    Open rows by free cells, with a bit per non-empty list, make the search for the fullest fitting row one
    shift instead of a scan.
    """

    def __init__(self, grids: Sequence[Grid], align: int) -> None:
        self.align = align
        self.single = [grid for grid in grids if grid.rows == 1]
        several = sorted((grid for grid in grids if grid.rows > 1), key=lambda grid: grid.rows)
        reach = max((grid.width for grid in several), default=0)
        # Beyond that, lone rows: an NPU has only these.
        self._grids = several + [grid for grid in self.single if grid.width > reach]
        self.wide = list({grid.width: grid for grid in self._grids}.values())  # of each width the tallest
        self.rows: dict[Grid, list[Row]] = {grid: [] for grid in self.wide}
        self._open: list[list[Row]] = [[] for _ in range(max((grid.width for grid in grids), default=0) + 1)]
        self._holes = 0  # bit f set: some open row has f free cells

    def put(self, text: int, tokens: int, now: int) -> Row:
        """Put a text into the fullest row that holds it, else into a new one of the narrowest grid."""
        needed = cells(tokens, self.align)
        fits = self._holes >> needed
        if fits:
            row = self._open[needed + (fits & -fits).bit_length() - 1][0]
            self._close(row)
        else:
            grid = narrowest(self.wide, tokens)
            row = Row(grid, grid.width, now)
            self.rows[grid].append(row)
        row.texts.append(text)
        row.free -= needed
        if row.open:
            self._open[row.free].append(row)
            self._holes |= 1 << row.free
        return row

    def take(self, rows: Sequence[Row]) -> None:
        """Remove rows: they are full, whatever they hold."""
        for row in rows:
            self.rows[row.grid].remove(row)
            if row.open:
                self._close(row)

    def grid_for(self, width: int, rows: int, streams: int, alone: bool) -> Grid | None:
        """Return the tallest grid of a width that a stream's share of the rows fills to three quarters.

        Where a share is less, it is the lowest that all rows fill so, if more than one stream is busy then.
        None: they had better run one by one, on all threads.
        """
        grids = [grid for grid in self._grids if grid.width == width]
        filled = [grid for grid in grids if 4 * rows >= 3 * grid.rows]
        if not filled:
            return None if self.single else grids[0]
        share = -(-rows // streams)
        one_busy = alone and bool(self.single) and rows <= filled[0].rows
        lowest = None if one_busy else filled[0]
        return next((grid for grid in reversed(filled) if 4 * share >= 3 * grid.rows), lowest)

    @property
    def all(self) -> list[Row]:
        """Every row."""
        return [row for rows in self.rows.values() for row in rows]

    def merged(self) -> Row | None:
        """Return all texts as one row if there is a grid of one row that holds them."""
        texts = [text for row in self.all for text in row.texts]
        used = sum(row.used for row in self.all)
        fitting = [grid for grid in self.single if grid.width >= used and grid.slots >= len(texts)]
        if not fitting:
            return None
        grid = narrowest(fitting, used)
        return Row(grid, grid.width - used, texts=texts)

    def _close(self, row: Row) -> None:
        self._open[row.free].remove(row)
        if not self._open[row.free]:
            self._holes ^= 1 << row.free


class Pool:
    """Texts in rows, until batches take them. A text has a number, which `owner` of its batch tells."""

    def __init__(self, grids: Sequence[Grid], *, align: int = 1, long_align: int | None = None) -> None:
        """With `long_align`, texts of more than LONG tokens have rows, and an alignment, of their own.

        For widths that run in another precision: which one a text gets must not depend on who is with it.
        """
        self._apart = long_align is not None
        if long_align is None:
            self._lanes = [Lane(grids, align)]
        else:
            self._lanes = [
                Lane([grid for grid in grids if grid.width <= LONG], align),
                Lane([grid for grid in grids if grid.width > LONG], long_align),
            ]
        self._ids: dict[int, IntArray] = {}
        self._taken = 0  # batches
        self.cells = 0  # that texts take
        self.urgent = 0  # of these, in rows with an urgent text

    def __len__(self) -> int:
        """Count the texts that are here."""
        return len(self._ids)

    @property
    def fullness(self) -> float:
        """How full the fullest batch would be: rows there are to rows it has, 1 and more is whole."""
        return max(len(rows) / grid.rows for lane in self._lanes for grid, rows in lane.rows.items())

    def add(self, ids: Mapping[int, IntArray], *, urgent: bool = False) -> None:
        """Place texts, by number; ties of length go by number, so that equal input gives equal rows."""
        for text in sorted(ids, key=lambda text: (-len(ids[text]), text)):
            tokens = len(ids[text])
            if tokens < 1:
                raise ValueError(f"text {text} has {tokens} tokens; a row holds 1 or more")
            lane = self._lanes[self._apart and tokens > LONG]
            row = lane.put(text, tokens, self._taken)
            taken = cells(tokens, lane.align)
            self.cells += taken
            if row.urgent:
                self.urgent += taken
            elif urgent:
                row.urgent, row.since = True, self._taken
                self.urgent += row.used
        self._ids.update(ids)

    def take(self, *, streams: int = 1, in_turn: bool = False) -> Batch | None:
        """Return a whole batch, or one with a row that was passed over too often; None: there is neither.

        The oldest rows go first; before them, unless it is their turn, the urgent ones and those passed over.
        With more than one idle stream, the last rows are no whole batch if parts keep more streams busy.
        """
        if streams > 1 and self.fullness <= streams / 2:
            return None
        ready = [
            (lane, grid)
            for lane in self._lanes
            for grid, rows in lane.rows.items()
            if len(rows) >= grid.rows or any(map(self._overdue, rows))
        ]
        return self._take(ready, 1, in_turn, alone=False)

    def take_rest(self, *, streams: int = 1, in_turn: bool = False, alone: bool = True) -> Batch | None:
        """Return a batch of what there is, for idle streams to share; None: there is nothing.

        Alone, texts that fit one row run as one, on all threads; beside other batches these would be in each
        other's way. Rows that do not fill a batch well run one by one, because all threads then work on each.
        """
        ready = [(lane, grid) for lane in self._lanes for grid, rows in lane.rows.items() if rows]
        return self._take(ready, streams, in_turn, alone)

    def take_all(self, *, streams: int = 1) -> Iterator[Batch]:
        """Yield batches until nothing is left; with more than one stream, the last are shared out."""
        alone = True
        while batch := self.take(streams=streams) or self.take_rest(streams=streams, alone=alone):
            yield batch
            alone = False

    def _overdue(self, row: Row) -> bool:
        return self._taken - row.since >= (HURRY if row.urgent else PATIENCE)

    def _take(
        self, ready: Sequence[tuple[Lane, Grid]], streams: int, in_turn: bool, alone: bool
    ) -> Batch | None:
        if not ready:
            return None

        def order(row: Row) -> tuple[bool, int]:
            return (not (in_turn or row.urgent or self._overdue(row)), row.since)

        lane, grid = min(ready, key=lambda at: min(map(order, at[0].rows[at[1]])))
        rows = lane.rows[grid]
        one = lane.merged() if alone and len(rows) < grid.rows else None
        if one is not None:
            taken, rows, grid = lane.all, [one], one.grid
        else:
            found = lane.grid_for(grid.width, len(rows), streams, alone)
            taken = rows = sorted(rows, key=order)[: found.rows if found else 1]
            grid = found or narrowest(lane.single, rows[0].used)
        batch = fill(grid, rows, self._ids, align=lane.align)
        lane.take(taken)
        for row in taken:
            self.cells -= row.used
            self.urgent -= row.used if row.urgent else 0
            for text in row.texts:
                del self._ids[text]
        self._taken += 1
        return batch

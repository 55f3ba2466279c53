"""Texts of any length become batches of a few fixed shapes: several short texts share one row.

Placement is best-fit decreasing: longest first, each into the fullest row that still holds it
(Johnson et al., "Worst-case performance bounds for simple one-dimensional packing algorithms", 1974).
A padded bucket is only a row with one text, so there is one kind of batch and one way back.

`align` is the multiple of cells at which texts start. It is 1 for FP32, whose kernels add a row's terms one
by one, so that zeros before a text change nothing. BF16 kernels add them in groups; a text has the same bits
everywhere only if its tokens always fall into the same groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from ov_minilm.spec import LONG, Grid, IntArray


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


@dataclass(slots=True)
class Row:
    """One row being filled: the texts in it, in slot order, and the cells still free."""

    grid: Grid
    free: int
    texts: list[int] = field(default_factory=list)


def narrowest(grids: Sequence[Grid], tokens: int) -> Grid:
    """Return the grid with the least width that holds a text of this many tokens in one row."""
    fitting = [grid for grid in grids if grid.width >= tokens]
    if not fitting:
        raise ValueError(f"{tokens} tokens; the widest row holds {max(grid.width for grid in grids)}")
    return min(fitting, key=lambda grid: grid.width)


def cells(tokens: int, align: int) -> int:
    """Return the cells that a text takes where every text starts at a multiple of `align`."""
    return -(-tokens // align) * align


def place(lengths: Sequence[int], grids: Sequence[Grid], *, align: int = 1) -> list[Row]:
    """Put every text into a row; a row opens in the narrowest grid that holds the text it is opened for.

    Ties go by index, so equal input gives equal rows. Rows by free cells, with a bit per non-empty list,
    make the search for the fullest fitting row one shift instead of a scan.
    """
    rows: list[Row] = []
    open_rows: list[list[Row]] = [[] for _ in range(max(grid.width for grid in grids) + 1)]
    holes = 0  # bit f set: some open row has f free cells
    for text in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if lengths[text] < 1:
            raise ValueError(f"text {text} has {lengths[text]} tokens; a row holds 1 or more")
        needed = cells(lengths[text], align)
        fits = holes >> needed
        if fits:
            free = needed + (fits & -fits).bit_length() - 1
            row = open_rows[free].pop()
            if not open_rows[free]:
                holes ^= 1 << free
        else:
            grid = narrowest(grids, lengths[text])
            row = Row(grid, grid.width)
            rows.append(row)
        row.texts.append(text)
        row.free -= needed
        if row.free and len(row.texts) < row.grid.slots:
            open_rows[row.free].append(row)
            holes |= 1 << row.free
    return rows


def fill(
    grid: Grid, rows: Sequence[Row], ids: Sequence[IntArray], names: Sequence[int], *, align: int = 1
) -> Batch:
    """Write rows of texts into the arrays of one batch; `names[i]` is what `owner` calls text i."""
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
            batch.owner[r, slot] = names[text]
            start = cells(end, align)
    return batch


def pack_apart(
    ids: Sequence[IntArray],
    names: Sequence[int],
    grids: Sequence[Grid],
    *,
    last: bool,
    align: int = 1,
    long_align: int = 1,
) -> tuple[list[Batch], list[int]]:
    """Pack as `pack` does, with texts of more than LONG tokens in rows, and with an alignment, of their own.

    For widths that run in another precision: which one a text gets must not depend on who is with it.
    """
    batches: list[Batch] = []
    left: list[int] = []
    for long in (False, True):
        mine = [i for i, text in enumerate(ids) if (len(text) > LONG) == long]
        theirs = [grid for grid in grids if (grid.width > LONG) == long]
        found, rest = pack(
            [ids[i] for i in mine],
            [names[i] for i in mine],
            theirs,
            last=last,
            align=long_align if long else align,
        )
        batches += found
        left += [mine[i] for i in rest]
    return batches, left


def pack(
    ids: Sequence[IntArray], names: Sequence[int], grids: Sequence[Grid], *, last: bool, align: int = 1
) -> tuple[list[Batch], list[int]]:
    """Cut texts into full batches; return them and the indices of the texts that fill none yet.

    With `last` nothing is left over: what fits one row runs as a single row, and so do the last few rows
    of a width when they are at most half a batch, because all threads then work on each.
    """
    if not ids:
        return [], []
    write = partial(fill, ids=ids, names=names, align=align)
    wide = [grid for grid in grids if grid.rows > 1]
    single = [grid for grid in grids if grid.rows == 1]
    lengths = [len(text) for text in ids]
    total = sum(cells(length, align) for length in lengths)
    if last and ids and min(lengths) > 0 and total <= max(grid.width for grid in single):
        grid = narrowest(single, total)
        if len(ids) <= grid.slots:
            return [write(grid, [Row(grid, 0, list(range(len(ids))))])], []

    batches: list[Batch] = []
    left: list[int] = []
    rows = sorted(
        place(lengths, wide, align=align), key=lambda row: min(row.texts)
    )  # what came first is not left
    for grid in wide:
        mine = [row for row in rows if row.grid == grid]
        whole = len(mine) - len(mine) % grid.rows
        batches += [write(grid, mine[k : k + grid.rows]) for k in range(0, whole, grid.rows)]
        rest = mine[whole:]
        if not last:
            left += [text for row in rest for text in row.texts]
        elif len(rest) > grid.rows // 2:
            batches.append(write(grid, rest))
        else:
            for row in rest:
                batches.append(write(narrowest(single, row.grid.width - row.free), [row]))
    return batches, left

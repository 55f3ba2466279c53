"""Placing, filling and cutting into batches: no text is lost, doubled, torn or mixed with another."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from fakes import FakeEngine
from hypothesis import given, settings
from hypothesis import strategies as st

from ov_minilm.packing import Batch, Row, cells, fill, narrowest, pack, pack_apart, place
from ov_minilm.spec import GRIDS, LONG, FloatArray, Grid, IntArray, grids

WIDE = [grid for grid in GRIDS if grid.rows > 1]
SINGLE = [grid for grid in GRIDS if grid.rows == 1]
FEW_SLOTS = tuple(Grid(grid.rows, grid.width, 3) for grid in GRIDS)  # slots run out before cells do

many = settings(max_examples=300, deadline=None)  # no deadline: a busy machine is not a bug
lengths_of_texts = st.lists(st.integers(1, 256) | st.integers(1, 24), max_size=60)
grids_of_models = st.sampled_from([GRIDS, FEW_SLOTS])
aligns = st.sampled_from([1, 2, 32])  # FP32, BF16 by pairs, BF16 by AMX tiles


def numbered(lengths: list[int]) -> list[IntArray]:
    """Make texts of these lengths whose ids count 1, 2, 3… through all of them: no two sums are equal."""
    ends = np.cumsum([0, *lengths])
    return [np.arange(start + 1, end + 1, dtype=np.int32) for start, end in pairwise(ends)]


def names_of(count: int) -> list[int]:
    """Name texts by other numbers than their indices, so that one taken for the other shows."""
    return [1000 + index for index in range(count)]


def owners(batches: list[Batch]) -> list[int]:
    """List every name in the batches."""
    return [int(name) for batch in batches for name in batch.owner[batch.owner >= 0]]


def scatter(batches: list[Batch], count: int) -> FloatArray:
    """Run the batches and bring the results into the order of the texts, as the embedder does."""
    out = np.full((1000 + count, 1), np.nan, np.float32)
    for batch in batches:
        used = batch.owner >= 0
        out[batch.owner[used]] = FakeEngine().run(batch)[used]
    return out[1000:]


def fill_rate(batches: list[Batch]) -> float:
    """Return used cells over all cells."""
    return sum(batch.used for batch in batches) / sum(batch.ids.size for batch in batches)


@many
@given(lengths_of_texts, grids_of_models)
def test_every_text_is_placed_once(lengths: list[int], grids: tuple[Grid, ...]) -> None:
    """Rows hold every text exactly once."""
    rows = place(lengths, grids)

    assert list(range(len(lengths))) == sorted(text for row in rows for text in row.texts)


@many
@given(lengths_of_texts, grids_of_models, aligns)
def test_a_row_holds_no_more_than_its_grid(lengths: list[int], grids: tuple[Grid, ...], align: int) -> None:
    """No row is over its width or its slots, and `free` is what is left of the width."""
    for row in place(lengths, [grid for grid in grids if grid.rows > 1], align=align):
        assert row.grid.width - sum(cells(lengths[text], align) for text in row.texts) == row.free >= 0
        assert 1 <= len(row.texts) <= row.grid.slots


@many
@given(lengths_of_texts, grids_of_models)
def test_a_row_opens_in_the_narrowest_grid(lengths: list[int], grids: tuple[Grid, ...]) -> None:
    """The longest text of a row decides its width, and the width is the least that holds this text."""
    for row in place(lengths, grids):
        longest = max(lengths[text] for text in row.texts)

        assert min(grid.width for grid in grids if grid.width >= longest) == row.grid.width


@many
@given(lengths_of_texts)
def test_placing_is_deterministic(lengths: list[int]) -> None:
    """Equal lengths give equal rows, and texts of one length are taken by index."""
    rows = place(lengths, WIDE)

    assert rows == place(list(lengths), WIDE)
    for length in set(lengths):
        firsts = [row.texts[0] for row in rows if lengths[row.texts[0]] == length]
        assert sorted(firsts) == firsts


def test_a_text_goes_into_the_fullest_row_that_holds_it() -> None:
    """4 tokens close the row of 30 + 30, not the older row of 40, which has more room."""
    rows = place([4, 30, 40, 30], [Grid(8, 64)])

    assert [Row(Grid(8, 64), 24, [2]), Row(Grid(8, 64), 0, [1, 3, 0])] == rows


@pytest.mark.parametrize(
    ("tokens", "width"), [(1, 16), (16, 16), (17, 32), (128, 128), (129, 256), (256, 256)]
)
def test_narrowest_grid(tokens: int, width: int) -> None:
    """A text of exactly the width of a grid still fits it; one more token takes the next."""
    assert Grid(1, width) == narrowest(SINGLE, tokens)


@pytest.mark.parametrize(("tokens", "align", "taken"), [(5, 1, 5), (5, 2, 6), (32, 32, 32), (33, 32, 64)])
def test_cells_are_rounded_up(tokens: int, align: int, taken: int) -> None:
    """A text takes whole groups, so that the next one starts at a group."""
    assert taken == cells(tokens, align)


def test_a_text_wider_than_every_grid_is_refused() -> None:
    """The error names the tokens of the text and of the widest row."""
    with pytest.raises(ValueError, match=r"^257 tokens; the widest row holds 256$"):
        place([3, 257], GRIDS)


def test_a_text_without_tokens_is_refused() -> None:
    """Nothing to pool would be a division by zero in the graph; the error names the text."""
    with pytest.raises(ValueError, match=r"^text 1 has 0 tokens; a row holds 1 or more$"):
        place([3, 0], GRIDS)


def test_a_text_without_tokens_is_refused_in_a_single_row_too() -> None:
    """The short cut for a few texts refuses what the long way refuses."""
    with pytest.raises(ValueError, match="text 1 has 0 tokens"):
        pack(numbered([3, 0]), names_of(2), GRIDS, last=True)


def test_fill_writes_what_the_graph_reads() -> None:
    """Ids side by side, positions from each text's start, segments from 1, owners by name, zeros behind."""
    grid = Grid(2, 8, 3)
    ids = [np.array([7, 8, 9], np.int32), np.array([5, 6], np.int32), np.array([4], np.int32)]

    batch = fill(grid, [Row(grid, 3, [0, 1]), Row(grid, 7, [2])], ids, [70, 50, 40])

    assert batch.ids.tolist() == [[7, 8, 9, 5, 6, 0, 0, 0], [4, 0, 0, 0, 0, 0, 0, 0]]
    assert batch.positions.tolist() == [[0, 1, 2, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0]]
    assert batch.segments.tolist() == [[1, 1, 1, 2, 2, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0]]
    assert batch.owner.tolist() == [[70, 50, -1], [40, -1, -1]]
    assert batch.used == 6


@many
@given(lengths_of_texts, grids_of_models, aligns)
def test_every_result_returns_to_its_text(lengths: list[int], grids: tuple[Grid, ...], align: int) -> None:
    """Packed, run and scattered, each text has the sum of its own ids and of no other's."""
    ids = numbered(lengths)

    batches, left = pack(ids, names_of(len(ids)), grids, last=True, align=align)

    assert [] == left
    assert names_of(len(ids)) == sorted(owners(batches))
    assert [[text.sum()] for text in ids] == scatter(batches, len(ids)).tolist()


@many
@given(lengths_of_texts, grids_of_models, aligns)
def test_a_text_is_written_in_one_piece(lengths: list[int], grids: tuple[Grid, ...], align: int) -> None:
    """Every text has its own ids side by side, from a multiple of `align`, at positions that count from 0."""
    ids = numbered(lengths)

    batches, _ = pack(ids, names_of(len(ids)), grids, last=True, align=align)

    for batch in batches:
        for r, slot in np.argwhere(batch.owner >= 0):
            mine = np.flatnonzero(batch.segments[r] == slot + 1)
            text = ids[batch.owner[r, slot] - 1000]
            assert 0 == mine[0] % align
            assert list(range(mine[0], mine[0] + len(text))) == mine.tolist()
            assert text.tolist() == batch.ids[r, mine].tolist()
            assert list(range(len(text))) == batch.positions[r, mine].tolist()


@many
@given(lengths_of_texts, grids_of_models)
def test_only_full_batches_run_before_the_last_texts(lengths: list[int], grids: tuple[Grid, ...]) -> None:
    """Without `last` every row of every batch is taken; batches and left-overs are all texts once."""
    batches, left = pack(numbered(lengths), names_of(len(lengths)), grids, last=False)

    assert all((batch.owner[:, 0] >= 0).all() and batch.grid.rows > 1 for batch in batches)
    assert names_of(len(lengths)) == sorted(owners(batches) + [1000 + text for text in left])


@many
@given(lengths_of_texts, grids_of_models)
def test_a_single_row_takes_the_narrowest_grid(lengths: list[int], grids: tuple[Grid, ...]) -> None:
    """Whatever runs as one row runs in the least width that holds its tokens."""
    batches, _ = pack(numbered(lengths), names_of(len(lengths)), grids, last=True)

    for batch in batches:
        if batch.grid.rows == 1:
            widths = [grid.width for grid in grids if grid.rows == 1 and grid.width >= batch.used]
            assert min(widths) == batch.grid.width


@pytest.mark.parametrize(
    ("lengths", "grid"),
    [([2], Grid(1, 16)), ([16], Grid(1, 16)), ([17], Grid(1, 32)), ([256], Grid(1, 256))],
    ids=str,
)
def test_a_lone_text_runs_alone(lengths: list[int], grid: Grid) -> None:
    """One text waits for no batch: it is one row as wide as it needs."""
    batches, _ = pack(numbered(lengths), names_of(1), GRIDS, last=True)

    assert [grid] == [batch.grid for batch in batches]


@pytest.mark.parametrize(
    ("lengths", "grid"),
    [([3, 9, 4], Grid(1, 16)), ([30, 30, 30], Grid(1, 128)), ([8] * 32, Grid(1, 256))],
    ids=["16", "128", "all slots"],
)
def test_texts_that_fit_one_row_run_as_one(lengths: list[int], grid: Grid) -> None:
    """A handful of short texts costs one run, not one each."""
    batches, _ = pack(numbered(lengths), names_of(len(lengths)), GRIDS, last=True)

    assert [grid] == [batch.grid for batch in batches]
    assert names_of(len(lengths)) == batches[0].owner[0, : len(lengths)].tolist()


def test_more_texts_than_slots_are_no_single_row() -> None:
    """33 texts of 2 tokens would fit 128 cells, but a row has 32 slots."""
    batches, _ = pack(numbered([2] * 33), names_of(33), GRIDS, last=True)

    assert [len(owners([batch])) for batch in batches] == [32, 1]


@pytest.mark.parametrize(
    ("rows", "shapes"),
    [(4, ["1x64"] * 4), (5, ["8x64"]), (8, ["8x64"]), (12, ["8x64"] + ["1x64"] * 4), (13, ["8x64"] * 2)],
)
def test_the_last_rows_run_singly_up_to_half_a_batch(rows: int, shapes: list[str]) -> None:
    """A batch that would be mostly empty is run row by row instead."""
    lengths = [64] * rows + [256, 256]  # the pair keeps everything from fitting one row

    batches, _ = pack(numbered(lengths), names_of(len(lengths)), GRIDS, last=True)

    assert [*shapes, "2x256"] == [str(batch.grid) for batch in batches]


@many
@given(st.data(), st.sampled_from([128, 256, 512]), st.booleans())
def test_apart_means_that_long_texts_have_their_rows(data: st.DataObject, most: int, last: bool) -> None:
    """Which width and alignment a text gets depends on its length alone, and none is lost or doubled."""
    lengths = data.draw(st.lists(st.integers(1, most), max_size=80))
    ids, names = numbered(lengths), names_of(len(lengths))

    batches, left = pack_apart(ids, names, grids(most), last=last, align=1, long_align=32)

    assert sorted(owners(batches) + [names[i] for i in left]) == names
    for batch in batches:
        for row in batch.owner:
            sizes = [lengths[name - 1000] for name in row[row >= 0].tolist()]
            assert all((size > LONG) == (batch.grid.width > LONG) for size in sizes)
        if batch.grid.width > LONG:
            starts = np.flatnonzero(np.diff(batch.segments, axis=1, prepend=0) > 0) % batch.grid.width
            assert [0] * len(starts) == (starts % 32).tolist()


def test_short_texts_fill_their_batches() -> None:
    """2,758 short texts, about 14 tokens each, leave less than 3 % of the cells empty."""
    drawn = np.random.default_rng(20240607).lognormal(np.log(12.7), 0.45, 2758)
    lengths = np.clip(np.rint(drawn), 4, 256).astype(int).tolist()

    batches, _ = pack(numbered(lengths), names_of(len(lengths)), GRIDS, last=True)

    assert 13.5 < np.mean(lengths) < 14.5
    assert fill_rate(batches) >= 0.97

"""Placing, filling and cutting into batches: no text is lost, doubled, torn or mixed with another."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.fakes import FakeEngine

from ov_minilm.runtime.packing import Batch, Pool, Text, aligned, fill
from ov_minilm.spec import GRIDS, LONG_TEXT_TOKENS, Grid, Lane, grids

FEW_SLOTS = tuple(Grid(grid.rows, grid.width, 3) for grid in GRIDS)  # slots run out before cells do
SINGLE = tuple(grid for grid in GRIDS if grid.rows == 1)  # as on an NPU
SMALLEST = GRIDS[:2]  # as the smallest memory budget leaves

many = settings(max_examples=200, deadline=None)  # no deadline: a busy machine is not a bug
lengths_of_texts = st.lists(st.integers(1, 256) | st.integers(1, 24), min_size=1, max_size=60)
sets_of_grids = st.sampled_from([GRIDS, FEW_SLOTS, SINGLE, SMALLEST, GRIDS[:4]])
aligns = st.sampled_from([1, 2, 32])  # FP32, BF16 by pairs, BF16 by AMX tiles
LANES = {
    "one": (Lane(GRIDS, "f32"),),
    "two": (
        Lane(tuple(grid for grid in GRIDS if grid.width <= LONG_TEXT_TOKENS), "f32"),
        Lane(tuple(grid for grid in GRIDS if grid.width > LONG_TEXT_TOKENS), "bf16", 2),
    ),
}


def texts(lengths: list[int]) -> list[Text]:
    """Make texts of these lengths whose ids count 1, 2, 3… through all of them: no two sums are equal."""
    ends = np.cumsum([0, *lengths])
    ids = [np.arange(start + 1, end + 1, dtype=np.int32) for start, end in pairwise(ends)]
    return [Text(one, None, number) for number, one in enumerate(ids)]


def packed(lengths: list[int], *lanes: Lane, streams: int = 1, compiled: str | None = None) -> list[Batch]:
    """Pack texts that are all there, and take all batches."""
    pool = Pool(lanes or LANES["one"])
    pool.add(texts(lengths))
    ready = None if compiled is None else {grid for grid in GRIDS if str(grid) in compiled.split()}
    return list(iter(lambda: pool.take(streams=streams, compiled=ready), None))


@many
@given(lengths_of_texts, sets_of_grids, aligns, st.integers(1, 4))
def test_every_text_is_written_once_in_one_piece(
    lengths: list[int], grids: tuple[Grid, ...], align: int, streams: int
) -> None:
    """Side by side, at a multiple of `align`, the rest is 0; its result comes back to its place."""
    found = {}
    for batch in packed(lengths, Lane(grids, "bf16", align), streams=streams):
        ids, positions, segments = batch.inputs
        assert (batch.grid.rows, batch.grid.width, np.int32) == (*ids.shape, ids.dtype)
        sums = FakeEngine().run(batch)[:, 0]
        for text, row, slot, value in zip(batch.texts, batch.rows, batch.slots, sums, strict=True):
            (cells,) = np.nonzero(segments[row] == slot + 1)
            assert 0 == cells[0] % align
            assert (len(text.ids), cells[-1] - cells[0] + 1) == (len(cells), len(cells))
            assert text.ids.tolist() == ids[row, cells].tolist()
            assert list(range(len(cells))) == positions[row, cells].tolist()
            assert text.number not in found
            found[text.number] = float(value)
        assert 0 == ids[segments == 0].sum() == positions[segments == 0].sum()
        assert len(batch.texts) == len({*zip(batch.rows.tolist(), batch.slots.tolist(), strict=True)})
        assert batch.slots.max() < batch.grid.slots
    assert {text.number: float(text.ids.sum()) for text in texts(lengths)} == found


@many
@example([LONG_TEXT_TOKENS, LONG_TEXT_TOKENS + 1], "two")
@given(lengths_of_texts, st.sampled_from(["one", "two"]))
def test_long_texts_have_lanes_of_their_own(lengths: list[int], name: str) -> None:
    """With two lanes no batch mixes texts up to 64 tokens with longer ones; equal input, equal batches."""
    batches = packed(lengths, *LANES[name])
    for batch in batches:
        kinds = {len(text.ids) > LONG_TEXT_TOKENS for text in batch.texts}
        assert name == "one" or 1 == len(kinds) == len({batch.grid.width > LONG_TEXT_TOKENS, *kinds})
    again = packed(lengths, *LANES[name])
    assert [batch.inputs.tolist() for batch in batches] == [batch.inputs.tolist() for batch in again]


@many
@given(st.lists(lengths_of_texts, min_size=2, max_size=8), st.integers(1, 4))
def test_no_text_waits_for_ever(arrivals: list[list[int]], streams: int) -> None:
    """The oldest row goes with the next batch, however many texts come after it."""
    pool = Pool(LANES["one"])
    for lengths in arrivals:
        pool.add(texts(lengths))
        oldest = pool.texts[0]
        batch = pool.take(streams=streams)
        assert batch is not None
        assert any(text is oldest for text in batch.texts)


@pytest.mark.parametrize(
    ("lengths", "streams", "compiled", "expected"),
    [
        *[
            ([7], 2, None, "1x8"),
            ([9], 2, None, "1x16"),
            ([17, 14], 2, None, "1x32"),
            ([40], 2, None, "1x64"),
        ],
        *[([150], 2, None, "1x208"), ([200, 190], 1, None, "2x208"), ([250, 240], 1, None, "2x256")],
        ([64] * 2, 2, None, "2x64"),  # two short rows: one batch on all threads
        *[([64] * 8, 1, None, "8x64"), ([64] * 6, 1, None, "8x64")],  # three quarters of the rows are enough
        ([64] * 8, 2, None, "2x64 2x64 2x64 2x64"),  # shared by two streams, neither would fill a tall grid
        ([64] * 16, 2, None, "8x64 2x64 2x64 2x64 2x64"),
        ([64] * 33, 1, None, "8x64 8x64 8x64 8x64 1x64"),
        *[([150] * 3, 1, None, "3x160"), ([250, 200, 150], 2, None, "2x256 1x208")],
        ([65, 60, 60, 60], 1, None, "1x256"),  # short texts fill the gap of a long one's row
        *[([40], 1, "8x64", "8x64"), ([40], 1, "8x64 1x64", "1x64"), ([40], 1, "1x32 3x160", "3x160")],
        *[([40], 1, "1x256 2x64", "2x64"), ([40], 1, "8x64 1x128", "1x128")],  # by cells
        ([40], 1, "", "1x64"),  # nothing holds it: its own grid is compiled
        *[([150] * 2, 1, "2x208", "2x208"), ([64] * 2, 1, "8x64 2x64", "2x64")],
        ([64] * 8, 1, "2x256", "8x64"),  # enough for a full batch: worth compiling
    ],
)
def test_rows_run_in_the_grid_that_suits_them(
    lengths: list[int], streams: int, compiled: str | None, expected: str
) -> None:
    """The narrowest that holds them, as tall as each stream's share fills; too few take a compiled one."""
    assert expected.split() == [str(b.grid) for b in packed(lengths, streams=streams, compiled=compiled)]


def test_a_text_goes_into_the_fullest_row_that_holds_it() -> None:
    """4 tokens close the row of 30 + 30, not the older row of 40; texts that come later fill gaps too."""
    (batch,) = packed([4, 30, 40, 30], Lane((Grid(2, 64), Grid(1, 64)), "f32"))
    rows = [[t.number for t, r in zip(batch.texts, batch.rows, strict=True) if r == row] for row in (0, 1)]
    assert [[1, 3, 0], [2]] in (rows, rows[::-1])

    pool = Pool(LANES["one"])
    for length in (30, 20):
        pool.add(texts([length]))
    assert (50, [30, 20]) == (pool.cells, [len(text.ids) for text in pool.texts])
    batch = pool.take()  # type: ignore[assignment]
    assert (2, 0, [], None) == (len(batch.texts), pool.cells, pool.texts, pool.take())


@pytest.mark.parametrize(("shortest", "longest", "fill"), [(5, 40, 0.97), (129, 256, 5 / 6)])
def test_rows_are_filled_well(shortest: int, longest: int, fill: float) -> None:
    """Sentences leave less than three in a hundred cells empty, passages less than a sixth."""
    lengths = np.random.default_rng(0).integers(shortest, longest + 1, 1000).tolist()

    assert sum(lengths) > fill * sum(batch.grid.cells for batch in packed(lengths))


def test_cells_are_rounded_up_and_rows_left_empty() -> None:
    """A text takes whole groups, so that the next one starts at a group; rows without text are padding."""
    assert [5, 6, 32, 64] == [aligned(*pair) for pair in ((5, 1), (5, 2), (32, 32), (33, 32))]
    assert [[1, 1, 1, 2, 2, 0, 0, 0], [0] * 8] == fill(Grid(2, 8), [texts([3, 2])]).inputs[2].tolist()


@pytest.mark.parametrize("max_tokens", [48, 64, 100, 128, 256, 300, 512])
def test_every_model_has_grids_for_every_text(max_tokens: int) -> None:
    """Texts of any length up to the model's, and none that is longer, in all grids or in the first two."""
    for found in (grids(max_tokens), grids(max_tokens)[:2]):
        lengths = list(range(2, max_tokens + 1))
        batches = packed(lengths, Lane(found, "f32"), streams=2)
        assert len(lengths) == sum(len(batch.texts) for batch in batches)
        assert len(set(found)) == len(found)
        with pytest.raises(ValueError, match=f"a text of 600 tokens; the widest row holds {found[1].width}"):
            packed([600], Lane(found, "f32"))

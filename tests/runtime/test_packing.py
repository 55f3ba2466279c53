"""Packing: every text is in one batch, in one piece, apart from other texts, in well filled rows."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.fakes import FakeEngine

from ov_minilm.runtime.packing import Batch, Pool, Text, aligned, fill
from ov_minilm.spec import GRIDS, LONG_TEXT_TOKENS, Grid, Lane, grids

ALL = Lane(GRIDS, "f32")
WIDE = tuple(grid for grid in GRIDS if grid.width > LONG_TEXT_TOKENS)
LANES = {
    "all grids": [ALL],
    "pairs": [Lane(GRIDS, "bf16", 2)],
    "tiles of AMX": [Lane(GRIDS, "bf16", 32)],
    "slots run out before cells do": [Lane(tuple(Grid(grid.rows, grid.width, 3) for grid in GRIDS), "f32")],
    "single rows, as on an NPU": [Lane(tuple(grid for grid in GRIDS if grid.rows == 1), "f32")],
    "the smallest memory budget": [Lane(GRIDS[:2], "f32")],
    "long texts apart": [
        Lane(tuple(grid for grid in GRIDS if grid not in WIDE), "f32"),
        Lane(WIDE, "bf16", 2),
    ],
}
groups_of_texts = st.lists(st.integers(1, 256) | st.integers(1, 24), min_size=1, max_size=40)


def texts(lengths: list[int]) -> list[Text]:
    """Return texts of these lengths; the ids of all texts are different, and so are their sums."""
    ends = np.cumsum([0, *lengths])
    ids = [np.arange(start + 1, end + 1, dtype=np.int32) for start, end in pairwise(ends)]
    return [Text(text_ids, None, number) for number, text_ids in enumerate(ids)]


def batches_of(
    lengths: list[int], lanes: list[Lane], streams: int = 1, compiled: str | None = None
) -> list[Batch]:
    """Pack all texts at once; `compiled` lists the compiled grids."""
    pool = Pool(lanes)
    pool.add(texts(lengths))
    grids = None if compiled is None else {grid for grid in GRIDS if str(grid) in compiled.split()}
    return list(iter(lambda: pool.take(streams=streams, compiled=grids), None))


def batches_between(groups: list[list[Text]], lanes: list[Lane], streams: int) -> list[Batch]:
    """Take a batch after each group, which must have the oldest text; take the rest at the end."""
    pool = Pool(lanes)
    batches: list[Batch] = []
    for group in groups:
        pool.add(group)
        oldest = pool.texts[0]
        batch = pool.take(streams=streams)
        assert batch is not None
        batches.append(batch)
        assert any(text is oldest for text in batch.texts)
    while batch := pool.take(streams=streams):
        batches.append(batch)
    return batches


@settings(max_examples=150, deadline=None)  # no deadline: a busy machine is not a bug
@example([[LONG_TEXT_TOKENS, LONG_TEXT_TOKENS + 1]], "long texts apart", 1)
@given(st.lists(groups_of_texts, min_size=1, max_size=4), st.sampled_from(list(LANES)), st.integers(1, 4))
def test_every_text_is_written_once_in_one_piece(lengths: list[list[int]], name: str, streams: int) -> None:
    """A text starts at a multiple of `align` in a grid for its length; equal input gives equal batches."""
    lanes, all_texts = LANES[name], texts([length for group in lengths for length in group])
    ends = np.cumsum([0, *map(len, lengths)])
    groups = [all_texts[start:end] for start, end in pairwise(ends)]
    actual = {}

    batches = batches_between(groups, lanes, streams)

    for batch in batches:
        ids, positions, segments = batch.inputs
        assert (batch.grid.rows, batch.grid.width, np.int32) == (*ids.shape, ids.dtype)
        assert 0 == ids[segments == 0].sum() == positions[segments == 0].sum()
        assert len(batch.texts) == len({*zip(batch.rows, batch.slots, strict=True)})
        assert max(batch.slots) < batch.grid.slots
        sums = FakeEngine().run(batch)[:, 0]
        for text, row, slot, value in zip(batch.texts, batch.rows, batch.slots, sums, strict=True):
            lane = lanes[-1 if len(text.ids) > LONG_TEXT_TOKENS else 0]
            (cells,) = np.nonzero(segments[row] == slot + 1)
            assert batch.grid in lane.grids
            assert 0 == cells[0] % lane.align
            assert (len(text.ids), cells[-1] - cells[0] + 1) == (len(cells), len(cells))
            assert text.ids.tolist() == ids[row, cells].tolist()
            assert list(range(len(cells))) == positions[row, cells].tolist()
            assert text.number not in actual
            actual[text.number] = float(value)
    assert {text.number: float(text.ids.sum()) for text in all_texts} == actual
    again = batches_between(groups, lanes, streams)
    assert [batch.inputs.tobytes() for batch in batches] == [batch.inputs.tobytes() for batch in again]


@pytest.mark.parametrize(
    ("lengths", "streams", "compiled", "expected"),
    [
        ([7], 2, None, "1x8"),
        ([17, 14], 2, None, "1x32"),
        ([150], 2, None, "1x208"),
        ([65, 60, 60, 60], 1, None, "1x256"),  # short texts fill the row of a long one
        ([64] * 6, 1, None, "8x64"),  # used rows: three quarters of a grid
        ([64] * 8, 2, None, "2x64 2x64 2x64 2x64"),  # two streams: 8x64 would not be full
        ([64] * 16, 2, None, "8x64 2x64 2x64 2x64 2x64"),
        ([64] * 17, 1, None, "8x64 8x64 1x64"),
        ([64, 52], 1, None, "2x64"),
        ([64, 50], 1, None, "1x64 1x64"),  # two rows would not be full: two single rows are faster
        ([150] * 3, 1, None, "3x160"),
        ([200, 190], 1, None, "2x208"),
        ([250, 200, 150], 2, None, "2x256 1x208"),
        ([40], 1, "8x64 1x64", "1x64"),  # few texts: their own grid, if compiled
        ([40], 1, "1x32 3x160 8x64", "3x160"),  # else the compiled grid with the fewest cells
        ([40], 1, "8x64 1x256 1x128", "1x128"),
        ([40], 1, "", "1x64"),  # no compiled grid holds the text
        ([150] * 2, 1, "2x208", "2x208"),
        ([64] * 2, 1, "1x64 8x64 2x64", "2x64"),  # one batch, not a 1x64 for each text
        ([64] * 8, 1, "2x256", "8x64"),  # a full batch is worth compiling a grid
    ],
)
def test_the_grid_fits_the_rows(
    lengths: list[int], streams: int, compiled: str | None, expected: str
) -> None:
    """A batch has the narrowest grid, with as many rows as it fills; few texts use a compiled grid."""
    assert expected.split() == [str(batch.grid) for batch in batches_of(lengths, [ALL], streams, compiled)]


def test_a_text_goes_into_the_fullest_row_that_holds_it() -> None:
    """A text goes into the fullest row with space, also if the row is of an earlier call."""
    (batch,) = batches_of([4, 30, 56, 30], [Lane((Grid(2, 64), Grid(1, 64)), "f32")])
    rows = [[t.number for t, r in zip(batch.texts, batch.rows, strict=True) if r == row] for row in (0, 1)]
    assert [[1, 3, 0], [2]] in (rows, rows[::-1])

    pool = Pool([ALL])
    for length in (30, 20):
        pool.add(texts([length]))
    assert (50, [30, 20]) == (pool.cells, [len(text.ids) for text in pool.texts])
    both = pool.take()
    assert both is not None
    assert (2, 0, [], None) == (len(both.texts), pool.cells, pool.texts, pool.take())


@pytest.mark.parametrize(("shortest", "longest", "full"), [(5, 40, 0.97), (129, 256, 5 / 6)])
def test_rows_are_filled_well(shortest: int, longest: int, full: float) -> None:
    """In batches of sentences less than 3 % of the cells are empty, of passages less than a sixth."""
    lengths = np.random.default_rng(0).integers(shortest, longest + 1, 1000).tolist()

    assert sum(lengths) > full * sum(batch.grid.cells for batch in batches_of(lengths, [ALL]))


def test_texts_start_at_multiples_of_align() -> None:
    """Lengths are rounded up to a multiple of `align`; a row without texts has only padding."""
    assert [5, 6, 32, 64] == [aligned(*pair) for pair in ((5, 1), (5, 2), (32, 32), (33, 32))]
    assert [[1, 1, 1, 2, 2, 0, 0, 0], [0] * 8] == fill(Grid(2, 8), [texts([3, 2])]).inputs[2].tolist()


@pytest.mark.parametrize("max_tokens", [30, 48, 64, 100, 128, 200, 256, 300, 512])
def test_grids_hold_every_text_of_a_model(max_tokens: int) -> None:
    """All grids, and the first two alone, hold texts up to max_tokens; far longer texts are refused."""
    for actual in (grids(max_tokens), grids(max_tokens)[:2]):
        lanes, lengths = [Lane(actual, "f32")], list(range(2, max_tokens + 1))
        assert len(lengths) == sum(len(batch.texts) for batch in batches_of(lengths, lanes, streams=2))
        assert len(set(actual)) == len(actual)
        assert (
            LONG_TEXT_TOKENS
            == actual[0].width
            <= max(grid.width for grid in actual)
            <= max(64, max_tokens + 15)
        )
        with pytest.raises(
            ValueError, match=f"a text has 600 tokens; the widest row holds {actual[1].width}"
        ):
            batches_of([600], lanes)

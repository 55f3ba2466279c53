"""Placing, filling and cutting into batches: no text is lost, doubled, torn or mixed with another."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice, pairwise

import numpy as np
import pytest
from fakes import FakeEngine
from hypothesis import given, settings
from hypothesis import strategies as st

from ov_minilm.runtime.packing import HURRY, PATIENCE, Batch, Lane, Pool, Row, cells, fill, narrowest
from ov_minilm.spec import GRIDS, LONG, FloatArray, Grid, IntArray, grids

WIDE = [grid for grid in GRIDS if grid.rows > 1]
SINGLE = [grid for grid in GRIDS if grid.rows == 1]
FEW_SLOTS = tuple(Grid(grid.rows, grid.width, 3) for grid in GRIDS)  # slots run out before cells do
LOW = tuple(grid for grid in GRIDS if grid.cells <= 256)  # as max_batch_tokens leaves: long texts run alone

many = settings(max_examples=300, deadline=None)  # no deadline: a busy machine is not a bug
lengths_of_texts = st.lists(st.integers(1, 256) | st.integers(1, 24), max_size=60)
grids_of_models = st.sampled_from([GRIDS, FEW_SLOTS])
all_grids = st.sampled_from([GRIDS, FEW_SLOTS, LOW])
aligns = st.sampled_from([1, 2, 32])  # FP32, BF16 by pairs, BF16 by AMX tiles


def numbered(lengths: list[int]) -> list[IntArray]:
    """Make texts of these lengths whose ids count 1, 2, 3… through all of them: no two sums are equal."""
    ends = np.cumsum([0, *lengths])
    return [np.arange(start + 1, end + 1, dtype=np.int32) for start, end in pairwise(ends)]


def place(lengths: list[int], grids: Sequence[Grid], align: int = 1) -> list[Row]:
    """Put texts into the rows of one lane, longest first, as a pool does; return the rows."""
    lane = Lane(grids, align)
    for text in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        lane.put(text, lengths[text], now=0)
    return lane.all


def named(ids: list[IntArray]) -> dict[int, IntArray]:
    """Name texts by other numbers than their indices, so that one taken for the other shows."""
    return {1000 + index: text for index, text in enumerate(ids)}


def packed(
    lengths: list[int], grids: Sequence[Grid] = GRIDS, align: int = 1, long_align: int | None = None
) -> list[Batch]:
    """Pack numbered texts that are all there."""
    pool = Pool(grids, align=align, long_align=long_align)
    pool.add(named(numbered(lengths)))
    return list(pool.take_all())


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
    for row in place(lengths, grids, align):
        assert row.used == row.grid.width - row.free
        assert row.grid.width - sum(cells(lengths[text], align) for text in row.texts) == row.free >= 0
        assert 1 <= len(row.texts) <= row.grid.slots


@many
@given(lengths_of_texts, grids_of_models)
def test_a_row_opens_in_the_narrowest_grid(lengths: list[int], grids: tuple[Grid, ...]) -> None:
    """The longest text of a row decides its width, and the width is the least that holds this text."""
    for row in place(lengths, grids):
        longest = max(lengths[text] for text in row.texts)

        assert min(grid.width for grid in WIDE if grid.width >= longest) == row.grid.width


@many
@given(lengths_of_texts)
def test_placing_is_deterministic(lengths: list[int]) -> None:
    """Equal lengths give equal rows, and texts of one length are taken by index."""
    rows = place(lengths, WIDE)

    assert [row.texts for row in rows] == [row.texts for row in place(list(lengths), WIDE)]
    for length in set(lengths):
        firsts = [row.texts[0] for row in rows if lengths[row.texts[0]] == length]
        assert sorted(firsts) == firsts


def test_a_text_goes_into_the_fullest_row_that_holds_it() -> None:
    """4 tokens close the row of 30 + 30, not the older row of 40, which has more room."""
    rows = place([4, 30, 40, 30], [Grid(8, 64)])

    assert [(24, [2]), (0, [1, 3, 0])] == [(row.free, row.texts) for row in rows]


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
    with pytest.raises(ValueError, match=r"^text 1001 has 0 tokens; a row holds 1 or more$"):
        packed([3, 0])


def test_fill_writes_what_the_graph_reads() -> None:
    """Ids side by side, positions from each text's start, segments from 1, owners by name, zeros behind."""
    grid = Grid(2, 8, 3)
    ids = [np.array([7, 8, 9], np.int32), np.array([5, 6], np.int32), np.array([4], np.int32)]

    rows = [Row(grid, 3, texts=[70, 50]), Row(grid, 7, texts=[40])]
    batch = fill(grid, rows, dict(zip([70, 50, 40], ids, strict=True)))

    assert batch.ids.tolist() == [[7, 8, 9, 5, 6, 0, 0, 0], [4, 0, 0, 0, 0, 0, 0, 0]]
    assert batch.positions.tolist() == [[0, 1, 2, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0]]
    assert batch.segments.tolist() == [[1, 1, 1, 2, 2, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0]]
    assert batch.owner.tolist() == [[70, 50, -1], [40, -1, -1]]
    assert batch.used == 6


@many
@given(lengths_of_texts, all_grids, aligns)
def test_every_result_returns_to_its_text(lengths: list[int], grids: tuple[Grid, ...], align: int) -> None:
    """Packed, run and scattered, each text has the sum of its own ids and of no other's."""
    ids = numbered(lengths)

    batches = packed(lengths, grids, align)

    assert list(named(ids)) == sorted(owners(batches))
    assert [[text.sum()] for text in ids] == scatter(batches, len(ids)).tolist()


@many
@given(lengths_of_texts, all_grids, aligns)
def test_a_text_is_written_in_one_piece(lengths: list[int], grids: tuple[Grid, ...], align: int) -> None:
    """Every text has its own ids side by side, from a multiple of `align`, at positions that count from 0."""
    ids = numbered(lengths)

    batches = packed(lengths, grids, align)

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
def test_only_whole_batches_are_taken_before_the_rest(lengths: list[int], grids: tuple[Grid, ...]) -> None:
    """Every row of every batch is used; batches and what stays in the pool are all texts once."""
    pool = Pool(grids)
    pool.add(named(numbered(lengths)))

    batches = []
    while pool.fullness >= 1:
        batch = pool.take()
        assert batch is not None
        batches.append(batch)

    assert all((batch.owner[:, 0] >= 0).all() and batch.grid.rows > 1 for batch in batches)
    assert len(lengths) == len(owners(batches)) + len(pool)
    assert sum(lengths) == sum(batch.used for batch in batches) + pool.cells


@many
@given(lengths_of_texts, all_grids)
def test_a_single_row_takes_the_narrowest_grid(lengths: list[int], grids: tuple[Grid, ...]) -> None:
    """Whatever runs as one row runs in the least width that holds its tokens."""
    batches = packed(lengths, grids)

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
    batches = packed(lengths)

    assert [grid] == [batch.grid for batch in batches]


@pytest.mark.parametrize(
    ("lengths", "grid"),
    [([3, 9, 4], Grid(1, 16)), ([30, 30, 30], Grid(1, 128)), ([8] * 32, Grid(1, 256))],
    ids=["16", "128", "all slots"],
)
def test_texts_that_fit_one_row_run_as_one(lengths: list[int], grid: Grid) -> None:
    """A handful of short texts costs one run, not one each."""
    batches = packed(lengths)

    assert [grid] == [batch.grid for batch in batches]
    assert list(named(numbered(lengths))) == sorted(owners(batches))


def test_more_texts_than_slots_are_no_single_row() -> None:
    """33 texts of 2 tokens would fit 128 cells, but a row has 32 slots."""
    (batch,) = packed([2] * 33)

    assert "2x64" == str(batch.grid)
    assert [32, 1] == (batch.owner >= 0).sum(1).tolist()


@pytest.mark.parametrize(
    ("rows", "shapes"),
    [
        (1, ["1x64"]),
        (2, ["2x64"]),
        (3, ["2x64", "1x64"]),
        (5, ["2x64", "2x64", "1x64"]),
        (6, ["8x64"]),
        (10, ["8x64", "2x64"]),
        (13, ["8x64", "2x64", "2x64", "1x64"]),
    ],
)
def test_the_last_rows_fill_their_grids_to_three_quarters(rows: int, shapes: list[str]) -> None:
    """A batch that would be emptier is run in a grid of fewer rows, or row by row."""
    batches = packed([64] * rows, long_align=1)  # apart, so that wider rows cannot take them

    assert shapes == [str(batch.grid) for batch in batches]


@pytest.mark.parametrize(
    ("rows", "shapes"),
    [
        (3, ["2x64", "1x64"]),
        (4, ["2x64"] * 2),
        (8, ["2x64"] * 4),
        (9, ["8x64", "1x64"]),
        (24, ["8x64"] * 2 + ["2x64"] * 4),
    ],
)
def test_idle_streams_share_the_last_rows(rows: int, shapes: list[str]) -> None:
    """Where another stream has nothing to do, parts of a batch are done sooner than the whole."""
    pool = Pool(GRIDS, long_align=1)
    pool.add(dict(enumerate(numbered([64] * rows))))

    assert shapes == [str(batch.grid) for batch in pool.take_all(streams=2)]


@pytest.mark.parametrize("streams", [2, 4, 16])
def test_more_streams_than_rows_share_them_too(streams: int) -> None:
    """Where a share would fill no grid, the lowest is taken, so that as many streams as can be are busy."""
    pool = Pool(GRIDS, long_align=1)
    pool.add(dict(enumerate(numbered([64] * 4))))

    assert ["2x64", "2x64"] == [str(batch.grid) for batch in pool.take_all(streams=streams)]


def test_two_rows_alone_run_one_by_one() -> None:
    """One batch of both would leave all streams but its own idle; beside others that is what each does."""
    pool = Pool(GRIDS, long_align=1)
    pool.add(dict(enumerate(numbered([64] * 4))))

    batches = [pool.take_rest(streams=2, alone=alone) for alone in (False, True)]

    assert ["2x64", "1x64"] == [str(batch.grid) for batch in batches if batch]


def test_texts_that_fit_one_row_share_it_alone_only() -> None:
    """All threads run that row; beside other batches each stream has rows of its own."""
    pool = Pool(GRIDS)
    pool.add(dict(enumerate(numbered([60] * 6))))

    batches = [pool.take_rest(streams=2, alone=alone) for alone in (False, True)]

    assert ["2x64", "1x256"] == [str(batch.grid) for batch in batches if batch]


def test_without_lone_rows_a_batch_may_be_mostly_empty() -> None:
    """A grid that has no smaller one beside it takes what there is."""
    batches = packed([64], [Grid(8, 64)])

    assert [Grid(8, 64)] == [batch.grid for batch in batches]


@many
@given(st.data(), st.sampled_from([30, 128, 256, 512]))
def test_apart_means_that_long_texts_have_their_rows(data: st.DataObject, most: int) -> None:
    """Which width and alignment a text gets depends on its length alone, and none is lost or doubled."""
    lengths = data.draw(st.lists(st.integers(1, most), max_size=80))

    batches = packed(lengths, grids(most), 1, 32)

    assert sorted(owners(batches)) == list(named(numbered(lengths)))
    for batch in batches:
        for row in batch.owner:
            sizes = [lengths[name - 1000] for name in row[row >= 0].tolist()]
            assert all((size > LONG) == (batch.grid.width > LONG) for size in sizes)
        if batch.grid.width > LONG:
            starts = np.flatnonzero(np.diff(batch.segments, axis=1, prepend=0) > 0) % batch.grid.width
            assert [0] * len(starts) == (starts % 32).tolist()


def test_grids_of_lone_rows_pack_too() -> None:
    """On an NPU every batch is one row; texts still share it, and none is refused for lack of a wide grid."""
    batches = packed([250, 40, 40, 20, 20], SINGLE)

    assert ["1x64", "1x64", "1x256"] == [str(batch.grid) for batch in batches]


@many
@given(
    st.lists(st.tuples(lengths_of_texts, st.booleans(), st.integers(0, 3), st.booleans()), max_size=8),
    aligns,
    st.sampled_from([None, 32]),
    st.integers(1, 4),
)
def test_texts_that_come_later_are_neither_lost_nor_doubled(
    arrivals: list[tuple[list[int], bool, int, bool]], align: int, long_align: int | None, streams: int
) -> None:
    """However adding and taking alternate, every text is written once and whole."""
    pool = Pool(GRIDS, align=align, long_align=long_align)
    ids = named(numbered([length for lengths, *_ in arrivals for length in lengths]))
    names = iter(ids)
    batches = []
    for lengths, urgent, takes, in_turn in arrivals:
        pool.add({name: ids[name] for name in islice(names, len(lengths))}, urgent=urgent)
        for _ in range(takes):
            batch = pool.take(streams=streams, in_turn=in_turn) or pool.take_rest(streams=streams)
            batches += [batch] if batch else []
    batches += pool.take_all(streams=streams)

    assert list(ids) == sorted(owners(batches))
    assert (0, 0, 0) == (len(pool), pool.cells, pool.urgent)
    for batch in batches:
        for r, slot in np.argwhere(batch.owner >= 0):
            written = batch.ids[r, batch.segments[r] == slot + 1]
            assert ids[batch.owner[r, slot]].tolist() == written.tolist()


def test_later_texts_fill_the_gaps_of_earlier_ones() -> None:
    """Rows of 40 tokens wait for texts of 24, and no cell is left empty."""
    pool = Pool(GRIDS)
    pool.add({i: np.ones(40, np.int32) for i in range(8)})
    pool.add({i: np.ones(24, np.int32) for i in range(8, 16)})

    batch = pool.take()

    assert batch is not None
    assert batch.used == 8 * 64


def test_urgent_texts_go_first_and_others_make_up_the_number() -> None:
    """One urgent row leaves in the next batch, with the seven oldest of the rows that wait."""
    pool = Pool(GRIDS)
    pool.add({i: np.ones(64, np.int32) for i in range(16)})
    pool.add({100: np.ones(64, np.int32)}, urgent=True)

    first, then = pool.take(), pool.take()

    assert first is not None
    assert then is not None
    assert [100, 0, 1, 2, 3, 4, 5, 6] == first.owner[:, 0].tolist()
    assert list(range(7, 15)) == then.owner[:, 0].tolist()


def test_in_turn_the_oldest_go_first() -> None:
    """A batch in turn leaves urgent texts aside while older ones wait."""
    pool = Pool(GRIDS)
    pool.add({i: np.ones(64, np.int32) for i in range(8)})
    pool.add({100: np.ones(64, np.int32)}, urgent=True)

    batch = pool.take(in_turn=True)

    assert batch is not None
    assert list(range(8)) == batch.owner[:, 0].tolist()


@pytest.mark.parametrize(("urgent", "passed"), [(False, PATIENCE), (True, HURRY)])
def test_no_row_waits_for_ever(urgent: bool, passed: int) -> None:
    """A lone long text among endless short ones goes after so many batches, though its own is not whole."""
    pool = Pool(GRIDS)
    pool.add({0: np.ones(256, np.int32)}, urgent=urgent)

    shapes = []
    for k in range(passed + 1):
        pool.add({1 + 8 * k + i: np.ones(64, np.int32) for i in range(8)})
        batch = pool.take()
        assert batch is not None
        shapes.append(str(batch.grid))

    assert ["8x64"] * passed + ["1x256"] == shapes


def test_short_texts_fill_their_batches() -> None:
    """2,758 short texts, about 14 tokens each, leave less than 3 % of the cells empty."""
    drawn = np.random.default_rng(20240607).lognormal(np.log(12.7), 0.45, 2758)
    lengths = np.clip(np.rint(drawn), 4, 256).astype(int).tolist()

    batches = packed(lengths)

    assert 13.5 < np.mean(lengths) < 14.5
    assert fill_rate(batches) >= 0.97

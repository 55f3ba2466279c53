"""Which grids are compiled, which are kept, and where a batch runs whose own is not there."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ov_minilm.runtime.grids import LODGINGS, LONE, PRICE, CompiledGrids, limit, size
from ov_minilm.runtime.plan import Plan
from ov_minilm.spec import GRIDS, LONG, Grid

SHORT, LONGER, LEFT = Grid(8, 64), Grid(2, 256), Grid(2, 64)
plans = st.builds(
    lambda threads, long: Plan("CPU", "f32", long, "native", threads, "", 1, 1, GRIDS),
    st.sampled_from([1, 2, 3, 16]),
    st.sampled_from(["f32", "bf16"]),
)


def compiled_by(plan: Plan) -> tuple[CompiledGrids, list[Grid]]:
    """Return compiled grids without a compiler, and the list of what was compiled."""
    made: list[Grid] = []

    def compile_grid(grid: Grid) -> Any:
        made.append(grid)

    return CompiledGrids(plan, compile_grid), made


def two_threads() -> tuple[CompiledGrids, list[Grid]]:
    """Return compiled grids for two threads and one precision."""
    return compiled_by(Plan("CPU", "f32", "f32", "native", 2, "", 1, 1, GRIDS))


@settings(deadline=None)
@given(plans, st.lists(st.sampled_from(GRIDS), max_size=200))
def test_a_batch_runs_where_it_fits_and_memory_is_bounded(plan: Plan, asked: list[Grid]) -> None:
    """In a grid at least as large, of the same precision, whatever came before; never more than the limit."""
    grids, _ = compiled_by(plan)

    for grid in asked:
        found = grids.host(grid).grid

        assert found in grids.kept
        assert found.rows >= grid.rows
        assert found.width >= grid.width
        assert (found.width > LONG) == (grid.width > LONG) or plan.precision == plan.long
        assert sum(size(plan, kept) for kept in grids.kept) <= limit(plan)


def test_what_a_list_leaves_over_earns_no_grid() -> None:
    """A few batches run in a larger grid; the next one has a grid of its own where there is room."""
    grids, made = two_threads()
    grids.host(SHORT)

    hosts = [grids.host(LEFT).grid for _ in range(LODGINGS + 1)]

    assert [SHORT] * LODGINGS + [LEFT] == hosts
    assert [SHORT, LEFT] == made


def test_a_single_text_is_not_slow_for_long() -> None:
    """Between lists, and after texts of every length, it soon has its row, and the lists keep theirs."""
    grids, made = two_threads()
    for grid in (*(grid for grid in GRIDS if grid.rows == 1), SHORT, LONGER):
        grids.host(grid)
    assert Grid(1, 16) not in grids.kept
    made.clear()

    texts = 0
    while grids.host(Grid(1, 16)).grid != Grid(1, 16):
        texts += 1
        for grid in (SHORT, LONGER):
            grids.host(grid)

    assert texts < 80
    assert [Grid(1, 16)] == made
    assert {SHORT, LONGER} < set(grids.kept)


@pytest.mark.parametrize(
    ("kept", "grid", "host", "cells"),
    [
        ([LEFT, SHORT, LONGER], Grid(1, 64), LEFT, LEFT.cells - 64),
        ([Grid(1, 32), Grid(1, 64), SHORT, LONGER], Grid(1, 16), Grid(1, 32), 2 * (32 - 16)),
    ],
    ids=["a thread for each batch", "all threads on one"],
)
def test_a_grid_is_compiled_when_lodging_has_cost_as_much(
    kept: list[Grid], grid: Grid, host: Grid, cells: int
) -> None:
    """Where others must go for it, the cells decide that threads ran for nothing."""
    grids, _ = two_threads()
    for one in kept:
        grids.host(one)
    assert set(kept) == set(grids.kept)

    lodged = 0
    while (found := grids.host(grid).grid) != grid:
        assert host == found
        lodged += 1

    assert PRICE // cells == lodged
    assert {host, grid} <= set(grids.kept)  # what was unused for longest went


def test_all_are_kept_when_asked_for() -> None:
    """Then nothing is ever compiled again, and every batch runs in its own grid."""
    grids, made = two_threads()

    grids.keep_all()
    hosts = [grids.host(grid).grid for grid in GRIDS * 10]

    assert [*GRIDS] * 10 == hosts
    assert sorted(map(str, GRIDS)) == sorted(map(str, made))


def test_room_is_for_a_grid_of_each_width_and_two_lone_rows() -> None:
    """Of several threads each has its stream; with one thread there is as much memory as with two."""
    sizes = {
        threads: limit(Plan("CPU", "f32", "f32", "native", threads, "", 1, 1, GRIDS)) for threads in (1, 2, 8)
    }

    assert {1: 10, 2: 10, 8: 2 * (1 + 8) + 2 * LONE} == sizes

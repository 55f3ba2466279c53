"""The grids that a model of some length gets."""

from __future__ import annotations

import pytest

from ov_minilm.spec import GRIDS, LONG_TEXT_TOKENS, grids


@pytest.mark.parametrize("max_tokens", [30, 64, 100, 128, 200, 256, 300, 512])
def test_the_first_two_grids_hold_every_text(max_tokens: int) -> None:
    """With the smallest memory budget short texts have rows of 64, and the longest fits the other grid."""
    smallest = grids(max_tokens)[:2]

    assert LONG_TEXT_TOKENS == smallest[0].width
    assert max_tokens <= max(grid.width for grid in smallest) <= max(64, max_tokens + 15)


def test_the_grids_of_minilm_are_those_that_were_measured() -> None:
    """In the order in which a memory budget keeps them."""
    expected = "1x64 1x256 8x64 2x256 2x208 3x160 1x16 1x32 1x128 2x64 1x208 1x8"

    assert expected.split() == [str(grid) for grid in GRIDS]

"""The grids that a model of some length gets."""

from __future__ import annotations

import pytest

from ov_minilm.spec import GRIDS, grids


@pytest.mark.parametrize(
    ("max_tokens", "expected"),
    [
        (30, "8x64 2x64 1x16 1x32 1x64"),
        (128, "8x64 4x128 2x64 1x16 1x32 1x64 1x128"),
        (200, "8x64 2x256 2x64 1x16 1x32 1x64 1x128 1x256"),
        (512, "8x64 2x256 2x512 2x64 1x16 1x32 1x64 1x128 1x256 1x512"),
    ],
)
def test_widths_double_until_they_hold_the_longest_text(max_tokens: int, expected: str) -> None:
    """A lone row of each width; many rows of 64, of 256, and of the widest."""
    assert expected.split() == [str(grid) for grid in grids(max_tokens)]


def test_the_grids_of_minilm_are_those_of_256_tokens() -> None:
    """The sizes that were measured for the model in the package stay as they are."""
    assert "8x64 2x256 2x64 1x16 1x32 1x64 1x128 1x256".split() == [str(grid) for grid in GRIDS]

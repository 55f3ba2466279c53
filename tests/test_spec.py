"""The grids of a model by its maximum length."""

from __future__ import annotations

from ov_minilm.spec import GRIDS, LONG_TEXT_TOKENS, grids


def test_the_first_two_grids_hold_every_text() -> None:
    """One has rows of 64, the other fits the longest text; MiniLM's grids are those of the benchmarks."""
    for max_tokens in (30, 64, 100, 128, 200, 256, 300, 512):
        short, long = grids(max_tokens)[:2]
        assert LONG_TEXT_TOKENS == short.width
        assert max_tokens <= max(short.width, long.width) <= max(64, max_tokens + 15)
    expected = "1x64 1x256 8x64 2x256 2x208 3x160 1x16 1x32 1x128 2x64 1x208 1x8"
    assert expected.split() == [str(grid) for grid in GRIDS]  # in the order in which a budget keeps them

"""The golden vector: correct vectors pass the self-check, and every kind of wrong one fails it."""

import numpy as np
import pytest

from ov_minilm import Embedder
from ov_minilm.artefact.golden import MIN_COSINE, TEXT, Golden
from ov_minilm.artefact.manifest import SHIPPED, Manifest
from ov_minilm.runtime.engine import golden_batch
from ov_minilm.spec import GRIDS, SLOTS

VECTOR = np.array([0.5, 0.5, -0.5, 0.5], np.float32)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (VECTOR, 1),
        (-VECTOR, -1),
        ([0.5, 0.5, 0.5, -0.5], 0),
        (VECTOR * 0, 0.5),  # zeros: not a unit vector
        (VECTOR * 10, -39.5),  # same direction, ten times the length
        ([0.5, 0.5, 0.5, np.nan], np.nan),
        ([0.5, 0.5, 0.5, np.inf], -np.inf),
    ],
)
def test_the_lowest_cosine_is_reported(row: list[float], expected: float) -> None:
    """The result is the lowest cosine of all rows; a row with another length, NaN or infinity fails."""
    lowest_cosine = Golden.of("a text", [101, 7, 102], VECTOR).min_cosine(np.array([VECTOR, row], np.float32))

    np.testing.assert_equal(expected, lowest_cosine)
    assert (expected == 1) == (lowest_cosine >= MIN_COSINE)
    for text in ("not base64!", "AA", "AAAA", "", "////"):  # not base64 of a float16 vector of length 1
        with pytest.raises(ValueError, match=r"golden\.vector"):
            Golden("", (), text).array()


@pytest.mark.parametrize("align", [1, 2, 32])
def test_the_golden_batch_fills_every_row(align: int) -> None:
    """Each row of a grid repeats the text as often as it fits, at multiples of `align`."""
    golden = Manifest.read(SHIPPED).golden
    tokens = len(golden.ids)
    for grid in GRIDS:
        batch = golden_batch(golden, grid, align)

        copies = max(1, grid.width // (-(-tokens // align) * align))
        assert [copies] * grid.rows == np.bincount(batch.rows).tolist()
        assert copies <= SLOTS
        assert copies * grid.rows * tokens == np.count_nonzero(batch.inputs[2])


def test_the_shipped_golden_text_is_tokenized_as_recorded(shipped: Embedder) -> None:
    """The golden ids are those of the shipped tokenizer; the self-check has a cosine above 0.998."""
    golden = Manifest.read(SHIPPED).golden

    assert TEXT.startswith(golden.text)
    assert golden.ids == tuple(shipped.tokenize([golden.text]).windows[0][0].tolist())
    assert 0.998 < shipped.self_check() <= 1

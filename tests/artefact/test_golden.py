"""The golden vector: what is right passes, and every kind of garbage does not."""

from __future__ import annotations

import numpy as np
import pytest

from ov_minilm import Embedder
from ov_minilm.artefact.golden import MIN_COSINE, TEXT, Golden
from ov_minilm.artefact.manifest import SHIPPED, Manifest
from ov_minilm.runtime.engine import golden_batch
from ov_minilm.spec import GRIDS, SLOTS, Grid

VECTOR = np.full(4, 0.5, np.float32)
GOLDEN = Golden.of("a text", [101, 7, 102], VECTOR)


def test_a_vector_comes_back_as_it_went_in() -> None:
    """The form in the manifest keeps the vector to half precision."""
    vector = np.array([0.6, -0.8, 0, 0], np.float32)

    np.testing.assert_allclose(vector, Golden.of("", [], vector).array(), atol=1e-3)


@pytest.mark.parametrize("text", ["not base64!", "AA", "AAAA", "", "////"])
def test_what_is_no_unit_vector_is_refused(text: str) -> None:
    """Bytes that are no float16, and vectors of another length than one, are a ValueError."""
    with pytest.raises(ValueError, match=r"golden\.vector"):
        Golden("", (), text).array()


@pytest.mark.parametrize(
    ("vectors", "expected"),
    [
        ([VECTOR, VECTOR], 1.0),
        ([VECTOR, -VECTOR], -1.0),
        ([VECTOR, [0.5, 0.5, -0.5, -0.5]], 0.0),
        ([VECTOR, VECTOR * 0], 0.5),  # half right for a cosine, far from passing
        ([VECTOR, [0.5, 0.5, 0.5, np.nan]], np.nan),
        ([VECTOR, [0.5, 0.5, 0.5, np.inf]], -np.inf),
    ],
)
def test_the_worst_vector_decides(vectors: list[list[float]], expected: float) -> None:
    """One bad row among good ones is what is reported: opposite, unrelated, zero, not finite."""
    lowest = GOLDEN.min_cosine(np.array(vectors, np.float32))

    np.testing.assert_equal(expected, lowest)
    assert (expected == 1.0) == (lowest >= MIN_COSINE)


def test_a_vector_of_another_length_is_wrong() -> None:
    """The right direction at ten times the length does not pass."""
    assert GOLDEN.min_cosine(VECTOR[None] * 10) < 0


@pytest.mark.parametrize("align", [1, 2, 32])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_a_batch_fills_every_row(grid: Grid, align: int) -> None:
    """Every row holds the text as often as it fits, each at a start that the precision allows."""
    golden = Manifest.read(SHIPPED).golden
    tokens = len(golden.ids)

    batch = golden_batch(golden, grid, align)

    each = max(1, grid.width // (-(-tokens // align) * align))
    assert [each] * grid.rows == np.bincount(batch.rows).tolist()
    assert each <= SLOTS
    assert each * grid.rows * tokens == np.count_nonzero(batch.inputs[2])


def test_the_shipped_golden_text_is_tokenized_as_recorded(shipped: Embedder) -> None:
    """The manifest's ids are those of its text, which begins the text that a build takes."""
    golden = Manifest.read(SHIPPED).golden

    assert TEXT.startswith(golden.text)
    assert golden.ids == tuple(shipped.tokenize([golden.text]).windows[0][0].tolist())

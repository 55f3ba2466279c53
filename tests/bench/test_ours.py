"""The rungs of the ladder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ov_minilm.bench import ours

from ov_minilm import Embedder, PrecisionUnavailable

TEXTS = ["one text", "another, somewhat longer text", "", " ".join(["long"] * 250), *(["more"] * 40)]


@pytest.mark.parametrize("variant", ["int8", "int8-native-padded", "int8-conv-padded"])
def test_rungs_give_the_vectors_of_encode(shipped: Embedder, variant: str) -> None:
    """In order, whatever shares a batch; the native kernels round differently around the same sums."""
    encode = ours.load(variant, {"int8": "", "fp32": ""}, 2)

    cosines = (encode(TEXTS, 0) * shipped.encode(TEXTS)).sum(1)

    assert cosines.min() > 0.995


def test_a_text_a_row_gives_the_bits_of_packed_rows(shipped: Embedder) -> None:
    """Packing changes the cost of a text, not its vector."""
    variant = f"int8-{shipped.info.lowering}-padded"
    encode = ours.load(variant, {"int8": "", "fp32": ""}, 2)
    with Embedder.open(precision="f32") as packed:
        assert np.array_equal(packed.encode(TEXTS), encode(TEXTS, 0))


def test_facts_are_of_what_was_loaded() -> None:
    """Read from the engine, not from the name."""
    ours.load("int8-native-padded", {"int8": "", "fp32": ""}, 1)

    facts = ours.facts("int8-native-padded")

    assert ("native", "f32", "1") == (facts["lowering"], facts["precision"], facts["threads"])


@pytest.mark.convert
@pytest.mark.parametrize("variant", ["fp32", "fp32-padded", "bf16-padded"])
def test_float_rungs_run_the_reference(built: Path, fp32: Embedder, variant: str) -> None:
    """FP32 to the last digits, BF16 to its own rounding."""
    try:
        encode = ours.load(variant, {"int8": "", "fp32": str(built / "fp32")}, 2)
    except PrecisionUnavailable as error:
        pytest.skip(str(error))

    cosines = (encode(TEXTS, 0) * fp32.encode(TEXTS)).sum(1)

    assert cosines.min() > (0.999 if variant.startswith("bf16") else 0.999999)

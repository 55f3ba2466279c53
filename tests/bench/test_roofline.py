"""Peaks, profiles and end to end: every operation is counted once and every microsecond has a place."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from ov_minilm.bench.roofline import (
    LAYOUT,
    OTHER,
    Peak,
    Profile,
    Roofline,
    Step,
    Usage,
    account,
    best,
    end_to_end,
    flop_per_token,
    kinds,
    operations,
    peaks,
    profile,
    roofline,
)

from ov_minilm import Embedder
from ov_minilm.runtime.lowering import linear_layers
from ov_minilm.spec import MINILM, Grid

GRID = Grid(1, 16)
RATES = {"int8": 1000.0, "f32": 100.0, "bf16": 400.0}
TEXTS = ["A man is slicing bread.", "Two dogs run along the beach.", "", "Rain."]
QUERY = "__module.encoder.layer.0.attention.self.query/aten::linear"
ATTENTION = "__module.encoder.layer.0.attention.self/aten::transpose/Transpose_3"


def step(name: str, *layers: str, readers: tuple[str, ...] = (), kind: str = "Subgraph") -> Step:
    """One step of 10 microseconds in an f32 kernel; named after itself unless told otherwise."""
    return Step(name, layers or (name,), kind, "jit_avx2_f32", readers, 10.0)


@pytest.fixture(scope="module")
def profiled(shipped: Embedder) -> Profile:
    """The smallest grid of the model in the package, run a few times."""
    return profile(shipped, GRID, TEXTS, RATES, seconds=0)


def test_a_token_costs_two_operations_a_weight() -> None:
    """Six layers of four 384x384 and two 384x1536 matrices."""
    assert 2 * 6 * (4 * 384 * 384 + 2 * 384 * 1536) == flop_per_token(MINILM) == 21_233_664


def test_operations_of_a_grid_equal_a_count_by_hand(shipped: Embedder) -> None:
    """Linear layers by their weights, the outlier channels beside them, and both products of attention."""
    grid, engine = Grid(2, 256), shipped._engine
    flop = operations(engine, engine.graph(grid), grid)

    outliers = sum(count for name, count in flop.items() if name.startswith("outliers"))
    assert 2 * 256 * 21_233_664 + 6 * 2 * (2 * 2 * 256 * 256 * 384) == sum(flop.values()) - outliers
    assert 512 * 5 * 2 * (2 * 384) == outliers  # five channels, up and down


@pytest.mark.parametrize("lowering", ["native", "conv"])
def test_every_linear_layer_is_found_in_what_ran(lowering: str) -> None:
    """Under both lowerings, in the model's own words, although OpenVINO renames and fuses."""
    with Embedder.open(lowering=lowering, threads=1) as embedder:  # type: ignore[arg-type]  # a str of two
        found = profile(embedder, GRID, TEXTS, RATES, seconds=0)
        every = len(list(linear_layers(embedder._engine._model)))

    layers = {name: kind.layers for name, kind in found.kinds.items() if kind.layers}
    expected = {"query, key, value": 18, "attention output": 6, "up": 6, "down": 6, "attention": 6}
    assert expected | {"outliers": every - 36} == layers


def test_the_whole_model_is_mapped(profiled: Profile) -> None:
    """The table knows every step that the shipped model runs here."""
    assert [] == profiled.unmapped
    assert OTHER not in profiled.kinds


def test_shares_sum_to_one(profiled: Profile) -> None:
    """Kinds part the time of a batch among them."""
    kinds_of_it = profiled.kinds.values()

    assert pytest.approx(1) == sum(kind.share for kind in kinds_of_it)
    assert pytest.approx(profiled.microseconds) == sum(kind.microseconds for kind in kinds_of_it)


def test_an_unknown_step_is_other_and_named() -> None:
    """A layer that the table does not know is shown, not hidden in another kind."""
    run = [step("__module.decoder/aten::new/New", readers=("pooling",)), step("pooling")]

    found = account(run, {}, 1, RATES, 30.0)

    assert ["__module.decoder/aten::new/New"] == found.unmapped
    assert 0.5 == found.kinds[OTHER].share


def test_a_step_without_a_name_of_the_model_belongs_to_its_reader() -> None:
    """Across other such steps too; what is only moved is layout, wherever it is."""
    run = [
        step("Multiply_7", readers=("Transpose_8",)),
        step("Transpose_8", readers=(ATTENTION,), kind="Transpose"),
        step("Equal_9"),
        step(ATTENTION),
    ]

    expected = {"Multiply_7": "attention", "Transpose_8": LAYOUT, "Equal_9": OTHER, ATTENTION: "attention"}
    assert expected == kinds(run)


def test_a_fused_step_counts_for_the_first_kind_of_the_table() -> None:
    """A linear layer with GELU and quantizer in it is a linear layer."""
    up = "__module.encoder.layer.3.intermediate"
    fused = step("up", f"{up}.dense/aten::linear/MatMul", "Gelu_4", "Gelu_4/nncf_smooth_quant")

    assert {"up": "up"} == kinds([fused])


def test_share_of_the_peak_is_ideal_time_over_time() -> None:
    """10 microseconds on each of two streams for 0.25 MFLOP is 50 of 100 GFLOP/s."""
    found = account([step(QUERY + "/MatMul")], {QUERY: 250_000}, 2, RATES, 30.0)

    kind = found.kinds["query, key, value"]
    assert (50.0, 0.5, 0.5) == (kind.gflops, kind.of_peak, found.of_peak)


def test_a_layer_that_did_not_run_is_an_error() -> None:
    """Its operations would be missing from a rate without a word."""
    with pytest.raises(RuntimeError, match=r"no step holds .*query"):
        account([step("pooling")], {QUERY: 1}, 1, RATES, 30.0)


def test_peaks_name_the_kernel_of_each_precision() -> None:
    """INT8 and FP32 have two kernels each, at least, and the faster one is the peak."""
    found = peaks(1, seconds=0)

    assert {"int8", "f32"} <= {peak.precision for peak in found}
    assert all(peak.kernel.lower().endswith(("i8", "f32", "bf16")) for peak in found)
    assert max(peak.gflops for peak in found if peak.precision == "f32") == best(found)["f32"]


def test_end_to_end_counts_real_tokens(shipped: Embedder) -> None:
    """Padding is no work done: rate and share come from the tokens of the texts."""
    found = end_to_end(shipped, TEXTS, 1000.0, seconds=0)

    assert sum(shipped.count_tokens(TEXTS)) == found.tokens
    assert pytest.approx(found.tokens_per_s * 21_233_664 / 1e12) == found.of_peak
    assert pytest.approx(found.tokens / 32) == found.fill  # all four fit one row


def test_a_result_is_plain_json(shipped: Embedder, profiled: Profile) -> None:
    """What is written is what is read."""
    usage = Usage("int8", "f", "f32", "conv", {"1x16": profiled}, end_to_end(shipped, TEXTS, 1.0, seconds=0))
    whole = Roofline(1, flop_per_token(MINILM), [Peak("int8", "k", [1, 2, 3], 4.0)], usage, None)

    assert asdict(whole) == json.loads(json.dumps(asdict(whole), allow_nan=False))


def test_no_texts_is_an_error() -> None:
    """Before anything is measured."""
    with pytest.raises(ValueError, match="no texts"):
        roofline(None, None, [], 1)

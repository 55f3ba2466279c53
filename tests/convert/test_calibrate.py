"""The recipe: what is quantized, what is not, and the text it is calibrated on."""

from __future__ import annotations

from ov_minilm.artefact.manifest import SHIPPED, Manifest, file_facts
from ov_minilm.convert.calibrate import CALIBRATION
from ov_minilm.drift.evaluation import read_texts
from ov_minilm.runtime.backend import ov


def test_the_calibration_text_varies() -> None:
    """At least 300 different passages of 3 to 250 words, short and long, of several scripts."""
    texts = read_texts(CALIBRATION)
    words = [len(text.split()) for text in texts]

    assert len(texts) == len(set(texts)) >= 300
    assert (min(words) >= 3, max(words) <= 250) == (True, True)
    assert sum(n < 13 for n in words) > 80
    assert sum(n > 120 for n in words) > 60
    for first, final in ("ая", "ءي", "一鿿", "अह", "àÿ", "กฮ", "가힣"):
        assert any(first <= char <= final for text in texts for char in text), first


def test_the_shipped_model_was_calibrated_on_it() -> None:
    """The manifest's recipe names this file, by its hash."""
    recipe = Manifest.read(SHIPPED).recipe

    assert recipe is not None
    assert file_facts(CALIBRATION).sha256 == recipe.calibration_sha256


def test_attention_pooling_and_normalisation_stay_in_float() -> None:
    """No quantizer feeds them, nor the products of outlier channels; every other linear layer has one."""
    quantized: set[str] = set()
    in_float: set[str] = set()
    for node in ov.Core().read_model(SHIPPED / "model.xml").get_ordered_ops():
        if node.get_type_name() in ("MatMul", "ScaledDotProductAttention", "NormalizeL2"):
            sources = {node.input_value(i).get_node().get_type_name() for i in range(node.get_input_size())}
            (quantized if "FakeQuantize" in sources else in_float).add(node.get_friendly_name())

    assert 40 == len(quantized)
    assert 6 + 1 + 1 + 4 == len(in_float)
    assert {"pooling", "normalize"} < in_float
    assert 4 == sum(name.startswith("outliers_down") for name in in_float)

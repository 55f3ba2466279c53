"""Which layers the shipped model quantizes and how, and the texts it is calibrated on."""

import numpy as np

from ov_minilm.artefact.manifest import SHIPPED, Manifest, file_facts
from ov_minilm.convert.calibrate import CALIBRATION
from ov_minilm.drift.evaluation import read_texts
from ov_minilm.runtime.backend import ov
from ov_minilm.runtime.lowering import linear_layers
from ov_minilm.runtime.weights import is_compressed


def test_calibration_texts_vary_in_length_and_script() -> None:
    """Passages have 3 to 250 words and several scripts; the shipped manifest has the hash of the file."""
    texts = read_texts(CALIBRATION)
    words = [len(text.split()) for text in texts]
    recipe = Manifest.read(SHIPPED).recipe

    assert recipe is not None
    assert file_facts(CALIBRATION).sha256 == recipe.calibration_sha256
    assert len(texts) == len(set(texts)) >= 300
    assert (min(words) >= 3, max(words) <= 250) == (True, True)
    assert sum(n < 13 for n in words) > 80
    assert sum(n > 120 for n in words) > 60
    for first, final in ("ая", "ءي", "一鿿", "अह", "àÿ", "กฮ", "가힣"):
        assert any(first <= char <= final for text in texts for char in text), first


def test_the_shipped_graph_follows_the_recipe() -> None:
    """Attention, pooling and outlier channels are float; weights are pair-safe, scales of tables BF16."""
    model = ov.Core().read_model(SHIPPED / "model.xml")
    quantized, float_layers, scales = set[str](), set[str](), []
    for node in model.get_ordered_ops():
        if node.get_type_name() in ("MatMul", "ScaledDotProductAttention", "NormalizeL2"):
            sources = {node.input_value(i).get_node().get_type_name() for i in range(node.get_input_size())}
            (quantized if "FakeQuantize" in sources else float_layers).add(node.get_friendly_name())
        if is_compressed(node):
            scales.append(node.input_value(0).get_node().input_value(1).get_node().data)

    assert (40, 6 + 1 + 1 + 4) == (len(quantized), len(float_layers))
    assert {"pooling", "normalize"} < float_layers
    assert 4 == sum(name.startswith("outliers_down") for name in float_layers)
    weights = [
        weight.data.astype(np.int32) for _, weight in linear_layers(model) if weight.data.dtype == np.int8
    ]
    assert 40 == len(weights)
    for sign in (1, -1):  # neighbours of one sign cannot saturate int16
        positive_and_negative = [np.maximum(sign * weight, 0) for weight in weights]
        assert 128 >= max((part[:, 0::2] + part[:, 1::2]).max() for part in positive_and_negative)
    assert [0, 0] == [int((scale.view(np.uint32) & 0xFFFF).max()) for scale in scales]

"""The lowering of INT8 linear layers to 1x1 convolutions."""

from pathlib import Path

import numpy as np
import pytest

from ov_minilm.artefact.manifest import SHIPPED
from ov_minilm.runtime.backend import ov
from ov_minilm.runtime.lowering import linear_layers, lower


def read_static(path: Path) -> ov.Model:
    """Read a graph with the shape of a grid."""
    model = ov.Core().read_model(path)
    model.reshape({i.any_name: [2, 64] for i in model.inputs})
    return model


def test_every_int8_layer_is_lowered() -> None:
    """All 40 INT8 layers and no float layer change; query, key and value share one transposition."""
    model = read_static(SHIPPED / "model.xml")

    assert 40 == lower(model)
    convolutions = [node for node in model.get_ordered_ops() if node.get_type_name() == "Convolution"]
    assert 40 == len(convolutions)
    assert all(w.data.dtype != np.int8 for _, w in linear_layers(model))
    assert [2, 32, 384] == list(model.output().shape)
    assert 24 <= len({node.input_value(0).get_node().get_friendly_name() for node in convolutions}) <= 28


@pytest.mark.convert
def test_an_fp32_graph_is_not_changed(built: Path) -> None:
    """An FP32 graph has no quantized layer, so nothing is lowered."""
    assert 0 == lower(read_static(built / "fp32/model.xml"))

"""The packed graph: inputs, output, vectors, and equal bytes each time it is saved."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.checkpoints import TEXTS

from ov_minilm.artefact.manifest import file_facts
from ov_minilm.convert import check, graph
from ov_minilm.convert.calibrate import samples
from ov_minilm.convert.source import WEIGHTS, find
from ov_minilm.runtime.backend import ops, ov
from ov_minilm.runtime.tokens import Tokens


def small_graph() -> ov.Model:
    """Return a graph whose nodes are named by OpenVINO's process-wide counter."""
    x = ops.parameter([-1, 4], ov.Type.f32, name="x")
    y = ops.add(ops.matmul(x, ops.constant(np.eye(4, dtype=np.float32)), False, False), np.float32(1))
    y.output(0).set_names({"y"})
    return ov.Model([y.output(0)], [x], "small")


def test_equal_graphs_are_saved_as_equal_bytes(tmp_path: Path) -> None:
    """Names that differ by OpenVINO's counter of nodes do not change the bytes."""
    for name in ("a", "b"):
        graph.save(small_graph(), tmp_path / f"{name}.xml")

    assert (tmp_path / "a.xml").read_bytes() == (tmp_path / "b.xml").read_bytes()
    assert (tmp_path / "a.bin").read_bytes() == (tmp_path / "b.bin").read_bytes()


def test_a_full_disk_is_an_error(tmp_path: Path) -> None:
    """A graph that was not written to its last byte is never accepted."""
    resource = pytest.importorskip("resource")
    graph.save(small_graph(), tmp_path / "whole.xml")
    size = (tmp_path / "whole.xml").stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    for room in (0, 40, size // 2, size - 1):
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
        try:
            with pytest.raises(OSError, match="could not be written, the disk may be full"):
                graph.save(small_graph(), tmp_path / "cut.xml")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.slow  # imports torch and optimum; test_siblings.py compares with sentence-transformers
@pytest.mark.convert
@pytest.mark.parametrize("kind", ["paraphrase-MiniLM", "arctic"])  # mean pooling, BF16; CLS pooling
def test_the_packed_graph_computes_what_the_export_of_optimum_intel_does(
    converted: Callable[[str], Path], tmp_path: Path, kind: str
) -> None:
    """The graph built from the weights alone gives the vectors of the graph traced from torch."""
    folder = converted(kind) / "checkpoint"
    checkpoint = find(str(folder), None, file_facts(folder / WEIGHTS).sha256)
    (tmp_path / "tokenizer.json").write_text(checkpoint.tokenizer, encoding="utf-8")
    rows = samples(TEXTS, Tokens.open(tmp_path / "tokenizer.json", checkpoint.spec))

    packed = graph.pack(checkpoint.tensors, checkpoint.spec, checkpoint.epsilon)
    compiled = ov.compile_model(packed, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    actual = np.stack([compiled(row)[0][0, 0] for row in rows])

    code = f"from support import checkpoints; checkpoints.export_by_optimum({str(folder)!r}, 'export.xml')"
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=os.environ | path, check=True)
    export = ov.Core().read_model(tmp_path / "export.xml")
    expected = check.graph_vectors(export, rows, checkpoint.spec.pooling)
    assert (expected.astype(np.float64) * actual).sum(1).min() > 1 - 1e-6

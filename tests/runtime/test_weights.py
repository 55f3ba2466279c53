"""Weights are in memory once: tables stay INT8, and each file is copied once and may change later."""

import gc
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from support.processes import python

from ov_minilm import Embedder
from ov_minilm.artefact.manifest import GRAPH, SHIPPED, WEIGHTS
from ov_minilm.runtime.backend import ops, ov
from ov_minilm.runtime.weights import gather_before_dequantize, read

PEAK = r"""
import re
from pathlib import Path
from ov_minilm import Embedder
texts = [f"A man is slicing bread number {i} near the river" for i in range(1500)]
Embedder.open(threads=2).encode(texts, progress=False)
print(int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024)
"""


def test_gathering_before_dequantizing_gives_the_same_rows() -> None:
    """Rows equal those of a table that is dequantized first; a float table is not changed."""
    scales = np.array([[0.5], [1.0], [2.0], [3.0], [0.25]], np.float32)
    floats = np.arange(-5, 5, dtype=np.float32).reshape(5, 2)
    ids = ops.parameter([-1], ov.Type.i32)
    table = ops.multiply(ops.convert(ops.constant(floats.astype(np.int8)), "f32"), ops.constant(scales))
    for lookup, expected in ((table, floats * scales), (ops.constant(floats), floats)):
        model = ov.Model([ops.gather(lookup, ids, np.int32(0)).output(0)], [ids], "lookup")

        assert (lookup is table) == gather_before_dequantize(model)
        actual = ov.Core().compile_model(model, "CPU")(np.array([4, 0, 4, 2], np.int32))[0]
        assert expected[[4, 0, 4, 2]].tolist() == actual.tolist()


def test_a_compiled_model_outlives_what_it_was_compiled_from() -> None:
    """File copy, model and Core may be freed before the compiled model; the table stays INT8."""
    model, weights = read(ov.Core(), SHIPPED / GRAPH, SHIPPED / WEIGHTS)
    model.reshape({i.any_name: [1, 16] for i in model.inputs})
    compiled = ov.Core().compile_model(model, "CPU")
    inputs = [np.ones((1, 16), np.int32)] * 3
    expected = compiled(inputs)[0]

    weights.release()
    released = compiled(inputs)[0]
    del model, weights
    gc.collect()

    assert (1, 32, 384) == expected.shape
    assert np.array_equal(expected, released)
    assert np.array_equal(expected, compiled(inputs)[0])
    outputs = [op.output(0) for op in compiled.get_runtime_model().get_ordered_ops() if op.get_output_size()]
    tables = [output for output in outputs if list(output.get_shape()) == [30522, 384]]
    assert ["i8"] == [table.get_element_type().get_type_name() for table in tables]


def test_a_file_is_copied_once(tmp_path: Path) -> None:
    """Readers of a file share one copy; if another file replaces it, a new copy is made."""
    for name in (GRAPH, WEIGHTS):
        shutil.copyfile(SHIPPED / name, tmp_path / name)
    core = ov.Core()
    first, second = (read(core, tmp_path / GRAPH, tmp_path / WEIGHTS)[1] for _ in range(2))
    shutil.copyfile(SHIPPED / WEIGHTS, tmp_path / "new")
    (tmp_path / "new").replace(tmp_path / WEIGHTS)

    assert first is second
    assert first is not read(core, tmp_path / GRAPH, tmp_path / WEIGHTS)[1]


def test_changes_of_the_file_do_not_reach_a_running_process(tmp_path: Path, shipped: Embedder) -> None:
    """After model.bin is overwritten, truncated or deleted, all grids give the same bits as before."""
    folder, texts = tmp_path / "model", ["a", *("stone " * n for n in (10, 25, 50))]
    shutil.copytree(SHIPPED, folder)
    code = (  # in a new process, because reading a truncated mapped file kills the process
        "import os; from pathlib import Path; import numpy as np; from ov_minilm import Embedder\n"
        f"folder = Path({str(folder)!r}); path = folder / 'model.bin'; texts = {texts!r}\n"
        "with Embedder.open(folder) as e:\n"
        "    vectors = [e.encode(texts[0])]\n"
        "    path.open('r+b').write(os.urandom(path.stat().st_size)); vectors.append(e.encode(texts[1]))\n"
        "    os.truncate(path, 1000); vectors.append(e.encode(texts[2]))\n"
        "    path.unlink(); vectors.append(e.encode(texts[3]))\n"
        f"    np.save({str(tmp_path / 'vectors.npy')!r}, [vectors, [e.encode(text) for text in texts]])"
    )

    result = python(code)

    assert 0 == result.returncode, result.stderr
    expected = [shipped.encode(text) for text in texts]
    assert np.array_equal([expected, expected], np.load(tmp_path / "vectors.npy"))


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss would count the parent's peak too")
def test_memory_of_a_process_is_bounded() -> None:
    """Encoding 1,500 short texts with two threads takes at most 260 MB; 232 MB were measured."""
    result = python(PEAK)

    assert 0 == result.returncode, result.stderr
    assert float(result.stdout) <= 260

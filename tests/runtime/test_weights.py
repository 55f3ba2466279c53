"""Weights in memory once: tables looked up in place, one copy a file, out of reach of others."""

from __future__ import annotations

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
from ov_minilm.spec import FloatArray

PEAK = r"""
import re
from pathlib import Path
from ov_minilm import Embedder
texts = [f"A man is slicing bread number {i} near the river" for i in range(1500)]
Embedder.open(threads=2).encode(texts, progress=False)
print(int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024)
"""


def table_lookup(scales: FloatArray) -> ov.Model:
    """Look rows up in an INT8 table [5, 2] that is dequantized as a whole."""
    table = ops.constant(np.arange(-5, 5, dtype=np.int8).reshape(5, 2))
    ids = ops.parameter([-1], ov.Type.i32)
    floats = ops.multiply(ops.convert(table, "f32"), ops.constant(scales))
    return ov.Model([ops.gather(floats, ids, np.int32(0)).output(0)], [ids], "lookup")


def test_rows_are_the_rows_of_the_dequantized_table() -> None:
    """Looking up first gives the numbers that dequantizing first gives."""
    scales = np.array([[0.5], [1.0], [2.0], [3.0], [0.25]], np.float32)
    model = table_lookup(scales)

    assert 1 == gather_before_dequantize(model)
    found = ov.Core().compile_model(model, "CPU")(np.array([4, 0, 4, 2], np.int32))[0]
    expected = np.arange(-5, 5, dtype=np.float32).reshape(5, 2) * scales
    assert expected[[4, 0, 4, 2]].tolist() == found.tolist()


def test_no_compiled_model_holds_a_float_table() -> None:
    """The tables of the shipped model are INT8 after compilation too."""
    model, _ = read(ov.Core(), SHIPPED / GRAPH, SHIPPED / WEIGHTS)
    model.reshape({i.any_name: [1, 16] for i in model.inputs})
    compiled = ov.Core().compile_model(model, "CPU")

    tables = [
        node.output(0).get_element_type().get_type_name()
        for node in compiled.get_runtime_model().get_ordered_ops()
        if node.get_output_size() and list(node.output(0).get_shape()) == [30522, 384]
    ]
    assert ["i8"] == tables


def test_a_float_table_is_left_alone() -> None:
    """Without Convert and Multiply there is nothing to rewrite."""
    ids = ops.parameter([-1], ov.Type.i32)
    rows = ops.gather(ops.constant(np.ones((5, 2), np.float32)), ids, np.int32(0))

    assert 0 == gather_before_dequantize(ov.Model([rows.output(0)], [ids], "lookup"))


def test_models_of_one_file_share_a_copy(tmp_path: Path) -> None:
    """Two reads of a file copy it once; the same path with a new file is copied again."""
    for name in (GRAPH, WEIGHTS):
        shutil.copyfile(SHIPPED / name, tmp_path / name)
    core = ov.Core()
    first, second = (read(core, tmp_path / GRAPH, tmp_path / WEIGHTS)[1] for _ in range(2))
    shutil.copyfile(SHIPPED / WEIGHTS, tmp_path / "new")
    (tmp_path / "new").replace(tmp_path / WEIGHTS)

    assert first is second
    assert first is not read(core, tmp_path / GRAPH, tmp_path / WEIGHTS)[1]


CHANGES = {
    "cut short": "os.truncate(path, 1000)",
    "written over": "path.open('r+b').write(os.urandom(path.stat().st_size))",
    "replaced": "(folder / 'new').write_bytes(b'x'); (folder / 'new').replace(path)",
    "removed": "path.unlink()",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_running_process_never_sees_what_happens_to_the_file(
    tmp_path: Path, shipped: Embedder, change: str
) -> None:
    """After model.bin was changed in any way, compiled grids and new ones give the bits they gave before."""
    folder = tmp_path / "model"
    shutil.copytree(SHIPPED, folder)
    long = "stone " * 100
    code = (  # in a process of its own: a mapped file that is cut short kills
        "import os; from pathlib import Path; import numpy as np; from ov_minilm import Embedder\n"
        f"folder = Path({str(folder)!r}); path = folder / 'model.bin'\n"
        "with Embedder.open(folder) as e:\n"
        "    e.encode('a')\n"
        f"    {CHANGES[change]}\n"
        f"    np.save({str(tmp_path / 'vectors.npy')!r}, [e.encode('one text'), e.encode({long!r})])"
    )

    done = python(code)

    assert 0 == done.returncode, done.stderr
    expected = np.stack([shipped.encode("one text"), shipped.encode(long)])
    assert np.array_equal(expected, np.load(tmp_path / "vectors.npy"))


def test_a_compiled_model_outlives_what_it_was_read_with() -> None:
    """The copy stays when its pages are given back, and when the model, Weights and Core are gone."""
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


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss would count the parent's peak too")
def test_a_process_that_encodes_short_texts_stays_small() -> None:
    """1,500 short texts with two threads take no more than 260 MB at the peak: 232 and some room."""
    done = python(PEAK)

    assert 0 == done.returncode, done.stderr
    assert float(done.stdout) <= 260

"""Read the graph with one private copy of the weights, which all compiled grids share.

Each compiled grid has its own repacked weights. OpenVINO needs the weights of the file only while it
compiles; afterwards it reads only rows of the embedding tables.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from functools import cache
from pathlib import Path

import numpy as np

from ov_minilm.runtime.backend import ops, ov

BLOCK_BYTES = 1 << 20
_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None  # of glibc


class Weights:
    """A copy of a file of weights. A model that is read from it refers to the copy.

    If the file itself were mapped, later changes would take effect: overwriting it would give wrong vectors,
    and truncating it would kill the process.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._mapping = mmap.mmap(-1, os.fstat(file.fileno()).st_size)
            view = memoryview(self._mapping)
            for start in range(0, len(view), BLOCK_BYTES):
                block = view[start : start + BLOCK_BYTES]
                if file.readinto(block) != len(block):
                    raise OSError(f"{path} was cut short while it was read")
                self.release()
        self.tensor = ov.Tensor(np.frombuffer(self._mapping, np.uint8), shared_memory=True)
        # OpenVINO's pointers do not keep the mapping alive, and its threads may still run when Python exits.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self.tensor))

    def release(self) -> None:
        """Return memory to the operating system after a compilation: pages of weights, and freed allocations.

        The weights stay in shared memory; their pages are mapped again when they are used.
        """
        if hasattr(mmap, "MADV_DONTNEED"):
            self._mapping.madvise(mmap.MADV_DONTNEED)
        if _malloc_trim is not None:
            _malloc_trim(0)


def read(core: ov.Core, graph: Path, weights: Path) -> tuple[ov.Model, Weights]:
    """Read a graph for compilation; models of the same file share one copy until Python exits."""
    copy = shared_copy(weights)
    model = core.read_model(graph.read_bytes(), copy.tensor)
    gather_before_dequantize(model)
    return model, copy


def shared_copy(path: Path) -> Weights:
    """Return the copy of a file, made at the first call; processes that are forked later share this copy."""
    facts = path.stat()
    return _copy(path.resolve(), facts.st_ino, facts.st_mtime_ns)


@cache
def _copy(path: Path, _inode: int, _changed: int) -> Weights:
    """Copy a file; one that has changed since the last call is copied again."""
    return Weights(path)


def gather_before_dequantize(model: ov.Model) -> int:
    """Rewrite every lookup into a compressed table, in place; return their number.

    Before: table [V, D] -> Convert -> Multiply by scales [V, 1] -> Gather. OpenVINO folds this to a float
    table in every compiled model, 47 MB for 30,522 words. After: Gather of INT8 rows -> Convert -> Multiply
    by the Gather of their scales. The Gather reads the INT8 table in the file, and nothing is folded.
    """
    lookups = [node for node in model.get_ordered_ops() if is_compressed(node)]
    for lookup in lookups:
        dequantized = lookup.input_value(0).get_node()
        table = dequantized.input_value(0).get_node().input_value(0)
        scales, ids = dequantized.input_value(1), lookup.input_value(1)
        rows = ops.convert(ops.gather(table, ids, np.int32(0)), "f32")
        result = ops.multiply(rows, ops.gather(scales, ids, np.int32(0)))
        for reader in list(lookup.output(0).get_target_inputs()):
            reader.replace_source_output(result.output(0))
    model.validate_nodes_and_infer_types()
    return len(lookups)


def is_compressed(node: ov.Node) -> bool:
    """Return whether a node is a lookup into constant -> Convert -> Multiply."""
    for kind in ("Gather", "Multiply", "Convert"):
        if node.get_type_name() != kind:
            return False
        node = node.input_value(0).get_node()
    return bool(node.get_type_name() == "Constant")

"""Batches in, vectors out, on one device.

A grid is compiled when a batch first needs it, which takes about 0.4 s, or 0.15 s with the cache on disk. A
compiled grid is kept until the engine is closed; the plan limits the number of grids.
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections import defaultdict
from collections.abc import Collection
from functools import partial
from pathlib import Path

import numpy as np

from ov_minilm.artefact.golden import MIN_COSINE, Golden
from ov_minilm.artefact.manifest import GRAPH, WEIGHTS, Manifest
from ov_minilm.errors import ForkedProcess, OvMiniLMError, PrecisionUnavailable, SelfCheckFailed
from ov_minilm.runtime.backend import ov
from ov_minilm.runtime.cache import AnyPath, Cache
from ov_minilm.runtime.devices import device_names
from ov_minilm.runtime.grids import INPUTS, CompiledGrid
from ov_minilm.runtime.lowering import lower, write_out_attention
from ov_minilm.runtime.packing import Batch, Text, aligned, fill
from ov_minilm.runtime.plan import Kernels, Options, Plan
from ov_minilm.runtime.weights import read
from ov_minilm.spec import FloatArray, Grid


class Engine:
    """Runs batches of one artefact on one device. Threads may share it."""

    def __init__(self, folder: Path, manifest: Manifest, options: Options, cache_dir: AnyPath | None) -> None:
        """Make a plan and read the graph.

        On the CPU a grid is compiled by its first batch. On other devices the smallest grid is compiled here,
        so that a driver fault is reported at once.
        """
        self._core = _new_core()
        self.plan = Plan.choose(self._core, manifest, options)
        self._model, self._weights = read(self._core, folder / GRAPH, folder / WEIGHTS)
        self._golden = manifest.golden
        self._compiled: dict[Grid, CompiledGrid] = {}
        self._compiling: defaultdict[Grid, threading.Lock] = defaultdict(threading.Lock)
        self._cache = None
        if cache_dir is not None:
            facts: dict[str, object] = {"fingerprint": manifest.fingerprint, "kernel": self.plan.kernel}
            facts |= {"hardware": device_names(self._core, self.plan.device), "lowering": self.plan.lowering}
            self._cache = Cache.open(cache_dir, manifest.fingerprint, facts)
        _live.add(self)
        if self.plan.device != "CPU":
            self.compile(min(self.plan.grids, key=lambda grid: grid.cells))

    @property
    def compiled(self) -> Collection[Grid]:
        """The grids that are compiled."""
        return self._compiled.keys()

    def run(self, batch: Batch) -> FloatArray:  # -> [N, D]
        """Return the unit vectors of the batch's texts, in their order."""
        return self.compile(batch.grid).run(batch)

    def compile(self, grid: Grid) -> CompiledGrid:
        """Return a compiled grid. The first call for a grid compiles it; simultaneous calls for it wait."""
        if grid not in self._compiled:
            with self._compiling[grid]:
                if grid not in self._compiled:
                    self._compiled[grid] = self._compile(grid)
        return self._compiled[grid]

    def graph(self, grid: Grid) -> ov.Model:
        """Return the graph for a grid, with static shape and the rewrites that the plan asks for."""
        model = self._model.clone()
        model.reshape({name: [grid.rows, grid.width] for name in INPUTS})
        if self.plan.device == "CPU" and self.plan.lane_of(grid).precision == "f32":
            write_out_attention(model)
        if self.plan.lowering == "conv":
            lower(model)
        return model

    def close(self) -> None:
        """Free the compiled grids."""
        self._compiled.clear()

    def _compile(self, grid: Grid) -> CompiledGrid:
        """Read a compiled grid from the cache, or compile and store it; check it in both cases.

        Raises:
            SelfCheckFailed: the newly compiled grid gives wrong vectors.
        """
        device, config = self.plan.device, self.plan.config(grid)
        checked = partial(self._checked_grid, grid)
        if kept := self._cache and self._cache.load_model(self._core, device, str(grid), config, checked):
            return kept
        try:
            compiled = self._core.compile_model(self.graph(grid), device, config)
        except RuntimeError as error:
            raise OvMiniLMError(f"OpenVINO cannot compile {grid} for {device}: {error}") from error
        self._weights.release()
        if device == "CPU":
            requested = self.plan.lane_of(grid).precision
            chosen = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
            if chosen != requested:
                raise PrecisionUnavailable(requested, device, f"OpenVINO chose {chosen}")
        compiled_grid = checked(compiled)
        if self._cache:
            self._cache.store_model(compiled, device, str(grid), config)
        return compiled_grid

    def _checked_grid(self, grid: Grid, compiled: ov.CompiledModel) -> CompiledGrid:
        compiled_grid = CompiledGrid(compiled)
        batch = golden_batch(self._golden, grid, self.plan.lane_of(grid).align)
        compiled_grid.cosine = self._golden.min_cosine(compiled_grid.run(batch))
        if not compiled_grid.cosine >= MIN_COSINE:
            raise SelfCheckFailed(f"{grid} on {self.plan.device}", compiled_grid.cosine, MIN_COSINE)
        return compiled_grid


def golden_batch(golden: Golden, grid: Grid, align: int) -> Batch:
    """Fill all rows of a grid with copies of the golden text, to detect a fault in any row."""
    each = min(grid.slots, max(1, grid.width // aligned(len(golden.ids), align)))
    return fill(grid, [[Text(np.array(golden.ids, np.int32))] * each] * grid.rows, align)


def survey() -> tuple[str, dict[str, str], Kernels]:
    """Return OpenVINO's version, the devices with their full names, and the kernels of the CPU."""
    core = ov.Core()
    return ov.get_version(), device_names(core, "AUTO"), Kernels.probe(core)


_live: weakref.WeakSet[Engine] = weakref.WeakSet()
_started: int | None = None  # id of the process that first used OpenVINO


def _new_core() -> ov.Core:
    """Return a new Core.

    Raises:
        ForkedProcess: OpenVINO was used before a fork; its thread pools remain even after everything was
            closed.
    """
    global _started
    if _started not in (None, os.getpid()):
        raise ForkedProcess(_started, os.getpid())
    _started = os.getpid()
    return ov.Core()


def _leak_engines() -> None:
    """Never destroy engines in a forked child, because it would wait for threads of the parent."""
    for engine in _live:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(engine))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leak_engines)

"""Batches in, vectors out, on one device.

With plan.py (how), grids.py (where), weights.py and lowering.py (what) this is all that knows OpenVINO at
run time.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from ov_minilm.backend import ov
from ov_minilm.errors import ForkedProcess, OvMiniLMError, PrecisionUnavailable
from ov_minilm.grids import INPUTS, CompiledGrids, Flight
from ov_minilm.lowering import lower
from ov_minilm.manifest import GRAPH, WEIGHTS, Manifest
from ov_minilm.packing import Batch
from ov_minilm.plan import Plan
from ov_minilm.spec import FloatArray, Grid
from ov_minilm.weights import Weights, read


class Engine:
    """Runs batches of one artefact on one device. Threads may share it."""

    def __init__(
        self, core: ov.Core, model: ov.Model, weights: Weights, plan: Plan, cache_dir: Path | None
    ) -> None:
        self.plan = plan
        self._core = core
        self._model = model
        self._weights = weights
        self._cache_dir = cache_dir
        self._grids = CompiledGrids(plan, self._compile)
        _live.add(self)

    @classmethod
    def open(
        cls,
        folder: Path,
        manifest: Manifest,
        *,
        device: str,
        precision: Literal["auto", "f32", "bf16", "f16"],
        lowering: Literal["auto", "native", "conv"],
        threads: int,
        cache_dir: Path | None,
    ) -> Engine:
        """Read the graph and settle the plan.

        On the CPU the plan comes from layers that were compiled. Other devices compile the smallest grid;
        the CPU leaves that to the first text that needs it, for its 35 MB.
        """
        global _started
        if _started not in (None, os.getpid()):  # even if all is closed: OpenVINO's thread pools stay
            raise ForkedProcess(_started, os.getpid())
        _started = os.getpid()
        core = ov.Core()
        plan = Plan.settle(
            core, manifest, device=device, precision=precision, lowering=lowering, threads=threads
        )
        model, weights = read(core, folder / GRAPH, folder / WEIGHTS)
        if cache_dir is not None:
            cache_dir = cache_dir / f"{manifest.fingerprint}-{ov.get_version().split('-')[0]}"
        engine = cls(core, model, weights, plan, cache_dir)
        if device != "CPU":
            engine._grids.host(min(plan.grids, key=lambda grid: grid.cells))
        return engine

    @property
    def compiled(self) -> tuple[Grid, ...]:
        """The grids that are compiled now."""
        return self._grids.kept

    def start(self, batch: Batch) -> Flight:
        """Begin to run a batch; `land` on what is returned waits for its vectors [R, S, D].

        Empty slots hold zeros. The next batches may be started meanwhile, and are best made then: one more
        in flight than there are streams, so that no stream waits for Python.
        """
        return Flight.start(batch, self._grids.host(batch.grid))

    def run(self, batch: Batch) -> FloatArray:  # -> [R, S, D]
        """Return unit vectors for every slot; empty slots hold zeros."""
        flight = self.start(batch)
        vectors: FloatArray = flight.land().copy()
        flight.release()
        return vectors

    def stream(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, FloatArray]]:
        """Run batches as they come and yield each with its vectors [R, S, D], in order.

        The vectors hold until the next pair is asked for. The next batches are drawn, and so packed, while
        earlier ones run.
        """
        flying: deque[Flight] = deque()
        try:
            for batch in batches:
                flying.append(self.start(batch))
                if len(flying) > self.plan.threads:
                    yield from _land(flying)
            while flying:
                yield from _land(flying)
        finally:
            while flying:  # left behind by an error, or by a reader that stopped
                for _ in _land(flying):
                    pass

    def graph(self, grid: Grid) -> ov.Model:
        """Return the graph that is compiled for a grid: of static shape, and lowered if the plan says so."""
        model = self._model.clone()
        model.reshape({name: [grid.rows, grid.width] for name in INPUTS})
        if self.plan.lowering == "conv":
            lower(model)
        return model

    def close(self) -> None:
        """Free the compiled grids."""
        self._grids.clear()

    def abandon(self) -> None:
        """Never destroy what OpenVINO made: in a fork that would wait for threads that are gone."""
        for thing in (self._core, self._model, *self._grids.owned):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))

    def _compile(self, grid: Grid) -> ov.CompiledModel:
        config = self.plan.config(grid)
        if self._cache_dir is not None:
            config["CACHE_DIR"] = str(self._cache_dir)
        try:
            compiled = self._core.compile_model(self.graph(grid), self.plan.device, config)
        except RuntimeError as error:
            raise OvMiniLMError(f"OpenVINO cannot compile {grid} for {self.plan.device}: {error}") from error
        self._weights.release()
        if self.plan.device == "CPU":
            found = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
            asked = self.plan.precision_of(grid)
            if found != asked:
                raise PrecisionUnavailable(asked, self.plan.device, f"OpenVINO chose {found}")
        return compiled


def _land(flying: deque[Flight]) -> Iterator[tuple[Batch, FloatArray]]:
    """Wait for the oldest, hand out its vectors, and release it once they were read."""
    flight = flying.popleft()
    vectors = flight.land()
    try:
        yield flight.batch, vectors
    finally:
        flight.release()


_live: weakref.WeakSet[Engine] = weakref.WeakSet()
_started: int | None = None  # the process in which OpenVINO was first used


def _abandon_all() -> None:
    for engine in _live:
        engine.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)

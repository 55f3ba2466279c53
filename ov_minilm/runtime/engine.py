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
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import numpy as np

from ov_minilm._version import __version__
from ov_minilm.artefact.golden import LEAST_COSINE, Golden
from ov_minilm.artefact.manifest import GRAPH, WEIGHTS, Manifest
from ov_minilm.errors import ForkedProcess, OvMiniLMError, PrecisionUnavailable, SelfCheckFailed
from ov_minilm.runtime.backend import ov
from ov_minilm.runtime.cache import Cache
from ov_minilm.runtime.grids import INPUTS, CompiledGrids, Flight, Request
from ov_minilm.runtime.lowering import lower
from ov_minilm.runtime.packing import Batch, Row, cells, fill
from ov_minilm.runtime.plan import Kernels, Plan, hardware
from ov_minilm.runtime.weights import Weights, read
from ov_minilm.spec import FloatArray, Grid


class Engine:
    """Runs batches of one artefact on one device. Threads may share it."""

    def __init__(
        self,
        core: ov.Core,
        model: ov.Model,
        weights: Weights,
        plan: Plan,
        golden: Golden,
        cache: Cache | None,
    ) -> None:
        self.plan = plan
        self._core = core
        self._model = model
        self._weights = weights
        self._golden = golden
        self._cache = cache
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
        max_batch_tokens: int | None,
        cache_dir: Path | None,
    ) -> Engine:
        """Read the graph and settle the plan.

        On the CPU the plan comes from layers that were compiled. Other devices compile the smallest grid;
        the CPU leaves that to the first text that needs it, for its 38 MB.
        """
        global _started
        if _started not in (None, os.getpid()):  # even if all is closed: OpenVINO's thread pools stay
            raise ForkedProcess(_started, os.getpid())
        _started = os.getpid()
        core = ov.Core()
        plan = Plan.settle(
            core,
            manifest,
            device=device,
            precision=precision,
            lowering=lowering,
            threads=threads,
            max_batch_tokens=max_batch_tokens,
        )
        model, weights = read(core, folder / GRAPH, folder / WEIGHTS)
        cache = None
        if cache_dir is not None:
            facts = {
                "fingerprint": manifest.fingerprint,
                "ov-minilm": __version__,
                "openvino": ov.get_version(),
                "hardware": hardware(core, device),
                "plan": asdict(plan),
            }
            cache = Cache(cache_dir / manifest.fingerprint, facts)
        engine = cls(core, model, weights, plan, manifest.golden, cache)
        if device != "CPU":
            engine._grids.host(min(plan.grids, key=lambda grid: grid.cells))
        return engine

    @property
    def compiled(self) -> tuple[Grid, ...]:
        """The grids that are compiled now."""
        return self._grids.kept

    def warm_up(self) -> None:
        """Compile every grid, and keep them all."""
        self._grids.keep_all()

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

    def check(self, grid: Grid) -> float:
        """Compile a grid, beside those there are, and return its least cosine to the golden vector.

        Raises:
            SelfCheckFailed: it is under 0.99, or not a number.
        """
        return self._cosine(self._compile(grid), grid)

    def _compile(self, grid: Grid) -> ov.CompiledModel:
        """Take a grid from the cache, or compile it and keep it there; either proves itself first.

        Raises:
            SelfCheckFailed: what was just compiled gives wrong vectors.
        """
        if self._cache is None:
            return self._proven(self._compile_anew(grid), grid)
        config = self.plan.config(grid)
        facts = {"grid": str(grid), "config": config}
        blob = self._cache.load(str(grid), facts)
        if blob is not None:
            try:
                return self._proven(self._core.import_model(blob, self.plan.device, config), grid)
            except (RuntimeError, SelfCheckFailed) as error:
                self._cache.drop(str(grid), facts, str(error))
        compiled = self._proven(self._compile_anew(grid), grid)
        try:
            self._cache.store(str(grid), facts, compiled.export_model().getvalue())
        except RuntimeError:  # AUTO, MULTI and BATCH have no export
            self._cache.say(f"{self.plan.device} cannot export its models")
        return compiled

    def _proven(self, compiled: ov.CompiledModel, grid: Grid) -> ov.CompiledModel:
        self._cosine(compiled, grid)
        return compiled

    def _cosine(self, compiled: ov.CompiledModel, grid: Grid) -> float:
        batch = golden_batch(self._golden, grid, self.plan.align_of(grid))
        request = Request(compiled, grid)
        request.start(batch)
        cosine = self._golden.worst(request.finish()[:, : grid.slots][batch.owner >= 0])
        if not cosine >= LEAST_COSINE:
            raise SelfCheckFailed(f"{grid} on {self.plan.device}", cosine, LEAST_COSINE)
        return cosine

    def _compile_anew(self, grid: Grid) -> ov.CompiledModel:
        config = self.plan.config(grid)
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


def golden_batch(golden: Golden, grid: Grid, align: int) -> Batch:
    """Fill a grid with the golden text, as often as it fits: a fault in any row is seen."""
    each = min(grid.slots, max(1, grid.width // cells(len(golden.ids), align)))
    ids = dict.fromkeys(range(each * grid.rows), np.array(golden.ids, np.int32))
    rows = [Row(grid, 0, texts=list(range(row * each, (row + 1) * each))) for row in range(grid.rows)]
    return fill(grid, rows, ids, align=align)


def survey() -> tuple[str, dict[str, str], Kernels]:
    """Return OpenVINO's version, the devices it finds with their full names, and the kernels of the CPU."""
    core = ov.Core()
    return ov.get_version(), hardware(core, "AUTO"), Kernels.probe(core)


_live: weakref.WeakSet[Engine] = weakref.WeakSet()
_started: int | None = None  # the process in which OpenVINO was first used


def _abandon_all() -> None:
    for engine in _live:
        engine.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)

"""Replacements for slow or large parts of the package."""

import io
import threading
from collections.abc import Callable

import numpy as np

from ov_minilm.runtime.packing import Batch
from ov_minilm.runtime.plan import Plan
from ov_minilm.spec import GRIDS, FloatArray, Grid, Lane


class Terminal(io.StringIO):
    """A stream in memory that looks like a terminal to a program."""

    def isatty(self) -> bool:
        """Return True."""
        return True


class FakeEngine:
    """Sums token ids by segment, so a wrong row, slot or segment is detected. A gate can block batches."""

    def __init__(self, *, threads: int = 2, gated: bool = False, grids: tuple[Grid, ...] = GRIDS) -> None:
        self.plan = Plan("CPU", "native", threads, "", (Lane(grids, "f32"),))
        self.compiled: set[Grid] = set()
        self.ran: list[Batch] = []
        self.began: list[Batch] = []
        self.breaks = False
        self.meanwhile: Callable[[], object] = lambda: None  # called while a batch runs
        self._gate = threading.Semaphore(0 if gated else 10**9)

    def release(self, batches: int) -> None:
        """Let this many batches through the gate."""
        self._gate.release(batches)

    def run(self, batch: Batch) -> FloatArray:  # -> [N, 1]
        """Return for each text the sum of the token ids in its segment."""
        self.began.append(batch)
        self.compiled.add(batch.grid)
        self.meanwhile()
        assert self._gate.acquire(timeout=30)
        if self.breaks:
            raise RuntimeError("the engine broke")
        ids, _, segments = batch.inputs
        mine = segments[batch.rows] == (np.array(batch.slots) + 1)[:, None]
        self.ran.append(batch)
        sums: FloatArray = (mine * ids[batch.rows]).sum(1, keepdims=True).astype(np.float32)
        return sums

    def close(self) -> None:
        """Do nothing: there is nothing to free."""

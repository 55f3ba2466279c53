"""Render the tables of README.md from bench/results; cog runs this, and fails CI when they differ."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ov_minilm.bench.machine import own_path

RESULTS = Path(__file__).parent / "results"
NAMES = {"amx": "AMX", "bf16": "AVX-512 BF16", "vnni": "AVX-512 VNNI", "avx2": "AVX2"}

# The ladder: one change a row.
RUNGS = {
    "sentence_transformers/torch": "sentence-transformers, torch",
    "optimum_intel/f32": "optimum-intel, FP32, dynamic shapes",
    "fp32-padded": "fixed shapes, a text a row",
    "bf16-padded": "BF16 instead of FP32",
    "int8-native-padded": "INT8 instead, native kernels",
    "int8-conv-padded": "INT8 layers as 1×1 convolutions",
    "int8-packed": "texts packed into shared rows",
    "int8": "BF16 for what is not INT8, where it keeps the bits and helps: ov_minilm",
}

# What ov_minilm must beat and by how much: short texts/s, long texts/s, one text; with VNNI, and without.
RIVALS = (
    ("sentence_transformers/torch", (5, 3.5, 9), (3, 2.2, 4.5)),
    ("sentence_transformers_openvino/int8", (2, 1.3, 3), (4, 2, 3)),
    ("ctranslate2/int8", (1.4, 1.4, 4), (1.15, 1.15, 2.5)),
    ("transformers_js/q8", (2, 1.7, 1.2), (2, 1.7, 1.2)),
    ("onnxruntime/int8", (1, 1, 2), (1, 1, 2)),
    ("onnxruntime/f32", (1, 1, 2), (1, 1, 2)),
    ("fastembed/f32", (1, 1, 2), (1, 1, 2)),
    ("chromadb/f32", (1, 1, 2), (1, 1, 2)),
    ("openvino_genai/pipeline", (1, 1, 2), (1, 1, 2)),
)

# They run on MLAS, which nothing holds to an instruction set: beside an AVX2 limit they use AVX-512 VNNI.
UNHELD = ("onnxruntime", "transformers_js", "fastembed", "chromadb")

BULK = ("throughput", "memory", "ray", "kills")
NOT_YET = "Not measured yet: `python bench/bulk.py`.\n"

Read = Callable[[dict[str, Any]], tuple[str, bool]]

# What the server must reach: its scenario in serve-*.json, in words, the bar, and how to read it.
SERVING: tuple[tuple[str, str, str, Read], ...] = (
    (
        "single",
        "one text, one client: p50 over that of `encode`",
        "≤ 1.0 ms",
        lambda one: (
            f"{one['over_encode_ms']['median']:.2f} ms ({one['p50_ms']['median']:.2f} in all)",
            one["over_encode_ms"]["median"] <= 1,
        ),
    ),
    (
        "crowd",
        "32 clients, one short text each: texts/s against one `encode` of all, on the cores clients left",
        "≥ 60 %",
        lambda one: (
            f"{one['share_of_cores_left']['median']:.2%} ({one['texts_per_s']['median']:.0f} texts/s)",
            one["share_of_cores_left"]["median"] >= 0.6,
        ),
    ),
    (
        "crowd",
        "their p99 over their p50",
        "≤ 5",
        lambda one: (f"{one['p99_over_p50']['median']:.1f}", one["p99_over_p50"]["median"] <= 5),
    ),
    (
        "mixed",
        "the same 32 with a passage for every tenth text: p99 over p50",
        "≤ 5",
        lambda one: (
            f"{one['p99_over_p50']['median']:.1f} ({one['p99_ms']['median']:.0f} ms)",
            one["p99_over_p50"]["median"] <= 5,
        ),
    ),
    (
        "batch",
        "one client, 256 texts a request, base64: texts/s against `encode`",
        "≥ 85 %",
        lambda one: (
            f"{one['share']['median']:.0%} ({one['texts_per_s']['median']:.0f} texts/s)",
            one["share"]["median"] >= 0.85,
        ),
    ),
    (
        "overload",
        "ten times its capacity: answers that are wrong or none",
        "0",
        lambda one: (
            f"{len(one['wrong'])} of {one['accepted']} accepted, {one['refused']} refused",
            not one["wrong"],
        ),
    ),
    (
        "overload",
        "time to a 429, p99",
        "≤ 50 ms",
        lambda one: (f"{one['refused_ms']['p99']:.1f} ms", one["refused_ms"]["p99"] <= 50),
    ),
    (
        "overload",
        "memory before, at most, after",
        "bounded",
        lambda one: (" → ".join(map(str, one["rss_mb"])) + " MB", one["rss_mb"][1] < 2 * one["rss_mb"][0]),
    ),
    (
        "overload",
        "until all is as before",
        "≤ 2 s",
        lambda one: (f"{one['recovered_s']:.2f} s", one["recovered_s"] <= 2),
    ),
    (
        "drain",
        "SIGTERM under load: accepted requests lost",
        "0",
        lambda one: (f"{len(one['lost'])} of {one['answered']}, {one['times']} times", not one["lost"]),
    ),
)


def main_path() -> str:
    """Every bar of the main path, with what each CPU path of a machine reached; what misses it is in bold."""
    found = [RESULTS / f"main_path-{own}.json" for own in NAMES]
    return "\n".join(_main_path(json.loads(one.read_text(encoding="utf-8"))) for one in found if one.exists())


def _main_path(result: dict[str, Any]) -> str:
    paths = result["paths"]
    header = ["what", "bar", *(NAMES[name] for name in paths)]
    rows = []
    for what, bar, read in _bars():
        cells = [read(path) for path in paths.values()]
        rows.append([what, bar, *(text if met else f"**{text}**" for text, met in cells)])
    how = f"{result['machine']['threads_granted']} threads"
    return f"{_table(header, rows)}\n{_measured_on(result, how)}.\n"


def speed() -> str:
    """Texts a second and milliseconds, FP32 and INT8, on each CPU path."""
    pairs = [[_race(path)["contenders"][name] for name in ("fp32", "int8")] for path in raced()]

    def row(what: str, read: Callable[[dict[str, Any]], str]) -> list[str]:
        return [what, *(f"{read(fp32)} → {read(int8)}" for fp32, int8 in pairs)]

    def wait(contender: dict[str, Any]) -> str:
        _, _, single = _three(contender)
        return f"{single['p50']:.2f} ({single['p95']:.2f})"

    def where(path: str) -> str:
        facts = _race(path)["machine"]
        own = own_path(facts["isa"])
        return f"{facts['cpu']} {facts['family_model']}" + ("" if path == own else f", held to {NAMES[path]}")

    facts = [int8["facts"] for _, int8 in pairs]
    tokens = {name: f"{found['mean_tokens']:.0f}" for name, found in _race(raced()[0])["workloads"].items()}
    return _table(
        ["", *(NAMES[path] for path in raced())],
        [
            ["measured on", *map(where, raced())],
            ["how INT8 runs", *(_way(found) for found in facts)],
            ["kernel of an INT8 layer", *(f"`{found['kernel']}`" for found in facts)],
            row(
                f"texts of {tokens['short']} tokens, texts/s, FP32 → INT8",
                lambda contender: _texts(contender)[0],
            ),
            row(
                f"texts of {tokens['long']} tokens, texts/s, FP32 → INT8",
                lambda contender: _texts(contender)[1],
            ),
            row("one text of 14 tokens, ms p50 (p95), FP32 → INT8", wait),
            row("peak MB of the process, FP32 → INT8", lambda contender: str(contender["peak_mb"])),
        ],
    )


def bulk() -> str:
    """Every bar of bulk jobs, with what was reached; figures that miss it are in bold."""
    if (result := _bulk()) is None:
        return NOT_YET
    loads, memory, ray, kills = (result[name] for name in BULK)
    share = loads["workloads"]["short"]["share_of_in_memory"]
    rates = [
        [
            f"{name} texts of {load['mean_tokens']} tokens, Parquet to Parquet",
            f"{load['texts_per_s']['median']:,.0f}/s",
        ]
        for name, load in loads["workloads"].items()
    ]
    rates += [
        [f"{name}, texts of {ray['mean_tokens']} tokens", f"{rate['median']:,.0f}/s"]
        for name, rate in ray["texts_per_s"].items()
    ]
    size = memory["text_bytes"] / 1e9
    bars = [
        (
            "a job against `Embedder.encode` in memory",
            "≥ 92 %",
            f"{share['median']:.1%}",
            share["median"] >= 0.92,
        ),
        (
            f"peak memory on {size:.1f} GB of text, {memory['minutes']:.0f} minutes",
            "≤ 600 MB",
            f"{memory['peak_mb']} MB",
            memory["peak_mb"] <= 600,
        ),
        (
            "its growth from the first half of them to the second",
            "flat: ≤ 10 MB",
            f"{memory['growth_mb']} MB",
            memory["growth_mb"] <= 10,
        ),
        (
            "Ray with 2 actors of a thread, against this process with 2 threads",
            "≥ 80 %",
            f"{ray['two_actors_of_local']['median']:.0%}",
            ray["two_actors_of_local"]["median"] >= 0.8,
        ),
        (
            f"`kill -9` at {kills['kills']} random moments, then resumed: the same bytes",
            f"{kills['kills']}",
            f"{kills['equal']}",
            kills["equal"] == kills["kills"],
        ),
    ]
    reached = [[what, bar, text if met else f"**{text}**"] for what, bar, text, met in bars]
    how = f"{result['machine']['threads_granted']} threads"
    return (
        f"{_table(['what', 'bar', 'reached'], reached)}\n"
        f"{_table(['median rate', ''], rates)}\n{_measured_on(result, how)}.\n"
    )


def billion() -> str:
    """What 10^9 texts cost: cores for how many hours, and bytes of vectors."""
    if (result := _bulk()) is None:
        return NOT_YET
    cores = result["machine"]["threads_granted"]
    rows = []
    for name, load in result["throughput"]["workloads"].items():
        rate = load["texts_per_s"]["median"] / cores
        hours = 1e9 / rate / 3600
        rows.append(
            [
                f"{name}, {load['mean_tokens']} tokens",
                f"{rate:,.0f}",
                f"{hours:,.0f}",
                f"{hours / 64:,.1f}",
                f"{hours / 1000:,.2f}",
            ]
        )
    sizes = [
        [dtype, f"{1e9 * 384 * bits / 8 / 1e12:.2f}", f"{1e9 * 128 * bits / 8 / 1e12:.2f}"]
        for dtype, bits in (("float32", 32), ("float16", 16), ("int8", 8), ("binary", 1))
    ]
    return (
        _table(["texts", "a second and core", "core hours", "hours on 64 cores", "on 1,000"], rows)
        + "\n"
        + _table(["`--dtype`", "TB of vectors", "`--dimensions 128`"], sizes)
    )


def _bulk() -> dict[str, Any] | None:
    path = RESULTS / "bulk.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found if found.keys() >= set(BULK) else None


def race(path: str) -> str:
    """Everybody on one CPU path: rates, one text, how many times faster ours is, cosine, memory."""
    result = _race(path)
    header = ["", "short/s", "ours ×", "long/s", "ours ×", "one text, ms", "ours ×", "cosine", "peak MB"]
    rows = []
    for name, contender in result["contenders"].items():
        cells = [f"**{name}**" if name == "int8" else name]
        for figures, text in zip(_three(contender), _texts(contender), strict=True):
            noisy = " ~" if figures["spread"] > result["noise_bound"] else ""
            ratio = "" if name == "int8" else f"{figures['ours_is_faster']['median']:.2f}"
            cells += [f"{text}{noisy}", ratio]
        cosine = contender["cosine"]["short"]
        rows.append([*cells, f"{cosine['mean']:.4f}" if cosine else "other width", f"{contender['peak_mb']}"])
    missing = "".join(
        f"\nNot measured: {name}: {reason.removeprefix(f'{name}: ').rstrip('.')}.\n"
        for name, reason in result["unavailable"].items()
    )
    return _table(header, rows) + missing + "\n" + _taken(result) + "\n"


def ladder(path: str) -> str:
    """The rungs from the reference to ours, one change a row, with what each gave over the row above."""
    contenders = _race(path)["contenders"]
    header = ["rung", "short/s", "step", "long/s", "step", "one text, ms", "step"]
    rows, above = [], None
    for name, change in RUNGS.items():
        if name not in contenders:
            continue
        if name == "int8" and "int8-packed" not in contenders:
            change = f"{RUNGS['int8-packed']}: ov_minilm"  # a race from before long texts ran in BF16
        short, long, single = _three(contenders[name])
        speeds = short["median"], long["median"], 1 / single["p50"]
        cells = [change]
        for i, text in enumerate(_texts(contenders[name])):
            cells += [text, f"{speeds[i] / above[i]:.2f}×" if above else ""]
        rows.append(cells)
        above = speeds
    return _table(header, rows)


def rivals() -> str:
    """Every bar against others, with what each CPU path reached; figures that miss it are in bold."""
    columns = [f"{what}, {NAMES[path]}" for path in raced() for what in ("short", "long", "one text")]
    rows = [
        [who, *(cell for path in raced() for cell in _against(path, who, slow if path == "avx2" else fast))]
        for who, fast, slow in RIVALS
    ]
    return _table(["how many times faster than", *columns], rows)


def output_kinds() -> str:
    """Bytes of a vector and what it still finds, for each number of components and each type."""
    result = json.loads((RESULTS / "output_kinds.json").read_text(encoding="utf-8"))
    rows = [
        [
            str(row["dimensions"]),
            row["dtype"],
            str(row["bytes"]),
            f"{row['spearman']:.2f}",
            f"{row['overlap']:.3f}",
        ]
        for row in result["rows"]
    ]
    header = ["components", "type", "bytes", "Spearman, STS-B test", "neighbour overlap@10, passages"]
    clipped = result["clipped"]
    note = (
        f"Of a million components {clipped['components_per_million']:.0f} lie beyond the fixed ranges of "
        f"int8 and are clipped; {clipped['vectors_percent']} % of the vectors have one.\n"
    )
    return f"{_table(header, rows)}\n{note}"


def soak() -> str:
    """Say what the last soak saw; nothing where there was none yet."""
    path = RESULTS / "soak.json"
    if not path.exists():
        return ""
    result = json.loads(path.read_text(encoding="utf-8"))
    samples = [row for row in result["samples"] if "p50_ms" in row]
    waits = [sorted(row[name] for row in samples)[len(samples) // 2] for name in ("p50_ms", "p95_ms")]
    return (
        f"The last one, {result['minutes']:.0f} minutes: {result['texts']:,} texts from {result['callers']} "
        f"callers, {result['wrong']} wrong, {len(result['errors'])} errors, {result['opened_and_closed']} "
        f"more Embedders opened and closed; {result['rss_mb']['last']:.0f} MB at the end, "
        f"{result['growth_mb']:+.1f} MB since the warm-up; a call with one text among the others took "
        f"{waits[0]:.1f} ms (p95 {waits[1]:.1f}).\n"
    )


def _against(path: str, who: str, bars: tuple[float, ...]) -> list[str]:
    contender = _race(path)["contenders"].get(who)
    if contender is None:
        return ["–"] * len(bars)
    ratios = [figures["ours_is_faster"]["median"] for figures in _three(contender)]
    if path == "avx2" and who.split("/")[0] in UNHELD:
        return [f"{ratio:.2f} †" for ratio in ratios]
    return [
        f"{ratio:.2f} ≥ {bar}" if ratio >= bar else f"**{ratio:.2f} < {bar}**"
        for ratio, bar in zip(ratios, bars, strict=True)
    ]


def _three(contender: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    """Return what is compared: short texts, long texts, one text of 14 tokens."""
    throughput = contender["throughput"]
    return throughput["short"], throughput["long"], contender["latency_ms"]["14"]


def _texts(contender: dict[str, Any]) -> tuple[str, ...]:
    short, long, single = _three(contender)
    return f"{short['median']:.0f}", f"{long['median']:.0f}", f"{single['p50']:.2f}"


def roofline() -> str:
    """What share of the peak each kind of layer reaches, and what share of the time it takes."""
    parts = []
    for path in raced():
        found = _race(path)["roofline"]
        peaks = ", ".join(f"`{peak['kernel']}` {peak['gflops']:.0f}" for peak in found["peaks"])
        parts.append(f"**{NAMES[path]}.** Peaks in GFLOP/s, {found['threads']} threads: {peaks}.\n")
        for usage in (found["model"], found["reference"]):
            whole = usage["end_to_end"]
            parts.append(
                f"{usage['weights']}, {usage['lowering']}: {whole['tokens_per_s']:.0f} tokens/s end to end, "
                f"{whole['gflops']:.0f} GFLOP/s, **{whole['of_peak']:.0%} of the peak**; the engine takes "
                f"{whole['engine_share']:.0%} of the time.\n"
            )
            parts.append(_profile(usage["grids"]))
    return "\n".join(parts)


def _way(facts: dict[str, str]) -> str:
    long = facts.get("long_precision", facts["precision"])
    return f"{facts['lowering']}, {facts['precision']}" + (
        f", {long} over 64 tokens" if long != facts["precision"] else ""
    )


def _profile(grids: dict[str, Any]) -> str:
    header = ["share of the time (share of the peak)"]
    header += [f"{grid}, {profile['microseconds'] / 1000:.2f} ms" for grid, profile in grids.items()]
    names = list(dict.fromkeys(name for profile in grids.values() for name in profile["kinds"]))
    rows = []
    for name in names:
        row = [name]
        for profile in grids.values():
            kind = profile["kinds"].get(name)
            of_peak = f" ({kind['of_peak']:.0%})" if kind and kind["of_peak"] is not None else ""
            row.append(f"{kind['share']:.1%}{of_peak}" if kind else "")
        rows.append(row)
    rows.append(["all", *(f"100% ({profile['of_peak']:.0%})" for profile in grids.values())])
    return _table(header, rows)


def operating() -> str:
    """Render what a process that runs for months holds, with its bars."""
    result = json.loads((RESULTS / "operating.json").read_text(encoding="utf-8"))
    peak, growth, callers = result["peak"], result["growth"], result["callers"]
    stream, affinity, pair = result["stream"], result["affinity"], result["embedders"]
    rows = [
        ("peak RSS, 1,500 short texts in a new process", "≤ 200 MB", peak["short_mb"], 200, " MB"),
        (
            "peak RSS, texts of every length, singly and in lists",
            "≤ 350 MB",
            peak["every_grid_mb"],
            350,
            " MB",
        ),
        (
            f"RSS growth over {growth['texts']:,} texts of mixed lengths",
            "≤ 5 MB",
            growth["grown_mb"],
            5,
            " MB",
        ),
        ("64 threads, mixed sizes: vectors with another bit", "0", callers["wrong_vectors"], 0, ""),
        ("64 threads against one caller, texts a second", "≥ 90 %", -callers["share"]["median"], -0.9, ""),
        ("two Embedders at once against in turn", "≥ 90 %", -pair["share"]["median"], -0.9, ""),
        ("affinity of one core: threads taken", "1", affinity["threads"], 1, ""),
        ("affinity of one core against threads=1", "≥ 95 %", -affinity["share"]["median"], -0.95, ""),
        (
            "`encode_iter`: first block after its last text came",
            "≤ 50 ms",
            stream["first_block_ms"],
            50,
            " ms",
        ),
        ("`encode_iter`, endless: peak RSS of 25 blocks", "≤ 350 MB", stream["peak_mb"], 350, " MB"),
    ]
    cells = []
    for name, bar, value, most, unit in rows:
        shown = f"{-value:.0%}" if most < 0 else f"{value:,g}{unit}"
        cells.append([name, bar, shown if value <= most else f"**{shown}**"])
    how = f"{result['threads']} threads, {result['kernel']}"
    return f"{_table(['what', 'bar', 'measured'], cells)}\n{_measured_on(result, how)}.\n"


def raced() -> list[str]:
    """List the CPU paths that have a result."""
    return [path for path in NAMES if _path(path).exists()]


def _path(name: str) -> Path:
    return RESULTS / f"race-{name}.json"


def _race(path: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(_path(path).read_text(encoding="utf-8"))
    return result


def _taken(result: dict[str, Any]) -> str:
    limit = f"limit {result['machine']['isa_limit']}"
    how = f"{limit}, {result['threads']} threads, {result['rounds']} rounds in turn"
    return (
        f"{_measured_on(result, how)}; {result['texts']}. ~ marks rounds that differ by more than "
        f"{result['noise_bound']:.0%}."
    )


def _bars() -> list[tuple[str, str, Read]]:
    """List what must be reached, and how to read it from the result of one path."""

    def cosine(*bins: str) -> Read:
        def read(path: dict[str, Any]) -> tuple[str, bool]:
            found = [path["drift"]["cosine"][name] for name in bins]
            mean = sum(n * mean for n, mean, _ in found) / sum(n for n, _, _ in found)
            return f"{mean:.4f}", mean >= 0.9975

        return read

    def spearman(path: dict[str, Any]) -> tuple[str, bool]:
        deltas = [new - old for old, new in path["drift"]["spearman"].values()]
        return " / ".join(f"{delta:+.2f}" for delta in deltas), all(abs(delta) <= 0.1 for delta in deltas)

    def overlap(path: dict[str, Any]) -> tuple[str, bool]:
        found = [path["drift"]["overlap"][name] for name in ("stsb_dev", "passages")]
        return " / ".join(f"{value:.3f}" for value in found), min(found) >= 0.95

    def carry_over(path: dict[str, Any]) -> tuple[str, bool]:
        found = path["cosine_to_avx2"]
        return f"{found['mean']:.5f} / {found['min']:.4f}", found["mean"] >= 0.9998 and found["min"] >= 0.997

    def short(path: dict[str, Any]) -> tuple[str, bool]:
        ratio = path["short"]["ratio"]["median"]
        inside = path["fp32_within_isa"]
        text = f"{ratio:.2f}×" + (f" ({inside['short']['ratio']['median']:.2f}× ¹)" if inside else "")
        return text, ratio >= (2.8 if path["kernels"]["int8"].startswith("brgemm") else 1.75)

    def single(path: dict[str, Any]) -> tuple[str, bool]:
        ratio = path["single"]["ratio"]
        inside = path["fp32_within_isa"]
        text = f"{ratio:.2f}×" + (f" ({inside['single']['ratio']:.2f}× ¹)" if inside else "")
        return text, ratio >= (2.2 if path["kernels"]["int8"].startswith("brgemm") else 1.5)

    def start(path: dict[str, Any]) -> tuple[str, bool]:
        found = path["startup"]
        bare = found["interpreter_s"]
        package, names = found["import_package_s"] - bare, found["import_encode_s"] - bare
        text = f"{package:.2f} s (with `encode` {names:.2f} s) / {found['first_vector_s']:.2f} s"
        return text, package <= 0.15 and found["first_vector_s"] <= 1.2

    def bits(path: dict[str, Any]) -> tuple[str, bool]:
        found = path["different_bits"]
        return f"{sum(found.values())} ({', '.join(found)})", not any(found.values())

    return [
        (
            "FP32 against sentence-transformers, 2…600 tokens, awkward text: largest difference",
            "≤ 1e-5",
            lambda p: (f"{p['fp32_max_abs_error']:.1e}", p["fp32_max_abs_error"] <= 1e-5),
        ),
        (
            "FP32 Spearman, STS-B test",
            "82.03",
            lambda p: (
                f"{p['drift']['spearman']['stsb_test'][0]:.2f}",
                round(p["drift"]["spearman"]["stsb_test"][0], 2) == 82.03,
            ),
        ),
        ("INT8 mean cosine to FP32, texts up to 64 tokens", "≥ 0.9975", cosine("1-64")),
        ("INT8 mean cosine to FP32, passages over 128 tokens", "≥ 0.9975", cosine("129-256")),
        ("INT8 Spearman drift in points, STS-B dev / test", "± 0.1", spearman),
        ("neighbour overlap@10, STS-B dev / passages", "≥ 0.95", overlap),
        ("INT8 vectors against those of the AVX2 path: mean / least cosine", "≥ 0.9998 / 0.997", carry_over),
        ("INT8 against FP32, short texts, end to end", "2.8×; AVX2 1.75×", short),
        ("one text of 14 tokens, p50 against FP32", "2.2×; AVX2 1.5×", single),
        (
            "fill of packed grids, STS-B sentences",
            "≥ 97 %",
            lambda p: (f"{p['packing']['fill']:.1%}", p["packing"]["fill"] >= 0.97),
        ),
        (
            "end to end against the engine alone",
            "≥ 90 %",
            lambda p: (
                f"{p['packing']['end_to_end_share']['median']:.0%}",
                p["packing"]["end_to_end_share"]["median"] >= 0.9,
            ),
        ),
        ("`import ov_minilm` / new process to first vector", "≤ 0.15 s / ≤ 1.2 s", start),
        ("texts whose bits differ alone, shuffled, on one thread", "0", bits),
    ]


def serving() -> str:
    """Every bar of the server, by kind of machine; figures that miss it are in bold. Then other servers."""
    found = {path: RESULTS / f"serve-{path}.json" for path in NAMES}
    ours = {path: json.loads(at.read_text(encoding="utf-8")) for path, at in found.items() if at.exists()}
    rows = []
    for scenario, what, bar, read in SERVING:
        cells = [read(one[scenario]) if scenario in one else ("–", True) for one in ours.values()]
        rows.append([what, bar, *(text if met else f"**{text}**" for text, met in cells)])
    parts = [_table(["what", "bar", *(NAMES[path] for path in ours)], rows)]
    parts += [
        _beside(NAMES[path], one, json.loads(at.read_text(encoding="utf-8")))
        for path, one in ours.items()
        for at in sorted(RESULTS.glob(f"serve-{path}-*.json"))
    ]
    for path, one in ours.items():
        how = f"{one['threads']} threads, clients on the same machine"
        parts.append(f"{NAMES[path]}: {_measured_on(one, how)}.\n")
    parts.append(
        "¹ Texts a second if there were nothing to do but the linear layers of their tokens, at the rate of\n"
        "OpenVINO's fastest INT8 kernel.\n"
    )
    return "\n".join(parts)


def _beside(path: str, ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    """Return a table of our server and another: under load in turn, or else in runs of their own."""
    rows = []
    for scenario, what, key in (
        ("single", "one text, one client, p50, ms", "p50_ms"),
        ("crowd", "32 clients, one text each, texts/s", "texts_per_s"),
        ("crowd", "32 clients, one text each, p99, ms", "p99_ms"),
        ("mixed", "32 clients, a passage for every tenth text, texts/s", "texts_per_s"),
        ("batch", "one client, 256 texts a request, texts/s", "texts_per_s"),
    ):
        if scenario not in theirs:
            continue
        mine = theirs[scenario].get("ours", ours[scenario])[key]["median"]
        other = theirs[scenario][key]["median"]
        if pairs := theirs[scenario].get("ours_times_better"):
            ratio = pairs[key]["median"]
        else:
            ratio = other / mine if key.endswith("_ms") else mine / other
        rows.append([what, f"{mine:.4g}", f"{other:.4g}", f"{ratio:.2f}×"])
    if roof := theirs.get("roof_texts_per_s"):
        batch = theirs["batch"]
        shares = [f"{one['texts_per_s']['median'] / roof:.0%}" for one in (batch["ours"], batch)]
        rows.append(["256 texts a request, of what the best INT8 kernel allows ¹", *shares, ""])
    rows.append(["cosine to ours, least", "1", f"{theirs['cosine_min']:.4f}", ""])
    return _table([path, "ov_minilm", theirs["server"], "better"], rows)


def _measured_on(result: dict[str, Any], how: str) -> str:
    machine = result["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    processor = f"{machine['cpu']} (family/model {machine['family_model']})"
    return f"{processor}, {how}, {versions}; artefact `{result['artefact']}`"


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)

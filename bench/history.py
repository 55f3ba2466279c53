"""The drift of every artefact that was built, a line each, and a picture of how it changed.

    python bench/history.py ov_minilm/model

A line is added if the fingerprint is new, and holds what the manifest says: version, tools, recipe, drift.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ov_minilm.artefact.drift_record import MIN_TEXTS_TO_GATE, NEIGHBOURS, Gate
from ov_minilm.artefact.manifest import Manifest
from ov_minilm.bench.plots import BASE, MINE
from ov_minilm.errors import ArtefactError
from ov_minilm.files import whole

RESULTS = Path(__file__).parent / "results"
KEYS = {"fingerprint", "version", "tools", "recipe", "drift"}
COLOURS = {"native f32": MINE, "conv f32": BASE, "native bf16": "#5b6fb5", "conv bf16": "#b0479a"}


@dataclass(frozen=True, slots=True)
class Worst:
    """The worst figures of one way to run a build; NaN where nothing was measured."""

    distance: float  # 1 - mean cosine of a length bin
    overlap: float
    delta: float  # Spearman points, with its interval
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Build:
    """One line of the history, as the picture shows it."""

    fingerprint: str
    version: str
    ways: dict[str, Worst]  # "native f32"


def main() -> None:
    """Read the command line; what cannot be done is said in one line, with exit code 2."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="a folder written by ov-minilm convert")
    parser.add_argument("--history", type=Path, default=RESULTS / "drift_history.jsonl")
    parser.add_argument("--picture", type=Path, default=RESULTS / "plots/drift_history.png")
    arguments = parser.parse_args()
    try:
        added = append(arguments.history, Manifest.read(arguments.model))
        builds = read(arguments.history)
        arguments.picture.parent.mkdir(parents=True, exist_ok=True)
        with whole(arguments.picture) as file:
            draw(builds).savefig(file, format="png", dpi=150, metadata={"Software": None})
    except (ArtefactError, ValueError, OSError) as error:
        parser.exit(2, f"error: {error}\n")
    print(f"{arguments.history}: {len(builds)} builds, {'one is new' if added else 'nothing new'}")
    print(arguments.picture)


def append(history: Path, manifest: Manifest) -> bool:
    """Add a line for the artefact unless its fingerprint is there; the file is replaced whole or not at all.

    Raises:
        ValueError: the manifest holds no drift, or a line of the history is not one.
    """
    if not manifest.drift:
        raise ValueError(f"{manifest.fingerprint}: no drift in its manifest; only INT8 artefacts have it")
    if history.exists() and manifest.fingerprint in {build.fingerprint for build in read(history)}:
        return False
    version = manifest.tools["ov-minilm"]
    row = {
        "fingerprint": manifest.fingerprint,
        "version": version,
        "tools": {name: number for name, number in manifest.tools.items() if name != "ov-minilm"},
        "recipe": manifest.recipe and asdict(manifest.recipe),
        "drift": [asdict(drift) for drift in manifest.drift],
    }
    old = history.read_bytes() if history.exists() else b""
    with whole(history) as file:
        file.write(old + json.dumps(row, ensure_ascii=False).encode() + b"\n")
    return True


def read(history: Path) -> list[Build]:
    """Read every line, oldest build first.

    Raises:
        ValueError: naming the file and the line that is not a build.
    """
    builds = []
    for number, line in enumerate(history.read_bytes().removesuffix(b"\n").split(b"\n"), 1):
        try:
            row = json.loads(line)
            if row.keys() != KEYS:
                raise ValueError(f"fields {sorted(row)}, expected {sorted(KEYS)}")
            ways = {f"{drift['lowering']} {drift['precision']}": worst(drift) for drift in row["drift"]}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{history}, line {number}: not a build ({error})") from error
        builds.append(Build(row["fingerprint"], row["version"], ways))
    return builds


def worst(drift: dict[str, Any]) -> Worst:
    """Summarise one measurement as it stands in JSON: later versions may measure more than this one knows."""
    moved = [
        (sts["spearman"] - sts["spearman_reference"], sts["delta_low"], sts["delta_high"])
        for sts in drift["sts"].values()
    ]
    means = [cosine["mean"] for cosine in drift["cosine"].values() if cosine["texts"] >= MIN_TEXTS_TO_GATE]
    return Worst(
        1 - min(means, default=math.nan),
        min(drift["overlap"].values(), default=math.nan),
        *max(moved, key=lambda figures: abs(figures[0]), default=(math.nan,) * 3),
    )


def draw(builds: list[Build]) -> Figure:
    """Draw distance, overlap and Spearman against the number of the build, with the limits of the gate."""
    figure = Figure(figsize=(max(8, 0.32 * len(builds)), 8))
    figure.set_layout_engine("constrained", h_pad=0.1)
    distance, overlap, spearman = figure.subplots(3, 1, sharex=True)
    ways = list(dict.fromkeys(way for build in builds for way in build.ways))
    for place, way in enumerate(ways):
        numbers = [number for number, build in enumerate(builds, 1) if way in build.ways]
        found = [build.ways[way] for build in builds if way in build.ways]
        x = [number + 0.12 * (place - (len(ways) - 1) / 2) for number in numbers]  # side by side
        colour = COLOURS.get(way, "#555555")
        for axes, values in (
            (distance, [one.distance for one in found]),
            (overlap, [one.overlap for one in found]),
            (spearman, [one.delta for one in found]),
        ):
            axes.plot(x, values, color=colour, marker="o", markersize=5, linewidth=1, label=way)
        spearman.vlines(x, [one.low for one in found], [one.high for one in found], color=colour, linewidth=1)
    limits = Gate()
    _finish(distance, "1 - mean cosine to FP32, worst length bin", [1 - limits.cosine_mean])
    _finish(overlap, f"neighbour overlap@{NEIGHBOURS} with FP32, worst collection", [limits.overlap])
    _finish(
        spearman,
        "Spearman points against FP32, the STS file that moved most (bars: 95 % of resamples)",
        [-limits.spearman, limits.spearman],
    )
    distance.set_ylim(bottom=0)
    spearman.axhline(0, color="#999999", linewidth=0.8)
    spearman.set_xlim(0.5, len(builds) + 0.5)
    spearman.set_xticks(
        range(1, len(builds) + 1),
        [f"{b.version}  {b.fingerprint[:8]}  {number:>3}" for number, b in enumerate(builds, 1)],
        rotation="vertical",
    )
    spearman.set_xlabel("version, fingerprint and number of the build")
    figure.legend(*distance.get_legend_handles_labels(), loc="outside upper center", ncols=5, frameon=False)
    return figure


def _finish(axes: Axes, title: str, limits: list[float]) -> None:
    for limit in limits:
        axes.axhline(limit, color="#b00020", linewidth=1, linestyle="--", label="gate" * (limit is limits[0]))
    axes.set_title(title, loc="left", fontsize=10)
    axes.grid(axis="y", color="#e5e5e5")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()

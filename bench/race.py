"""The full benchmark with every peer, and the suite, on every CPU path of this machine; and the pictures.

    python bench/race.py                             all paths, into bench/results/{race,suite}-*.json
    python bench/race.py --path amx --what suite     one of them
    python bench/race.py --plots-only                the pictures from the results there are

Each path is a process of its own: how a library is held to an instruction set is read once.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import tables

from ov_minilm.bench import machine
from ov_minilm.bench.report import write_plots

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench/results"
PLOTS = RESULTS / "plots"


def main() -> None:
    """Measure, keep, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--path", choices=machine.PATHS, action="append", help="repeatable; default: all")
    parser.add_argument("--what", choices=("race", "suite"), help="default: both")
    parser.add_argument("--plots-only", action="store_true", help="measure nothing")
    arguments = parser.parse_args()
    flags = machine.facts()["isa"]
    for name in [] if arguments.plots_only else arguments.path or machine.PATHS:
        if machine.PATHS[name].flag not in flags:
            print(f"{name}: this machine has no {machine.PATHS[name].flag}", file=sys.stderr)
            continue
        for what, measure in {"race": race, "suite": suite}.items():
            if arguments.what in (None, what):
                print(f"{name}: {what}", file=sys.stderr)
                measure(name)
    for path in sorted(RESULTS.glob("race-*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        for picture in write_plots(result, PLOTS / path.stem.removeprefix("race-")):
            print(picture.relative_to(ROOT), file=sys.stderr)


def race(name: str) -> None:
    """Run the command that a user would run; a complete result replaces the last.

    What the machine runs by itself is raced against everybody, in a quarter of an hour; where it is held to
    less, against the ladder and those that a bar is set for, in ten minutes; chromadb, which pads every text
    to 256 tokens, would take half of them.
    """
    command = [sys.executable, "-m", "ov_minilm", "bench", "--full", "--peers", "bench/peers", "--json"]
    if name != machine.own_path(machine.facts()["isa"]):
        chosen = [*tables.RUNGS, *(rival for rival, _, _ in tables.RIVALS if rival != "chromadb/f32")]
        command += ["--rounds", "3", *(word for one in chosen for word in ("--only", one))]
    done = subprocess.run(command, cwd=ROOT, env=_held(name), stdout=subprocess.PIPE, check=True)
    (RESULTS / f"race-{name}.json").write_bytes(done.stdout)


def suite(name: str) -> None:
    """Measure the baseline that `pytest bench --benchmark-compare` compares with; a few minutes."""
    command = (sys.executable, "-m", "pytest", "bench", f"--benchmark-json=bench/results/suite-{name}.json")
    subprocess.run(command, cwd=ROOT, env=_held(name), check=True)


def _held(name: str) -> dict[str, str]:
    return {**os.environ, **machine.PATHS[name].environment}


if __name__ == "__main__":
    main()

"""README tables and pictures against the results they are made of."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from ov_minilm.bench import plots
from png import text_of

ROOT = Path(__file__).parents[2]
RACES = sorted((ROOT / "bench/results").glob("race-*.json"))


@pytest.mark.parametrize("page", ["README.md", "bench/README.md", "docs/scaling.md"])
def test_tables_are_those_of_the_results(page: str) -> None:
    """Rendered anew they are the same, letter by letter."""
    done = subprocess.run(
        [sys.executable, "-m", "cogapp", "--check", page],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert 0 == done.returncode, done.stdout


@pytest.mark.parametrize("race", RACES, ids=lambda path: path.stem)
def test_pictures_are_of_the_results(race: Path) -> None:
    """Each PNG carries the digest of the very result that lies beside it."""
    result = json.loads(race.read_text(encoding="utf-8"))
    folder = ROOT / "bench/results/plots" / race.stem.removeprefix("race-")

    digests = {path.name: text_of(path)[plots.DIGEST] for path in folder.glob("*.png")}

    drawn = {f"{name}.png" for name in plots.PLOTS if plots.draw(name, result)}
    assert dict.fromkeys(drawn, plots.digest(result)) == digests


def test_there_are_results() -> None:
    """An empty folder would let everything above pass."""
    assert RACES


@pytest.mark.parametrize("race", RACES, ids=lambda path: path.stem)
def test_results_are_complete_and_name_nobody(race: Path) -> None:
    """Not interrupted, full, of one artefact, and without paths or names of a machine."""
    text = race.read_text(encoding="utf-8")
    result = json.loads(text)

    assert (False, "full") == (result["interrupted"], result["mode"])
    assert {"fp32", "int8", "sentence_transformers/torch"} <= result["contenders"].keys()
    for private in ("/home/", "/work/", "/root/", "://"):
        assert private not in text

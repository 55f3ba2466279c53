"""Each example runs in a process of its own, on texts with known answers."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
TICKETS = EXAMPLES / "tickets.tsv"
PAGE = (EXAMPLES / "README.md").read_text(encoding="utf-8")


def run(name: str, folder: Path, *arguments: str | Path) -> list[str]:
    """Run an example, by default with the command of its page; return its lines. Warnings are errors."""
    if not arguments:
        shutil.copytree(EXAMPLES, folder / "examples")
        shutil.copytree(ROOT / "docs", folder / "docs")
        line = next(line for line in PAGE.splitlines() if line.startswith(f"python examples/{name} "))
        arguments = tuple(shlex.split(line, comments=True)[2:])
    command = [sys.executable, "-W", "error", EXAMPLES / name, *arguments]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def test_every_example_is_short_and_tested() -> None:
    """Each example has fewer than 60 lines and is named in this file."""
    this_file = Path(__file__).read_text(encoding="utf-8")

    for path in EXAMPLES.glob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) < 60
        assert f'"{path.name}"' in this_file


def test_search_finds_by_meaning_and_updates_its_index(tmp_path: Path) -> None:
    """The best file need not share a word with the question; changes of files are noticed."""
    pytest.importorskip("duckdb", reason="pip install -e '.[examples]'")
    notes = tmp_path / "notes"
    (notes / "garden").mkdir(parents=True)
    (notes / "money.txt").write_text("Interest rates stay where they are.\n\nTaxes are due in May.")
    (notes / "garden" / "tomatoes.txt").write_text("- Water them deeply.\n- Tie them up.\n" * 3)

    def search(query: str) -> list[str]:
        lines = run("search.py", tmp_path, notes, query, "--index", tmp_path / "index.duckdb")
        return [Path(line.split(maxsplit=1)[1]).name for line in lines[::2]]

    assert "tomatoes.txt" == search("how to care for plants")[0]
    (notes / "money.txt").write_text("The dog sleeps under the table.")
    os.utime(notes / "money.txt", ns=(0, 0))  # the file's clock may be too coarse for the change
    (notes / "stars.txt").write_text("The moon moves before the sun.")
    shutil.rmtree(notes / "garden")
    assert ["money.txt", "stars.txt"] == search("a pet")


@pytest.mark.slow  # encodes all pages
def test_search_answers_from_the_documentation(tmp_path: Path) -> None:
    """A question about long texts finds the page about them first."""
    pytest.importorskip("duckdb", reason="pip install -e '.[examples]'")
    lines = run("search.py", tmp_path)

    assert "long-texts.md" == Path(lines[0].split()[1]).name


def test_duplicates_are_grouped(tmp_path: Path) -> None:
    """Each group is a pair of tickets with the same meaning."""
    groups = [group.splitlines() for group in "\n".join(run("duplicates.py", tmp_path)).split("\n\n")]

    same = "I was charged twice for the same order.", "You charged me two times for one and the same order."
    assert [*same] in groups
    assert {2} == {len(group) for group in groups if group}


def test_zero_shot_classifies_most_tickets(tmp_path: Path) -> None:
    """At least 50 of 60 tickets, in five classes, get the class that their author meant."""
    *lines, verdict = run("zero_shot.py", tmp_path)

    assert 60 == len(lines)
    assert {"delivery", "billing", "account", "defect", "return"} == {line.split("\t")[0] for line in lines}
    assert int(verdict.split()[0]) >= 50, verdict


def test_clusters_are_listed_and_drawn(tmp_path: Path) -> None:
    """Every ticket is listed once, in five clusters, and the picture has five colours."""
    image = pytest.importorskip("matplotlib.image", reason="pip install -e '.[examples]'")
    pytest.importorskip("sklearn", reason="pip install -e '.[examples]'")
    lines = run("cluster.py", tmp_path)

    texts = [line.split("\t")[1] for line in TICKETS.read_text(encoding="utf-8").splitlines()]
    assert sorted(texts) == sorted(line.strip() for line in lines if line.startswith(" "))
    assert 5 == len([line for line in lines if line and not line.startswith(" ")])
    pixels = (image.imread(tmp_path / "clusters.png")[..., :3] * 255).astype(int).reshape(-1, 3)
    _, counts = np.unique(pixels[np.ptp(pixels, axis=1) > 60], axis=0, return_counts=True)  # not grey
    assert 5 <= np.count_nonzero(counts >= 100)

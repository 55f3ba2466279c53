"""Every example as its user runs it, in a process of its own, on texts whose answers are known."""

from __future__ import annotations

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


def run(folder: Path, command: list[str]) -> list[str]:
    """Run an example in a folder, warnings being errors, and return the lines that it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *command], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def as_on_its_page(name: str, folder: Path) -> list[str]:
    """Run an example with the words of examples/README.md, in a folder with copies of what it needs."""
    shutil.copytree(EXAMPLES, folder / "examples")
    shutil.copytree(ROOT / "docs", folder / "docs")
    line = next(line for line in PAGE.splitlines() if line.startswith(f"python examples/{name} "))
    return run(folder, shlex.split(line, comments=True)[1:])


def test_every_example_is_short_and_run_here() -> None:
    """Each file has fewer than 60 lines, and its name appears in a test of this file."""
    here = Path(__file__).read_text(encoding="utf-8")

    for path in EXAMPLES.glob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) < 60
        assert f'"{path.name}"' in here


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """A folder of two text files, one in a subfolder."""
    (tmp_path / "notes" / "garden").mkdir(parents=True)
    (tmp_path / "notes" / "money.txt").write_text(
        "Interest rates stay where they are.\n\nTaxes are due in May."
    )
    (tmp_path / "notes" / "garden" / "tomatoes.txt").write_text("- Water them deeply.\n- Tie them up.\n" * 3)
    return tmp_path / "notes"


def search(notes: Path, query: str) -> list[str]:
    """Return the files found for a query, best first."""
    pytest.importorskip("duckdb", reason="pip install -e '.[examples]'")
    index = notes.parent / "index.duckdb"
    lines = run(notes, [str(EXAMPLES / "search.py"), str(notes), query, "--index", str(index)])
    return [Path(line.split(maxsplit=1)[1]).name for line in lines[::2]]


def test_search_finds_what_is_meant(notes: Path) -> None:
    """No word of the question stands in the file that answers it."""
    assert "tomatoes.txt" == search(notes, "how to care for plants")[0]
    assert "money.txt" == search(notes, "what will credit cost")[0]


def test_search_keeps_up_with_its_folder(notes: Path) -> None:
    """Files that are new, changed or gone are so in the next search."""
    search(notes, "anything")
    (notes / "money.txt").write_text("The dog sleeps under the table.")
    os.utime(
        notes / "money.txt", ns=(0, 0)
    )  # a clock too coarse to show the change would be the test's fault
    (notes / "stars.txt").write_text("The moon moves before the sun.")
    shutil.rmtree(notes / "garden")

    assert ["money.txt", "stars.txt"] == search(notes, "a pet")
    assert ["stars.txt", "money.txt"] == search(notes, "an eclipse")


def test_search_answers_from_the_documentation(tmp_path: Path) -> None:
    """The page on long texts is found first for what happens to them."""
    pytest.importorskip("duckdb", reason="pip install -e '.[examples]'")
    lines = as_on_its_page("search.py", tmp_path)

    assert "long-texts.md" == Path(lines[0].split()[1]).name


def test_duplicates_are_grouped(tmp_path: Path) -> None:
    """Pairs that were written to say the same stand together; nothing else is printed."""
    groups = "\n".join(as_on_its_page("duplicates.py", tmp_path)).split("\n\n")

    assert (
        "I was charged twice for the same order.\nYou charged me two times for one and the same order."
        in groups
    )
    assert {2} == {len(group.splitlines()) for group in groups if group}


def test_zero_shot_sorts_most_tickets_right(tmp_path: Path) -> None:
    """Five descriptions sort sixty tickets, of which at least fifty go where their author meant them."""
    *lines, verdict = as_on_its_page("zero_shot.py", tmp_path)

    assert 60 == len(lines)
    assert {"delivery", "billing", "account", "defect", "return"} == {line.split("\t")[0] for line in lines}
    assert int(verdict.split()[0]) >= 50, verdict


def test_clusters_are_listed_and_drawn(tmp_path: Path) -> None:
    """Every ticket is listed once, in five clusters, and the picture has their colours."""
    for library in ("sklearn", "matplotlib"):
        pytest.importorskip(library, reason="pip install -e '.[examples]'")
    lines = as_on_its_page("cluster.py", tmp_path)

    texts = [line.split("\t")[1] for line in TICKETS.read_text(encoding="utf-8").splitlines()]
    assert sorted(texts) == sorted(line.strip() for line in lines if line.startswith(" "))
    assert 5 == len([line for line in lines if line and not line.startswith(" ")])
    assert (tmp_path / "clusters.png").read_bytes().startswith(b"\x89PNG")
    assert 5 <= len(colours(tmp_path / "clusters.png"))


def colours(picture: Path) -> set[tuple[int, ...]]:
    """Return the colours, not grey, of at least 100 pixels."""
    import matplotlib.image

    pixels = (matplotlib.image.imread(picture)[..., :3] * 255).astype(int).reshape(-1, 3)
    found, counts = np.unique(pixels[np.ptp(pixels, axis=1) > 60], axis=0, return_counts=True)
    return {tuple(colour) for colour in found[counts >= 100]}

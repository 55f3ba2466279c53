"""Rows in a file, and tables of the rows that one machine measured with one artefact."""

import dataclasses
from pathlib import Path

import pytest
from support.rows import row

from ov_minilm.measure.render import AHEAD, Figures, Table, markdown, number, page
from ov_minilm.measure.row import OURS, RATIO, Row, StaleRows, merge, read, shipped_fingerprint

ROWS = [
    *(row("mix/slow/texts_per_s", 100), row(f"mix/slow/{RATIO}", 0.95)),
    *(row("mix/fast/texts_per_s", 1000), row(f"mix/fast/{RATIO}", 0.5), row("accuracy/fast/cosine", 0.99)),
    *(row("mix/wrong/texts_per_s", 9000), row(f"mix/wrong/{RATIO}", 0.05)),
    *(row("accuracy/wrong/cosine", 0.57), row(f"mix/{OURS}/texts_per_s", 500)),
]


def test_new_rows_replace_old_ones(tmp_path: Path) -> None:
    """A row replaces the row of the same name and machine; rows of other artefacts are removed."""
    path, first = tmp_path / "rows.jsonl", row("mix/a/texts_per_s", 1)
    other_machine, newer = dataclasses.replace(first, machine="another"), row("mix/a/texts_per_s", 2)

    merge(path, [dataclasses.replace(row("query/a/p50_ms"), artefact="old")])
    merge(path, [first, other_machine])
    merge(path, [newer])

    assert [newer, other_machine] == sorted(read(path), key=lambda one: one.machine != newer.machine)


@pytest.mark.parametrize("line", ["{", '{"what": "a/b/c"}', '{"nothing": 1}'])
def test_an_invalid_line_is_named(tmp_path: Path, line: str) -> None:
    """The error has file and line; a row needs its machine, artefact and date."""
    path = tmp_path / "rows.jsonl"
    merge(path, [row("query/a/p50_ms")])
    path.write_text(path.read_text(encoding="utf-8") + line, encoding="utf-8")

    with pytest.raises(ValueError, match=r"rows\.jsonl, line 2: not a row"):
        read(path)


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        (
            [dataclasses.replace(ROWS[0], artefact="old")],
            StaleRows,
            "with artefact old, but this is .*: measure again",
        ),
        ([ROWS[0], dataclasses.replace(ROWS[1], machine="another")], ValueError, "rows of 2 machines"),
    ],
)
def test_rows_that_cannot_be_compared_are_refused(rows: list[Row], error: type, message: str) -> None:
    """A table has rows of the shipped artefact on one machine."""
    with pytest.raises(error, match=message):
        Figures(rows, shipped_fingerprint())


def test_a_table_is_sorted_by_speed() -> None:
    """ov_minilm comes first; other libraries have a ratio, and marks if faster or with other vectors."""
    table = Figures(ROWS, shipped_fingerprint()).table("", [("mix", "texts_per_s")])

    cells = [
        [OURS, "500"],
        ["wrong †", "9,000"],
        ["fast", f"1,000 (0.50×) {AHEAD}"],
        ["slow ‡", "100 (0.95×)"],
    ]
    assert cells == table.cells
    for mark in (
        f"{AHEAD} ahead",
        "† its vectors are not those of the model",
        "‡ its vectors were not compared",
    ):
        assert any(note.startswith(mark) for note in table.notes)
    lines = markdown(table).splitlines()
    assert ("|  | mix, texts/s |", f"| **{OURS}** | **500** |") == (lines[0], lines[2])
    assert lines[-1].startswith("a machine, 2 threads; artefact")
    assert ["1,234", "12.3", "0.988", "5"] == [number(value) for value in (1234.5, 12.345, 0.98765, 5)]


def test_the_page_is_escaped_and_loads_nothing() -> None:
    """The page loads no other file; cells have the name of their column, which phones show."""
    html = page("a <title>", ["a & b"], [Table("speed", ["", "x"], [[OURS, "1"]], ["a note"])])

    for shown in ("a &lt;title&gt;", "a &amp; b", 'class="ours"', 'data-label="x"', "a note"):
        assert shown in html
    assert "http" not in html

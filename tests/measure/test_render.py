"""Tables: ours first, who is ahead, whose vectors are others, and nothing of another artefact or machine."""

from __future__ import annotations

import dataclasses

import pytest
from support.rows import row

from ov_minilm.measure.render import AHEAD, Figures, Table, markdown, number, page
from ov_minilm.measure.row import OURS, RATIO, Row, StaleRows, shipped_fingerprint

ROWS = [
    *(row("mix/slow/texts_per_s", 100), row(f"mix/slow/{RATIO}", 5)),
    *(row("mix/fast/texts_per_s", 1000), row(f"mix/fast/{RATIO}", 0.5), row("accuracy/fast/cosine", 0.99)),
    *(
        row("mix/wrong/texts_per_s", 9000),
        row(f"mix/wrong/{RATIO}", 0.05),
        row("accuracy/wrong/cosine", 0.57),
    ),
    row(f"mix/{OURS}/texts_per_s", 500),
]


def figures(rows: list[Row]) -> Figures:
    """Index rows of the artefact that ships."""
    return Figures(rows, shipped_fingerprint())


def test_ours_is_first_and_others_by_speed() -> None:
    """With how many times better ours is, who is ahead, no ratio for other vectors, and marks explained."""
    table = figures(ROWS).table("", [("mix", "texts_per_s")])

    cells = [[OURS, "500"], ["wrong †", "9,000"], ["fast", f"1,000 (0.50×) {AHEAD}"]]
    cells.append(["slow ‡", "100 (5.00×)"])
    assert cells == table.cells
    assert f"{AHEAD} ahead of ov_minilm" in table.notes
    for mark in ("† its vectors are not those of the model", "‡ its vectors were not compared"):
        assert any(note.startswith(mark) for note in table.notes)

    lines = markdown(table).splitlines()
    assert ("|  | mix, texts/s |", f"| **{OURS}** | **500** |") == (lines[0], lines[2])
    assert lines[-1].startswith("a machine, 2 threads; artefact")


def test_rows_that_cannot_stand_together_are_refused() -> None:
    """A table must not show figures of what does not ship, nor of two machines beside each other."""
    with pytest.raises(StaleRows):
        figures([dataclasses.replace(ROWS[0], artefact="old")])
    with pytest.raises(ValueError, match="rows of 2 machines"):
        figures([ROWS[0], dataclasses.replace(ROWS[1], machine="another")])


def test_numbers_have_three_digits_that_count() -> None:
    """Or all that stand before the point."""
    assert ["1,234", "12.3", "0.988", "5"] == [number(value) for value in (1234.5, 12.345, 0.98765, 5)]


def test_the_page_shows_everything_escaped() -> None:
    """It opens offline: nothing in it is fetched; names of columns stand at the cells for phones."""
    html = page("a <title>", ["a & b"], [Table("speed", ["", "x"], [[OURS, "1"]], ["a note"])])

    for shown in ("a &lt;title&gt;", "a &amp; b", 'class="ours"', 'data-label="x"', "a note"):
        assert shown in html
    assert "http" not in html

"""Tables: ours first, who is ahead, whose vectors are others, and nothing of another artefact or machine."""

from __future__ import annotations

import dataclasses

import pytest
from support.rows import row

from ov_minilm.measure.render import AHEAD, Figures, Table, markdown, number, page
from ov_minilm.measure.row import OURS, RATIO, Row, StaleRows, shipped_fingerprint

ROWS = [
    row("mix/slow/texts_per_s", 100),
    row(f"mix/slow/{RATIO}", 5),
    row("mix/fast/texts_per_s", 1000),
    row(f"mix/fast/{RATIO}", 0.5),
    row(f"mix/{OURS}/texts_per_s", 500),
    row("mix/wrong/texts_per_s", 9000),
    row(f"mix/wrong/{RATIO}", 0.05),
    row("accuracy/wrong/cosine", 0.57),
]


def figures(rows: list[Row]) -> Figures:
    """Index rows of the artefact that ships."""
    return Figures(rows, shipped_fingerprint())


def test_ours_is_first_and_others_by_speed() -> None:
    """With how many times better ours is, who is ahead, and no ratio for vectors that are others."""
    table = figures(ROWS).table("", [("mix", "texts_per_s")])

    assert [
        [OURS, "500"],
        ["wrong †", "9,000"],
        ["fast", f"1,000 (0.50×) {AHEAD}"],
        ["slow", "100 (5.00×)"],
    ] == table.cells
    assert f"{AHEAD} ahead of ov_minilm" in table.notes
    assert "a machine, 2 threads; artefact" in table.notes[0]


def test_the_marks_are_explained_where_they_stand() -> None:
    """Also the one that stands in the first column."""
    table = figures(ROWS).table("", [("mix", "texts_per_s")])

    assert any(note.startswith("† its vectors are not those of the model") for note in table.notes)


def test_rows_of_another_artefact_are_refused() -> None:
    """A table must not show figures of what does not ship."""
    with pytest.raises(StaleRows):
        figures([dataclasses.replace(ROWS[0], artefact="old")])


def test_rows_of_two_machines_are_refused() -> None:
    """A figure beside another reads as if they could be compared."""
    with pytest.raises(ValueError, match="rows of 2 machines"):
        figures([ROWS[0], dataclasses.replace(ROWS[1], machine="another")])


def test_markdown_is_a_table_with_its_conditions() -> None:
    """Header, alignment, a line for each contender, and the notes under it."""
    lines = markdown(figures(ROWS).table("", [("mix", "texts_per_s")])).splitlines()

    assert "|  | mix, texts/s |" == lines[0]
    assert f"| **{OURS}** | **500** |" == lines[2]
    assert lines[-1].startswith("a machine, 2 threads")


@pytest.mark.parametrize(
    ("value", "text"), [(1234.5, "1,234"), (12.345, "12.3"), (0.98765, "0.988"), (5, "5")]
)
def test_numbers_have_three_digits_that_count(value: float, text: str) -> None:
    """Or all that stand before the point."""
    assert text == number(value)


def test_the_page_shows_everything_escaped() -> None:
    """It opens offline: nothing in it is fetched; names of columns stand at the cells for phones."""
    html = page("a <title>", ["a & b"], [Table("speed", ["", "x"], [[OURS, "1"]], ["a note"])])

    assert "a &lt;title&gt;" in html
    assert "a &amp; b" in html
    assert 'class="ours"' in html
    assert 'data-label="x"' in html
    assert "http" not in html

"""The page."""

from __future__ import annotations

import re

from ov_minilm.bench.report import render
from results import result


def test_the_page_fetches_nothing() -> None:
    """It opens offline: no script, no style sheet, no picture from elsewhere."""
    page = render(result())

    assert [] == re.findall(r"<(?:script|link|img|iframe)\b", page)
    assert [] == re.findall(r"""(?:src|href)=["'](?!#)""", page)
    assert [] == re.findall(r"@import|url\((?!#)", page)


def test_the_page_says_what_it_was_measured_on() -> None:
    """Machine, instruction sets, threads, precision and artefact; names are escaped."""
    page = render(result())

    for fact in (
        "A &lt;Fast&gt; Processor",
        "avx2",
        "2 for every contender",
        "brgemm_I8",
        "0123456789abcdef",
    ):
        assert fact in page


def test_the_page_has_a_row_and_a_line_for_each_contender() -> None:
    """And the pictures."""
    page = render(result())

    assert "4000 (4400)" in page
    assert "0.80 / 0.88 / 0.96" in page
    assert 5 == page.count("<svg")


def test_noise_is_shown() -> None:
    """A figure that differs between rounds is marked where it stands, and the page says so at its top."""
    page = render(result())

    assert 'class="noisy"' in page
    assert "1 figure marked" in page


def test_who_is_missing_is_listed_with_the_reason() -> None:
    """Nothing is left out in silence."""
    assert "<b>someone/else</b>: pip found no version for this Python" in render(result())


def test_an_interrupted_run_still_gives_a_page() -> None:
    """With what there is, and a word that it was interrupted."""
    broken = result() | {"interrupted": True, "contenders": {}, "noisy": []}
    for name in ("scatter", "startup", "artefact"):
        del broken[name]

    assert "Interrupted" in render(broken)

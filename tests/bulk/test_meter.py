"""The progress of a job on stderr."""

import io
import sys

import pytest
from support.fakes import Terminal
from support.processes import wait_until

from ov_minilm.bulk.meter import Meter


@pytest.mark.parametrize(
    ("total", "start"),
    [(1000, "[############------------]  50%, ETA 0:00:10, 2,000 texts"), (None, "2,000 texts")],
)
def test_the_line_has_share_time_left_and_rates(
    total: int | None, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time left is computed without the first rows; stdin, whose size is unknown, has no bar."""
    monkeypatch.setattr("time.monotonic", iter([100.0, 104.0]).__next__)
    meter = Meter(total, show=False)
    meter.advance(100, 1500, 200)
    meter.advance(1900, 28_500, 500)
    meter.keep(1500)

    assert f"{start} (1,500 written), 200 texts/s, 3,000 tokens/s" == meter.line(110.0)


EMPTY_BAR = f"[{'-' * 24}]   0%, 0 texts"


@pytest.mark.parametrize(
    ("stderr", "show", "first", "last"),
    [
        (Terminal(), True, f"\r{EMPTY_BAR}", "\r\x1b[K"),
        (Terminal(), False, "", ""),
        (Terminal(), None, "", "\r\x1b[K"),  # the job ends before a bar would appear
        (io.StringIO(), True, EMPTY_BAR, "tokens/s\n"),
        (io.StringIO(), None, "", ""),
    ],
    ids=["terminal", "terminal-hidden", "terminal-short", "file", "file-default"],
)
def test_a_terminal_shows_a_bar_and_a_file_gets_lines(
    stderr: io.StringIO, show: bool | None, first: str, last: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bar is removed at the end. By default only a terminal shows progress."""
    monkeypatch.setattr(sys, "stderr", stderr)

    with Meter(12, show) as meter:
        meter.advance(3, 9, 10)

    shown = stderr.getvalue()
    assert (True, True) == (shown.startswith(first), shown.endswith(last))
    assert bool(first or last) == bool(shown)
    assert stderr.isatty() or not show or "83%, 3 texts" in shown


def test_a_bar_appears_before_the_first_rows_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the first rows take long, a terminal shows the bar before they are done."""
    stderr = Terminal()
    monkeypatch.setattr(sys, "stderr", stderr)

    with Meter(12, None):
        wait_until(lambda: "0 texts" in stderr.getvalue(), 5)

"""The line that says how far a job is."""

from __future__ import annotations

import io
import sys

import pytest

from ov_minilm.bulk.meter import Meter


class Terminal(io.StringIO):
    """What a terminal looks like to a program."""

    def isatty(self) -> bool:
        """Be one."""
        return True


def test_the_line_has_rates_and_what_is_left() -> None:
    """After ten seconds half is done, and a tenth was before: the other half takes 12.5 more."""
    meter = Meter(1000, show=False)
    meter.advance(0, 0, 100)
    meter.advance(2000, 30_000, 500)

    said = meter.line(10.0)

    assert "[############------------]  50%  2,000 texts, 200 texts/s, 3,000 tokens/s, ETA 0:00:12" == said


def test_without_a_total_there_is_no_bar() -> None:
    """Of stdin nobody knows how long it is."""
    meter = Meter(None, show=False)
    meter.advance(50, 600, 0)

    assert "50 texts, 5 texts/s, 60 tokens/s" == meter.line(10.0)


@pytest.mark.parametrize(
    ("stderr", "show", "said"),
    [
        (Terminal(), True, "\r[####################----]"),
        (Terminal(), False, ""),
        (Terminal(), None, ""),  # not yet: it has not taken long
        (io.StringIO(), True, "[####################----]"),
        (io.StringIO(), None, ""),
    ],
)
def test_it_speaks_where_it_is_wanted(
    stderr: io.StringIO, show: bool | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal is written over and cleared at the end; elsewhere there is a line now and then."""
    monkeypatch.setattr(sys, "stderr", stderr)

    with Meter(12, show) as meter:
        meter.advance(3, 9, 10)

    found = stderr.getvalue()
    assert said == found[: len(said)]
    assert bool(said) == bool(found)
    if said:
        assert found.endswith("\r\x1b[K" if stderr.isatty() else "tokens/s\n")

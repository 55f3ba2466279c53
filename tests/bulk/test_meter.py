"""The line that says how far a job is."""

from __future__ import annotations

import io
import sys

import pytest
from support.processes import until

from ov_minilm.bulk.meter import Meter


class Terminal(io.StringIO):
    """What a terminal looks like to a program."""

    def isatty(self) -> bool:
        """Be one."""
        return True


@pytest.mark.parametrize(
    ("total", "start"),
    [(1000, "[############------------]  50%, ETA 0:00:10, 2,000 texts"), (None, "2,000 texts")],
)
def test_the_line_has_rates_what_is_safe_and_what_is_left(
    total: int | None, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fifth was done before; since the first rows 300 bytes took 6 seconds, and 500 more take 10.

    Of stdin nobody knows how long it is.
    """
    monkeypatch.setattr("time.monotonic", iter([100.0, 104.0]).__next__)
    meter = Meter(total, show=False)
    meter.advance(100, 1500, 200)
    meter.advance(1900, 28_500, 500)
    meter.keep(1500)

    assert f"{start} (1,500 safe), 200 texts/s, 3,000 tokens/s" == meter.line(110.0)


@pytest.mark.parametrize(
    ("stderr", "show", "first", "last"),
    [
        (Terminal(), True, "\r[------------------------]   0%, 0 texts", "\r\x1b[K"),
        (Terminal(), False, "", ""),
        (Terminal(), None, "", "\r\x1b[K"),  # not yet: it has not taken long
        (io.StringIO(), True, "[------------------------]   0%, 0 texts", "tokens/s\n"),
        (io.StringIO(), None, "", ""),
    ],
)
def test_it_speaks_where_it_is_wanted(
    stderr: io.StringIO, show: bool | None, first: str, last: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal is written over and cleared at the end; elsewhere there are lines now and then."""
    monkeypatch.setattr(sys, "stderr", stderr)

    with Meter(12, show) as meter:
        meter.advance(3, 9, 10)

    found = stderr.getvalue()
    assert (True, True) == (found.startswith(first), found.endswith(last))
    assert bool(first or last) == bool(found)
    assert stderr.isatty() or not show or "83%, 3 texts" in found


def test_it_speaks_while_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal a bar appears on its own, though the first rows take long."""
    stderr = Terminal()
    monkeypatch.setattr(sys, "stderr", stderr)

    with Meter(12, None):
        until(lambda: "0 texts" in stderr.getvalue(), 5)

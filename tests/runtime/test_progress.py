"""Progress: a callback hears everything, a terminal sees a bar, everybody else hears nothing."""

from __future__ import annotations

import io
from collections.abc import Iterable
from contextlib import redirect_stderr
from types import SimpleNamespace

import pytest

from ov_minilm.runtime import progress
from ov_minilm.runtime.progress import Progress, report


class Terminal(io.StringIO):
    """A stderr that says it is a terminal, and remembers."""

    def isatty(self) -> bool:
        """Say so."""
        return True


def encode(how: Progress, stderr: io.StringIO, blocks: Iterable[int] = (3, 5, 2), total: int = 10) -> str:
    """Report as an encode does, and return what stderr got."""
    with redirect_stderr(stderr), report(total, how) as advance:
        for block in blocks:
            advance(block)
    return stderr.getvalue()


def test_who_wants_progress_sees_it_and_nobody_else(capsys: pytest.CaptureFixture[str]) -> None:
    """A callback hears (done, total) of every block; a terminal shows a bar, at once if it is asked for."""
    heard: list[tuple[int, int]] = []

    assert "" == encode(lambda done, total: heard.append((done, total)), Terminal())
    assert [(3, 10), (8, 10), (10, 10)] == heard
    assert ["", ""] == [encode(how, Terminal()) for how in (False, None)]  # it did not take long
    assert "" == encode(None, io.StringIO())  # logs and pipes stay clean
    seen = encode(True, Terminal())
    assert 0 <= seen.find("3/10") < seen.find("10/10")
    assert seen.endswith("\n")
    assert ("", "") == capsys.readouterr()  # stdout may hold the vectors


def test_none_draws_a_bar_when_it_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """The late bar counts what was done before it appeared, and ends full."""
    clock = iter([0.0, 1.0, 3.0, 4.0])  # at the start and at each block
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(clock)))

    seen = encode(None, Terminal())

    assert "3/10" not in seen
    assert 0 <= seen.find("8/10") < seen.find("10/10")


def test_true_without_a_terminal_is_a_line_for_each_tenth() -> None:
    """A log or a notebook gets at most ten lines on stderr, and no control characters."""
    seen = encode(True, io.StringIO(), [199, *[1] * 801], 1000)

    assert "".join(f"encode: {done} of 1000 texts\n" for done in (199, *range(200, 1001, 100))) == seen


def test_a_bar_ends_its_line_when_the_work_fails() -> None:
    """The error is passed on, and its trace starts on a line of its own."""
    with pytest.raises(ZeroDivisionError):
        encode(True, screen := Terminal(), (3 // left for left in (1, 0)))

    assert "3/10" in screen.getvalue()
    assert screen.getvalue().endswith("\n")

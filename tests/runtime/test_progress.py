"""Progress: a callback hears everything, a terminal sees a bar, everybody else hears nothing."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
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


def encode(total: int, blocks: Iterable[int], how: Progress) -> None:
    """Report as an encode does."""
    with report(total, how) as advance:
        for block in blocks:
            advance(block)


def on_terminal(total: int, blocks: Iterable[int], how: Progress) -> str:
    """Return what a terminal gets to see."""
    with redirect_stderr(Terminal()) as screen:
        encode(total, blocks, how)
    return screen.getvalue()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every call count as a long one."""
    monkeypatch.setattr(progress, "BAR_DELAY_S", 0.0)


def test_a_callback_hears_how_far_it_is() -> None:
    """(done, total) after every block, done growing to total."""
    heard: list[tuple[int, int]] = []

    encode(10, [3, 5, 2], lambda done, total: heard.append((done, total)))

    assert heard == [(3, 10), (8, 10), (10, 10)]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("how", [False, lambda _done, _total: None], ids=["False", "callback"])
def test_a_terminal_that_is_not_wanted_sees_nothing(how: Progress) -> None:
    """False is silent, and who shows progress himself gets no second display; None would draw here."""
    assert on_terminal(10, [3, 7], how) == ""
    assert "10/10" in on_terminal(10, [3, 7], None)


@pytest.mark.usefixtures("impatient")
def test_none_is_silent_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Logs and pipes stay clean however long it takes."""
    encode(10, [3, 7], None)

    assert capsys.readouterr() == ("", "")


def test_none_is_silent_while_it_is_short() -> None:
    """A call that is over before anybody waits draws nothing on a terminal."""
    assert on_terminal(10, [3, 7], None) == ""


def test_none_draws_a_bar_when_it_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """The late bar counts what was done before it appeared, and ends full."""
    clock = iter([0.0, 1.0, 3.0, 4.0])  # at the start and at each block
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(clock)))

    seen = on_terminal(10, [3, 5, 2], None)

    assert "3/10" not in seen
    assert seen.index("8/10") < seen.index("10/10")


def test_true_draws_a_bar_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    """From the first block to the last, on stderr: stdout may hold the vectors."""
    seen = on_terminal(10, [3, 7], True)

    assert seen.index("3/10") < seen.index("10/10")
    assert seen.endswith("\n")
    assert capsys.readouterr().out == ""


def test_true_without_a_terminal_is_a_line_for_each_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    """A log or a notebook gets at most ten lines on stderr, and no control characters."""
    encode(1000, [199, *[1] * 801], True)

    lines = [f"encode: {done} of 1000 texts\n" for done in (199, *range(200, 1001, 100))]
    assert capsys.readouterr() == ("", "".join(lines))


def test_a_bar_ends_its_line_when_the_work_fails() -> None:
    """The error is passed on, and its trace starts on a line of its own."""

    def blocks() -> Iterator[int]:
        yield 3
        raise KeyError

    with redirect_stderr(Terminal()) as screen, pytest.raises(KeyError):
        encode(10, blocks(), True)

    assert "3/10" in screen.getvalue()
    assert screen.getvalue().endswith("\n")

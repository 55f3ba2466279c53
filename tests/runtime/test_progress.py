"""Progress: a callback gets every block, a terminal shows a bar, other outputs stay empty."""

import io
from collections.abc import Iterable
from contextlib import redirect_stderr
from types import SimpleNamespace

import pytest
from support.fakes import Terminal

from ov_minilm.runtime import progress as module
from ov_minilm.runtime.progress import Progress, report


def encode(
    progress: Progress, stderr: io.StringIO, blocks: Iterable[int] = (3, 5, 2), total: int = 10
) -> str:
    """Report blocks as `encode` does; return the text that was written to stderr."""
    with redirect_stderr(stderr), report(total, progress) as advance:
        for block in blocks:
            advance(block)
    return stderr.getvalue()


def test_progress_goes_to_a_callback_or_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """A callback gets (done, total) of every block; a terminal shows a bar, at once if requested."""
    received: list[tuple[int, int]] = []

    assert "" == encode(lambda done, total: received.append((done, total)), Terminal())
    assert [(3, 10), (8, 10), (10, 10)] == received
    assert ["", ""] == [encode(how, Terminal()) for how in (False, None)]  # the call is short
    assert "" == encode(None, io.StringIO())  # logs and pipes stay clean
    seen = encode(True, Terminal())
    assert 0 <= seen.find("3/10") < seen.find("10/10")
    assert seen.endswith("\n")
    assert ("", "") == capsys.readouterr()  # stdout is for vectors


def test_a_long_call_draws_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bar appears late and counts earlier texts; a file gets at most ten lines."""
    clock = iter([0.0, 1.0, 3.0, 4.0])  # time at the start and after each block
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(clock, 5.0)))

    seen, lines = encode(None, Terminal()), encode(True, io.StringIO(), [199, *[1] * 801], 1000)

    assert "3/10" not in seen
    assert 0 <= seen.find("8/10") < seen.find("10/10")
    assert "".join(f"encode: {done} of 1000 texts\n" for done in (199, *range(200, 1001, 100))) == lines


def test_a_bar_ends_its_line_on_an_error() -> None:
    """The error is raised, and its traceback starts on a new line."""
    with pytest.raises(ZeroDivisionError):
        encode(True, screen := Terminal(), (3 // left for left in (1, 0)))

    assert "3/10" in screen.getvalue()
    assert screen.getvalue().endswith("\n")

"""How far an encode is: a bar on a terminal, a callback, or nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = bool | Callable[[int, int], None] | None

BAR_DELAY_S = 2.0  # seconds before a bar appears on its own: a short call stays silent


@contextmanager
def report(total: int, progress: Progress) -> Iterator[Callable[[int], None]]:
    """Yield a function to be told how many more texts are done.

    None shows a bar on stderr if that is a terminal and the call takes long; True shows it at once, and
    writes a line for each tenth if stderr is a log or a notebook, where no bar can be drawn.
    """
    terminal = sys.stderr is not None and sys.stderr.isatty()
    if callable(progress):
        yield _Counter(total, progress)
    elif terminal and progress is not False:
        yield from _bar(total, 0.0 if progress else BAR_DELAY_S)
    elif progress and sys.stderr is not None:
        yield _Counter(total, _tenths())
    else:
        yield lambda _: None


class _Counter:
    def __init__(self, total: int, callback: Callable[[int, int], None]) -> None:
        self._done = 0
        self._total = total
        self._callback = callback

    def __call__(self, more: int) -> None:
        self._done += more
        self._callback(self._done, self._total)


def _tenths() -> Callable[[int, int], None]:
    shown = 0

    def show(done: int, total: int) -> None:
        nonlocal shown
        if 10 * done // total > shown:
            shown = 10 * done // total
            sys.stderr.write(f"encode: {done} of {total} texts\n")

    return show


def _bar(total: int, patience: float) -> Iterator[Callable[[int], None]]:
    import click  # only where a bar may be drawn

    bar = click.progressbar(length=total, label="encode", show_pos=True, file=sys.stderr)
    started, waiting, shown = time.monotonic(), 0, False

    def advance(more: int) -> None:
        nonlocal waiting, shown
        waiting += more
        if time.monotonic() - started >= patience:
            shown = True
            bar.update(waiting)
            waiting = 0

    try:
        yield advance
    finally:
        if shown:
            bar.update(waiting)
            bar.render_finish()

"""Progress of a call: a bar on a terminal, a callback, or nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = bool | Callable[[int, int], None] | None

BAR_DELAY_S = 2.0  # a call that ends earlier shows no bar


@contextmanager
def report(total: int, progress: Progress) -> Iterator[Callable[[int], None]]:
    """Yield a function that takes the number of texts done since its last call.

    Args:
        total: texts of the call.
        progress: None shows a bar on stderr, if that is a terminal, after BAR_DELAY_S; True shows it at once,
            or writes a line for each tenth if stderr is not a terminal; False shows nothing; a callable is
            called with (texts done, total).
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
    shown_tenths = 0

    def show(done: int, total: int) -> None:
        nonlocal shown_tenths
        if 10 * done // total > shown_tenths:
            shown_tenths = 10 * done // total
            sys.stderr.write(f"encode: {done} of {total} texts\n")

    return show


def _bar(total: int, delay_s: float) -> Iterator[Callable[[int], None]]:
    import click  # imported here, because only a bar needs click

    bar = click.progressbar(length=total, label="encode", show_pos=True, file=sys.stderr)
    started, pending, shown = time.monotonic(), 0, False

    def advance(more: int) -> None:
        nonlocal pending, shown
        pending += more
        if time.monotonic() - started >= delay_s:
            shown = True
            bar.update(pending)
            pending = 0

    try:
        yield advance
    finally:
        if shown:
            bar.update(pending)
            bar.render_finish()

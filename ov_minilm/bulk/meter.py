"""How far a job is, how fast, and how long it will take: a bar on a terminal, else lines."""

from __future__ import annotations

import sys
import time
from types import TracebackType

WIDTH = 24  # cells of the bar
EVERY = (0.2, 60.0)  # seconds between two lines: on a terminal, and elsewhere
PATIENCE = 2.0  # seconds before a bar appears on its own: a short job stays silent


class Meter:
    """Counts what is done, and says so on stderr.

    `total` is in bytes of input, which are known before they are read; None where they are not, as of stdin.
    With show=None it speaks if stderr is a terminal and the job takes long.
    """

    def __init__(self, total: int | None, show: bool | None) -> None:
        terminal = sys.stderr is not None and sys.stderr.isatty()
        self._terminal = terminal
        self._total = total
        self._silent = sys.stderr is None or show is False or (show is None and not terminal)
        self._started = time.monotonic()
        self._next = self._started + (0.0 if show else PATIENCE)
        self._spoke = False
        self._first: int | None = None  # bytes that were done before
        self._bytes = self._texts = self._tokens = 0

    def advance(self, texts: int, tokens: int, done: int) -> None:
        """Add texts and tokens; `done` is how many bytes of input are behind us."""
        self._texts += texts
        self._tokens += tokens
        self._bytes = max(self._bytes, done)
        if self._first is None:
            self._first = done
        now = time.monotonic()
        if not self._silent and now >= self._next:
            self._next = now + EVERY[not self._terminal]
            self._say(self.line(now - self._started))

    def line(self, seconds: float) -> str:
        """Put it in words, after so many seconds."""
        rates = f"{self._texts / seconds:,.0f} texts/s, {self._tokens / seconds:,.0f} tokens/s"
        said = f"{self._texts:,} texts, {rates}"
        if not self._total:
            return said
        share = min(1.0, self._bytes / self._total)
        cells = round(share * WIDTH)
        bar = f"[{'#' * cells}{'-' * (WIDTH - cells)}] {share:4.0%}  {said}"
        since = self._bytes - (self._first or 0)
        if since <= 0:
            return bar
        left = round((self._total - self._bytes) / since * seconds)
        return f"{bar}, ETA {left // 3600}:{left // 60 % 60:02}:{left % 60:02}"

    def _say(self, line: str) -> None:
        self._spoke = True
        sys.stderr.write(f"\r{line}\x1b[K" if self._terminal else f"{line}\n")
        sys.stderr.flush()

    def __enter__(self) -> Meter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._terminal and self._spoke:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

"""Progress of a job: share done, speed and time left, as a bar on a terminal or as lines."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from types import TracebackType

BAR_CELLS = 24
INTERVALS_S = (0.2, 10.0)  # seconds between two updates on a terminal, and in a file or pipe
BAR_DELAY_S = 0.5  # a bar appears after this time, or at once with show=True


class Meter:
    """Counts finished rows, and shows progress on stderr in its own thread.

    `total` is the size of the input in bytes; None if unknown, as for stdin. With show=None, progress appears
    only if stderr is a terminal and the job takes long.
    """

    def __init__(self, total: int | None, show: bool | None) -> None:
        self._terminal = sys.stderr is not None and sys.stderr.isatty()
        self._total = total
        silent = sys.stderr is None or show is False or (show is None and not self._terminal)
        self._thread = None if silent else threading.Thread(target=self._report, daemon=True)
        self._delay = 0.0 if show else BAR_DELAY_S
        self._ended = threading.Event()
        self._started = time.monotonic()
        # time at which the first rows were done, and the bytes of these rows
        self._first_rows: tuple[float, int] | None = None
        self._bytes = self._texts = self._tokens = self._written = 0

    def advance(self, texts: int, tokens: int, done: int) -> None:
        """Add encoded texts and tokens; `done` is the number of input bytes read so far."""
        self._texts += texts
        self._tokens += tokens
        self._bytes = max(self._bytes, done)
        if self._first_rows is None:
            self._first_rows = time.monotonic(), done

    def keep(self, texts: int) -> None:
        """Add texts whose vectors are written to disk and stay there if the process is killed."""
        self._written += texts

    def line(self, now: float) -> str:
        """Return the progress as text; `now` is a value of time.monotonic()."""
        seconds = max(now - self._started, 1e-9)
        text = (
            f"{self._texts:,} texts ({self._written:,} written), "
            f"{self._texts / seconds:,.0f} texts/s, {self._tokens / seconds:,.0f} tokens/s"
        )
        if not self._total:
            return text
        share = min(1.0, self._bytes / self._total)
        cells = round(share * BAR_CELLS)
        bar = f"[{'#' * cells}{'-' * (BAR_CELLS - cells)}] {share:4.0%}, "
        # the rate leaves out compilation and the shards of an earlier run
        since, before = self._first_rows or (now, 0)
        if self._bytes > before:
            left = round((self._total - self._bytes) / (self._bytes - before) * (now - since))
            bar += f"ETA {left // 3600}:{left // 60 % 60:02}:{left % 60:02}, "
        return bar + text

    def _report(self) -> None:
        while not self._ended.wait(self._delay):
            self._delay = INTERVALS_S[not self._terminal]
            self._write()

    def _write(self) -> None:
        line = self.line(time.monotonic())
        if self._terminal:
            line = f"\r{line[: shutil.get_terminal_size().columns - 1]}\x1b[K"
        sys.stderr.write(line if self._terminal else f"{line}\n")
        sys.stderr.flush()

    def __enter__(self) -> Meter:
        if self._thread:
            if not self._delay:
                self._write()
                self._delay = INTERVALS_S[not self._terminal]
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._thread:
            self._thread.join()
            if self._terminal:
                sys.stderr.write("\r\x1b[K")
                sys.stderr.flush()
            else:
                self._write()

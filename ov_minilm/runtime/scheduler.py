"""One queue under all callers: takes what waits, packs it together, runs it. No timer.

One thread makes batches and starts them as soon as a place in the engine is free, so that what waits is
packed as late, and as full, as can be. Others, one for each place, wait for a batch to land and hand its
vectors out. An interrupt reaches the caller's thread only, and cannot leave the work of others half done.

There is a place for each stream of the engine, and one more, so that no stream waits for Python. The busier
the engine is, the more must have come before the next batch is made.

Texts of small calls that wait at the same time share grids, and go before long calls, which are drawn a
window at a time, in turn: a single text waits for the batches in flight, not for a million texts. A lone
small call needs no queue and runs in its own thread.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from queue import SimpleQueue

import numpy as np

from ov_minilm.runtime.engine import Engine
from ov_minilm.runtime.grids import Flight
from ov_minilm.runtime.packing import Batch
from ov_minilm.spec import FloatArray, IntArray

News = Callable[[int | BaseException], None]
FEW = 32  # texts of a call that need not wait for its turn
TAKEN = 4096  # cells from which on no more is drawn, of small calls and of long ones: eight batches of each
SEVERAL = 0.6  # of the cells of the lowest grid of several rows: so many tokens take both of its rows
STREAK = 8  # batches in which small calls go first, until one in which the oldest texts do
NUMBERS = 2**31  # owners are int32; texts are numbered modulo this


class Job:
    """One call: windows of token ids, and the array that its vectors go to."""

    def __init__(
        self,
        windows: Iterator[list[IntArray]],
        out: FloatArray,
        news: News,
        started: Callable[[], object] | None = None,
    ) -> None:
        """Take windows of as many texts in all as `out` [N, D] has rows.

        Both are called from the scheduler's threads: `started` when the first text runs; `news` with the
        texts that are done since it was last called, or with the error that ended the job.
        """
        self.out = out
        self.over = False  # failed, or given up by its caller: what is still in flight is dropped
        self._windows = windows
        self._drawn = 0
        self._ahead: tuple[list[IntArray], range] | None = None  # drawn, and to be drawn next
        self.tokens = 0  # of it
        self._news = news
        self._started = started

    @property
    def drawn(self) -> bool:
        """Whether no window is left to draw."""
        return self.over or self._drawn == len(self.out)

    def weigh(self) -> None:
        """Draw the next window already, to know its tokens."""
        self._ahead = self.draw()
        self.tokens = sum(map(len, self._ahead[0]))

    def draw(self) -> tuple[list[IntArray], range]:
        """Return the next window and the rows of its texts; a failure ends this job alone."""
        if self.over:
            return [], range(0)
        if self._ahead is not None:
            ahead, self._ahead = self._ahead, None
            return ahead
        try:
            window = next(self._windows)
        except Exception as error:  # whatever the caller's windows raise belongs to the caller
            self.fail(error)
            return [], range(0)
        rows = range(self._drawn, self._drawn + len(window))
        self._drawn = rows.stop
        return window, rows

    def begin(self) -> None:
        """Say that a text runs, if it is the first."""
        started, self._started = self._started, None
        if started is not None:
            try:
                started()
            except Exception as error:  # what the caller's functions raise belongs to the caller
                self.fail(error)

    def give(self, rows: list[int], vectors: FloatArray) -> None:
        """Take the vectors of some texts, and say so."""
        if not self.over:
            self.out[rows] = vectors
            try:
                self._news(len(rows))
            except Exception as error:
                self.fail(error)

    def give_up(self) -> None:
        """Leave the queue: the caller does not wait any more, and is not heard of again."""
        self.over = True
        self._news = _unheard
        self._started = None

    def fail(self, error: BaseException) -> None:
        """End with an error, if the job is not over."""
        if not self.over:
            self.over = True
            with suppress(Exception):  # who cannot hear of it must not end the work of others
                self._news(error)


@dataclass(frozen=True, slots=True)
class Stats:
    """What a scheduler did since it was made; `waiting` and `running` are of this moment."""

    texts: int  # windows of texts that have their vectors
    tokens: int
    batches: int
    cells: int  # of those batches: tokens / cells is how full they were
    waiting: int  # calls with texts that are in no row yet
    running: int  # texts packed or in flight


class Scheduler:
    """Runs the jobs of all callers on one engine, in threads that live from the first job to close()."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._plan = engine.plan
        several = [grid.cells for grid in self._plan.grids if grid.rows > 1]
        self._least = min(several, default=0)  # cells of a whole batch, of the lowest grid
        self._alone = threading.Lock()  # held by a small call that runs in its caller's thread
        self._changed = threading.Condition()  # something arrived, or the end was asked for
        self._small: deque[Job] = deque()  # that wait to be packed, first come, first served
        self._few = 0  # tokens of them
        self._turns: deque[Job] = deque()  # that have windows to draw
        self._closed = False
        self._threads: list[threading.Thread] = []
        self._flying = 0  # batches
        self._handing = threading.Lock()  # held by the thread that hands vectors out
        self._flights: SimpleQueue[Flight | None] = SimpleQueue()
        self._owners: dict[int, tuple[Job, int]] = {}  # number of a text under way -> its job and row
        self._texts = self._tokens = self._batches = self._cells = 0
        # The rest belongs to the thread that makes batches.
        self._pool = self._plan.pool()
        self._streak = 0
        self._number = 0

    @property
    def stats(self) -> Stats:
        """Counts so far."""
        waiting = len(self._small) + len(self._turns)
        return Stats(self._texts, self._tokens, self._batches, self._cells, waiting, len(self._owners))

    def run(self, windows: Iterator[list[IntArray]], out: FloatArray, advance: Callable[[int], None]) -> None:
        """Fill `out` [N, D] and return; `advance` is called in this thread as texts are done.

        An exception in the caller's thread, KeyboardInterrupt included, gives the job up; others go on.
        """
        if not len(out):
            return
        window = next(windows)  # tokenized here: callers do that side by side
        if len(window) == len(out) <= FEW and self._run_alone(window, out):
            advance(len(out))
            return
        news: SimpleQueue[int | BaseException] = SimpleQueue()
        job = Job(chain([window], windows), out, news.put)
        self.submit(job)
        left = len(out)
        try:
            while left:
                found = news.get()
                if isinstance(found, BaseException):
                    raise found
                left -= found
                advance(found)
        finally:
            job.give_up()

    def submit(self, job: Job) -> None:
        """Put a job into the queue and return at once.

        Raises:
            ValueError: the scheduler is closed.
        """
        with self._changed:
            if self._closed:
                raise ValueError("this Embedder is closed")
            if not self._threads:
                threads = [
                    threading.Thread(target=work, name=f"ov_minilm {work.__name__}", daemon=True)
                    for work in (self._start, *[self._land] * (self._plan.threads + 1))
                ]
                for thread in threads:
                    thread.start()
                self._threads = threads
            if len(job.out) <= FEW:
                job.weigh()
                if job.over:  # its windows failed
                    return
                self._small.append(job)
                self._few += job.tokens
            else:
                self._turns.append(job)
            if self._ready:  # else whoever lands next wakes it, and it finds more
                self._changed.notify()

    def close(self, *, drop: bool = False) -> None:
        """Take no more jobs, finish those there are, or drop what is in no row yet, and end the threads.

        Called from one of these, as a Future's callback is, it does not wait for them.
        """
        with self._changed:
            self._closed = True
            if drop:
                for job in (*self._small, *self._turns):
                    job.give_up()
            self._changed.notify()
        if threading.current_thread() in self._threads:
            return
        for thread in self._threads:
            thread.join()
        with self._alone:
            pass

    def _run_alone(self, window: list[IntArray], out: FloatArray) -> bool:
        """Run a few texts here and now if nobody else is at work; False: nothing was done."""
        busy = self._small or self._turns or self._owners
        if busy or not self._alone.acquire(blocking=False):
            return False
        try:
            if self._closed:
                raise ValueError("this Embedder is closed")
            for batch, vectors in self._engine.stream(self._plan.pack(window)):
                used = batch.owner >= 0
                out[batch.owner[used]] = vectors[used]
                self._count(batch)
        finally:
            self._alone.release()
        return True

    def _start(self) -> None:
        """Make batches and start them, while there are places."""
        while True:
            try:
                batch = self._next()
            except Exception as error:  # no batch could be made: nobody may wait for one for ever
                self._lose_all(error)
                continue
            if batch is None:
                for _ in self._threads:
                    self._flights.put(None)
                return
            self._launch(batch)
            del batch  # while it waits for the next, this thread keeps nothing of a call that is done

    def _launch(self, batch: Batch) -> None:
        """Start a batch, and tell those whose first text is in it."""
        try:
            flight = self._engine.start(batch)
        except Exception as error:  # it did not compile: its jobs are lost, others may run
            with self._handing:
                self._lose(batch, error)
            return
        with self._changed:
            self._flying += 1
        for job in {self._owners[number][0] for number in batch.names}:
            job.begin()
        self._flights.put(flight)

    def _land(self) -> None:
        """Wait for one batch after the other and hand its vectors out."""
        while self._land_one(self._flights.get()):
            pass

    def _land_one(self, flight: Flight | None) -> bool:
        """Hand out the vectors of one; of its grid, which may be given up, nothing is kept here."""
        if flight is None:
            return False
        try:
            try:
                vectors = flight.land()
            finally:
                with self._changed:
                    self._flying -= 1
                    self._changed.notify()
            with self._handing:
                self._scatter(flight.batch, vectors)
            flight.release()
        except Exception as error:  # the request may still run, and is not used again
            with self._handing:
                self._lose(flight.batch, error)
        return True

    @property
    def _ready(self) -> bool:
        """Whether there is a place, and enough to run in it."""
        return self._enough or (self._flying <= self._plan.threads and bool(self._turns))

    @property
    def _enough(self) -> bool:
        """Whether what waits is worth a batch: any text when nothing runs, a whole one when all streams do.

        Between these, small calls are worth one of several short rows. Less would be a lone row, which all
        threads run: beside another batch that gains nothing, and until it lands others may come to share it.
        """
        waiting = self._few + self._pool.cells
        urgent = bool(self._few or self._pool.urgent)
        if self._flying > self._plan.threads:
            return False
        if self._flying == self._plan.threads:
            return self._pool.fullness >= 1 or (urgent and waiting >= self._least)
        if self._flying == 0 or not urgent:
            return waiting > 0
        return waiting >= SEVERAL * self._least

    def _next(self) -> Batch | None:
        """Return the next batch, waiting until there is one; None when the end was asked for."""
        while True:
            with self._changed:
                while not self._ready:
                    if self._closed and not (self._turns or self._small or self._pool):
                        return None
                    self._changed.wait()
            self._pool.add(self._draw(self._small, TAKEN - self._pool.urgent), urgent=True)
            self._pool.add(self._draw(self._turns, TAKEN + self._pool.urgent - self._pool.cells))
            with self._changed:
                self._few = sum(job.tokens for job in self._small)
            in_turn, urgent = self._streak == STREAK, self._pool.urgent
            streams = self._streams()
            batch = self._pool.take(streams=streams, in_turn=in_turn)
            if batch is None and (self._enough or self._pool.cells >= TAKEN):
                batch = self._pool.take_rest(streams=streams, in_turn=in_turn, alone=self._flying == 0)
            if batch is not None:
                self._streak = self._streak + 1 if urgent and not in_turn else 0
                return batch

    def _streams(self) -> int:
        """Return how many streams are to share what is in the pool.

        Small calls are shared among all: a busy one is free again before another would be done with all.
        """
        if self._small or self._turns:
            return 1
        return self._plan.threads if self._pool.urgent else max(1, self._plan.threads - self._flying)

    def _draw(self, jobs: deque[Job], cells: int) -> dict[int, IntArray]:
        """Return the next windows, one of each call in turn, until they need about so many cells."""
        found: dict[int, IntArray] = {}
        while jobs and cells > 0:
            job = jobs.popleft()
            window, rows = job.draw()
            if not job.drawn:
                jobs.append(job)
            ids = {(self._number + i) % NUMBERS: text for i, text in enumerate(window)}
            self._number = (self._number + len(window)) % NUMBERS
            self._owners.update((number, (job, row)) for number, row in zip(ids, rows, strict=True))
            cells -= sum(map(len, window))
            found |= ids
        return found

    def _scatter(self, batch: Batch, vectors: FloatArray) -> None:
        """Give every job the vectors [R, S, D] of its texts."""
        rows, slots = np.nonzero(batch.owner >= 0)
        found = vectors[rows, slots]  # a copy: the request's memory is used again
        places: dict[Job, tuple[list[int], list[int]]] = {}
        for at, number in enumerate(batch.owner[rows, slots].tolist()):
            if number not in self._owners:  # its job was lost with all others
                continue
            job, row = self._owners.pop(number)
            theirs = places.setdefault(job, ([], []))
            theirs[0].append(row)
            theirs[1].append(at)
        self._count(batch)
        for job, (of_job, of_batch) in places.items():
            job.give(of_job, found[of_batch])

    def _lose(self, batch: Batch, error: Exception) -> None:
        """End every job that has a text in a batch."""
        for number in batch.names:
            if number in self._owners:
                self._owners.pop(number)[0].fail(error)

    def _lose_all(self, error: Exception) -> None:
        """End every job there is, and forget what was made of them."""
        with self._handing, self._changed:
            jobs = {job for job, _ in self._owners.values()} | {*self._small, *self._turns}
            self._small.clear()
            self._turns.clear()
            self._few = 0
        self._pool = self._plan.pool()
        self._owners.clear()  # of batches in flight too: what lands finds nobody
        for job in jobs:
            job.fail(error)

    def _count(self, batch: Batch) -> None:
        self._texts += batch.texts
        self._tokens += batch.used
        self._batches += 1
        self._cells += batch.segments.size


def _unheard(_: int | BaseException) -> None:
    pass

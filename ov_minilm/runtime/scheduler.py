"""One queue for all callers: waiting texts are packed into shared batches, without a timer.

Short calls and long calls wait in two pools, which take turns batch by batch: a single text does not wait for
the million texts of another call, and a long call never starves. Long calls are packed one chunk at a time;
after each chunk it is the next call's turn.

Each worker thread repeats: take a batch, run it, deliver its vectors. There is one worker for each stream of
the engine, and one more so that no stream waits for Python. If the engine is idle, a batch starts at once;
while other batches run, short calls start when they fill a batch. A call that finds the engine idle runs its
first batch in its own thread.

Worker threads run no code of callers except callbacks, so a KeyboardInterrupt ends only the call it
interrupts.
"""

from __future__ import annotations

import math
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from ov_minilm.runtime.engine import Engine
from ov_minilm.runtime.packing import Batch, Pool, Text
from ov_minilm.runtime.tokens import Tokenized
from ov_minilm.runtime.vector_cache import VectorCache
from ov_minilm.spec import FloatArray

SHORT_CALL_TEXTS = 32  # calls of up to this many texts do not wait behind longer calls
CHUNK_TOKENS = 8192  # tokens of a long call that are packed at once: 16 batches, so rows have few gaps
# the next chunk is packed when fewer cells than this (eight batches) are packed and do not run yet
LOOKAHEAD_CELLS = 4096


class Call(Future[FloatArray]):
    """A future of the unit vectors [N, D] of one caller's texts. `cancel` removes them from the queue."""

    def __init__(
        self,
        tokenized: Tokenized,
        dim: int,
        *,
        short: bool | None = None,
        cache: VectorCache | None = None,
        started: Callable[[], object] | None = None,
    ) -> None:
        """Make a call; equal texts are computed once.

        Args:
            tokenized: the texts.
            dim: components of a vector.
            short: whether the call goes before long calls; None: it does if it has at most SHORT_CALL_TEXTS
                texts.
            cache: vectors of earlier windows; new vectors are added.
            started: called once, from any thread, before the first text runs.
        """
        super().__init__()
        self.short = len(tokenized.windows) <= SHORT_CALL_TEXTS if short is None else short
        self._tokenized = tokenized
        self._cache = cache
        self._started = started
        windows = tokenized.flat
        numbers: dict[bytes, int] = {}  # token ids -> index among the distinct windows
        self._order = [numbers.setdefault(ids.tobytes(), len(numbers)) for ids in windows]
        self._keys = list(numbers)
        self._vectors = np.empty((len(numbers), dim), np.float32)
        known = cache.get(self._keys) if cache else {}
        for number, vector in known.items():
            self._vectors[number] = vector
        distinct = dict(zip(self._order, windows, strict=True))
        # (index, token ids) of the windows that are not packed yet
        self._waiting = deque(window for window in distinct.items() if window[0] not in known)
        self._left = len(self._waiting)  # windows without a vector
        self._counting = threading.Lock()  # workers may deliver vectors of one call at the same time
        if not self._left:
            self.start()
            self.end()

    @property
    def packed(self) -> bool:
        """Whether all texts are packed."""
        return not self._waiting or self.done()

    def next_texts(self, tokens: float) -> Iterator[Text]:
        """Yield the next texts to pack, about `tokens` tokens."""
        while not self.packed and tokens > 0:
            number, ids = self._waiting.popleft()
            yield Text(ids, self, number)
            tokens -= len(ids)

    def start(self) -> None:
        """Call the `started` callback, once; an error in it becomes the result of this call."""
        started, self._started = self._started, None
        if started is not None:
            try:
                started()
            except Exception as error:
                self.end(error)

    def deliver(self, numbers: list[int], vectors: FloatArray) -> None:
        """Store the vectors of some windows; when none is missing, the call ends."""
        self._vectors[numbers] = vectors
        if self._cache:
            self._cache.put([self._keys[number] for number in numbers], vectors)
        with self._counting:
            self._left -= len(numbers)
            complete = not self._left
        if complete:
            self.end()

    def end(self, error: Exception | None = None) -> None:
        """Set the result or the error, unless the call was cancelled or has failed in another batch."""
        with suppress(InvalidStateError):
            if error is not None:
                self.set_exception(error)
            else:
                self.set_result(self._tokenized.average_windows(self._vectors[self._order]))


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts since the scheduler was created; `waiting` and `running` are current values."""

    texts: int = 0  # finished texts; each window of a long text counts
    tokens: int = 0
    batches: int = 0
    cells: int = 0  # cells of these batches, with padding; tokens / cells is the share without padding
    waiting: int = 0  # calls with texts that are not packed yet
    running: int = 0  # texts that are packed or in a running batch
    cached: int = 0  # texts whose vectors came from the cache
    cache_bytes: int = 0  # memory of the cache


class Scheduler:
    """Runs the calls of all callers on one engine, in threads that start with the first queued text."""

    def __init__(self, engine: Engine, *, workers: int | None = None) -> None:
        """Use `workers` threads; None: one more than streams; 0: the caller has to call `run_next`."""
        self._engine = engine
        self._lanes = engine.plan.lanes
        self._streams = engine.plan.streams
        self._min_batch_cells = min((g.cells for g in engine.plan.grids if g.rows > 1), default=1)
        self._worker_count = self._streams + 1 if workers is None else workers
        self._workers: list[threading.Thread] = []
        self._changed = threading.Condition()  # guards the attributes below
        self._short, self._long = Pool(self._lanes), Pool(self._lanes)
        self._long_calls: deque[Call] = deque()  # calls with texts that are not packed yet
        self._running: set[Batch | None] = set()
        self._short_ran_last = False
        self.closed = False
        self._counts: Counter[str] = Counter()

    @property
    def stats(self) -> Stats:
        """Counts since the start."""
        with self._changed:
            running = sum(len(batch.texts) for batch in self._running if batch)
            running += len(self._short.texts) + len(self._long.texts)
            return Stats(**self._counts, waiting=len(self._long_calls), running=running)

    def submit(self, call: Call, *, inline: bool = False) -> None:
        """Put a call into the queue; if the engine is idle and `inline`, run its first batch in this thread.

        Raises:
            ValueError: the scheduler is closed.
        """
        batch = None
        try:
            with self._changed:
                if self.closed:
                    raise ValueError("this Embedder is closed")
                idle = not (self._running or self._pending)
                if call.short:
                    self._short.add(call.next_texts(math.inf))
                else:
                    self._long_calls.append(call)
                if inline and idle:
                    batch = self._take()
                if self._pending:
                    self._workers = self._workers or self._start_workers()
                    self._wake()
            if batch is not None:
                self._run(batch)
        finally:  # an interrupt may arrive before `_run` begins
            self._running.discard(batch)

    def run_next(self, *, wait: bool = False) -> bool:
        """Run the next batch in this thread; return False if there is none.

        With `wait`, wait for a batch until close().
        """
        with self._changed:
            while (batch := self._take()) is None and wait and (self._pending or not self.closed):
                self._changed.wait()
            self._wake()
        if batch is not None:
            self._run(batch)
        return batch is not None

    def close(self, *, drop: bool = False) -> None:
        """Refuse new calls, finish or drop the pending ones, and end the threads. Running batches finish.

        If a callback in a worker thread calls this, it does not wait for the threads.
        """
        with self._changed:
            self.closed = True
            if drop:
                for call in self._remove_all():
                    call.cancel()
            self._changed.notify()
        if threading.current_thread() not in self._workers:
            for worker in self._workers:
                worker.join()
            with self._changed:
                self._changed.wait_for(lambda: not self._running)  # wait for batches in threads of callers

    @property
    def _pending(self) -> bool:
        return bool(self._short.cells or self._long.cells or self._long_calls)

    @property
    def _ready(self) -> bool:
        """Whether a batch may start: on an idle engine any batch, otherwise only a full one."""
        min_cells = self._min_batch_cells if self._running else 1
        has_work = self._short.cells >= min_cells or self._long.cells or self._long_calls
        return bool(has_work) and len(self._running) <= self._streams

    def _wake(self) -> None:
        """Wake a worker if a batch may start, or if workers have to end."""
        if self._ready or self.closed:
            self._changed.notify()

    def _start_workers(self) -> list[threading.Thread]:
        workers = [threading.Thread(target=self._work, daemon=True) for _ in range(self._worker_count)]
        for worker in workers:
            worker.start()
        return workers

    def _work(self) -> None:
        while self.run_next(wait=True):
            pass

    def _take(self) -> Batch | None:
        """Return the next batch if one may start now, and count it as running.

        Short calls go first, unless the last batch was one of short calls. An error here ends all waiting
        calls, which would wait forever otherwise.
        """
        if not self._ready:
            return None
        try:
            while self._long_calls and self._long.cells < LOOKAHEAD_CELLS:
                call = self._long_calls[0]
                self._long.add(call.next_texts(CHUNK_TOKENS))
                self._long_calls.popleft()
                if not call.packed:
                    self._long_calls.append(call)
            short = self._short.cells > 0 and not (self._long.cells and self._short_ran_last)
            if short:
                # While other batches run, a small batch uses a grid that is compiled, because compiling would
                # delay all.
                ready = [grid for grid in self._engine.compiled if grid.uses_all_threads]
                batch = self._short.take(streams=self._streams, compiled=ready if self._running else None)
            else:
                idle = 1 if self._long_calls else max(1, self._streams - len(self._running))
                batch = self._long.take(streams=idle, compiled=self._engine.compiled)
        except Exception as error:
            for call in self._remove_all():
                call.end(error)
            return None
        if batch is not None:
            self._short_ran_last = short
            self._running.add(batch)
        return batch

    def _remove_all(self) -> set[Call]:
        """Remove all texts that are not running, and return their calls."""
        calls = {text.owner for text in (*self._short.texts, *self._long.texts)} | set(self._long_calls)
        self._short, self._long = Pool(self._lanes), Pool(self._lanes)
        self._long_calls.clear()
        return calls

    def _run(self, batch: Batch) -> None:
        """Run a batch and deliver its vectors; an error ends every call that has a text in the batch."""
        positions_by_call: dict[Call, list[int]] = {}
        for position, text in enumerate(batch.texts):
            positions_by_call.setdefault(text.owner, []).append(position)
        try:
            for call in positions_by_call:
                call.start()
            vectors = self._engine.run(batch)
        except Exception as error:
            self._finish(batch)
            for call in positions_by_call:
                call.end(error)
            return
        tokens = sum(len(text.ids) for text in batch.texts)
        self._finish(batch, texts=len(batch.texts), tokens=tokens, batches=1, cells=batch.grid.cells)
        for call, positions in positions_by_call.items():
            call.deliver([batch.texts[position].number for position in positions], vectors[positions])

    def _finish(self, batch: Batch, **counts: int) -> None:
        """Count a batch as finished, before its vectors are delivered, and wake a worker for the next."""
        with self._changed:
            self._running.discard(batch)
            self._counts.update(counts)
            self._wake()

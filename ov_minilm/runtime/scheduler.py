"""One queue under all callers: waiting texts are packed together and run. No timer.

Short calls and long ones wait in pools of their own, which take turns batch by batch: a single text waits for
the batches that are running, not for a million texts, and a long call never starves. Long calls are packed a
chunk at a time, in turn.

A worker thread for each stream of the engine, and one more so that no stream waits for Python, each repeat:
take a batch, run it, hand its vectors out. An idle engine starts at once; beside other batches, short calls
start when they fill one. A call that finds the engine idle runs its first batch in its own thread.

Of a caller's code worker threads run only callbacks, so a KeyboardInterrupt ends only the call it interrupts.
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

SHORT_CALL_TEXTS = 32  # a call of up to so many does not wait behind long ones
CHUNK_TOKENS = 8192  # of a long call that are packed at once: 16 batches, enough to fill rows well
LOOKAHEAD_CELLS = 4096  # of long calls in rows (eight batches): with fewer, the next chunk is packed


class Call(Future[FloatArray]):
    """Texts of one caller; the result is their unit vectors, [N, D]. `cancel` removes it from the queue."""

    def __init__(
        self,
        tokenized: Tokenized,
        dim: int,
        *,
        short: bool | None = None,
        cache: VectorCache | None = None,
        started: Callable[[], object] | None = None,
    ) -> None:
        """Take texts for vectors of `dim` components; equal ones are computed once.

        Args:
            tokenized: the texts.
            dim: components of a vector.
            short: whether not to wait behind long calls; None: if there are SHORT_CALL_TEXTS or fewer.
            cache: has the vectors of some windows, and gets those of the others.
            started: called once, from any thread, before the first text runs.
        """
        super().__init__()
        self.short = len(tokenized.windows) <= SHORT_CALL_TEXTS if short is None else short
        self._tokenized = tokenized
        self._cache = cache
        self._started = started
        windows = tokenized.flat
        numbers: dict[bytes, int] = {}  # of distinct windows
        self._order = [numbers.setdefault(ids.tobytes(), len(numbers)) for ids in windows]
        self._keys = list(numbers)
        self._vectors = np.empty((len(numbers), dim), np.float32)
        known = cache.get(self._keys) if cache else {}
        for number, vector in known.items():
            self._vectors[number] = vector
        distinct = dict(zip(self._order, windows, strict=True))
        self._waiting = deque(window for window in distinct.items() if window[0] not in known)  # to be packed
        self._left = len(self._waiting)  # windows without a vector
        self._counting = threading.Lock()  # workers deliver side by side
        if not self._left:
            self.start()
            self.end()

    @property
    def packed(self) -> bool:
        """Whether no text is left to be packed."""
        return not self._waiting or self.done()

    def next_texts(self, tokens: float) -> Iterator[Text]:
        """Yield the next texts to be packed, up to about so many tokens."""
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
        """Take the vectors of some windows."""
        self._vectors[numbers] = vectors
        if self._cache:
            self._cache.put([self._keys[number] for number in numbers], vectors)
        with self._counting:
            self._left -= len(numbers)
            complete = not self._left
        if complete:
            self.end()

    def end(self, error: Exception | None = None) -> None:
        """Set the result, or the error; a call that was cancelled, or failed in another batch, takes none."""
        with suppress(InvalidStateError):
            if error is not None:
                self.set_exception(error)
            else:
                self.set_result(self._tokenized.average_windows(self._vectors[self._order]))


@dataclass(frozen=True, slots=True)
class Stats:
    """What a scheduler did since it was made; `waiting` and `running` are of this moment."""

    texts: int = 0  # windows of texts that have their vectors
    tokens: int = 0
    batches: int = 0
    cells: int = 0  # of those batches: tokens / cells is how full they were
    waiting: int = 0  # calls with texts that are not packed yet
    running: int = 0  # texts packed or in a batch that runs
    cached: int = 0  # texts whose vectors were in the cache
    cache_bytes: int = 0  # that the cache takes


class Scheduler:
    """Runs the calls of all callers on one engine, in threads that live from the first queued text on."""

    def __init__(self, engine: Engine, *, workers: int | None = None) -> None:
        """Have so many `workers`; None: one more than there are streams; 0: `run_next` has to be called."""
        self._engine = engine
        self._lanes = engine.plan.lanes
        self._streams = engine.plan.streams
        self._min_batch_cells = min((g.cells for g in engine.plan.grids if g.rows > 1), default=1)
        self._worker_count = self._streams + 1 if workers is None else workers
        self._workers: list[threading.Thread] = []
        self._changed = threading.Condition()  # guards all that follows
        self._short, self._long = Pool(self._lanes), Pool(self._lanes)
        self._long_calls: deque[Call] = deque()  # that have texts to be packed
        self._running: set[Batch | None] = set()
        self._short_ran_last = False
        self.closed = False
        self._counts: Counter[str] = Counter()

    @property
    def stats(self) -> Stats:
        """Counts so far."""
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
        finally:  # an interrupt may come before `_run` begins
            self._running.discard(batch)

    def run_next(self, *, wait: bool = False) -> bool:
        """Run the next batch in this thread, or `wait` for one until close(); False: there is none."""
        with self._changed:
            while (batch := self._take()) is None and wait and (self._pending or not self.closed):
                self._changed.wait()
            self._wake()
        if batch is not None:
            self._run(batch)
        return batch is not None

    def close(self, *, drop: bool = False) -> None:
        """Take no more calls, finish or drop those there are, and end the threads. Running batches end.

        Called from one of the threads, as a callback is, it does not wait for them.
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
                self._changed.wait_for(lambda: not self._running)  # a batch that runs in its caller's thread

    @property
    def _pending(self) -> bool:
        return bool(self._short.cells or self._long.cells or self._long_calls)

    @property
    def _ready(self) -> bool:
        """Whether a batch may start: any text on an idle engine; beside other batches, enough to fill one."""
        enough = self._min_batch_cells if self._running else 1
        waits = self._short.cells >= enough or self._long.cells or self._long_calls
        return bool(waits) and len(self._running) <= self._streams

    def _wake(self) -> None:
        """Wake a worker if there is something for it to do."""
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
        """Return a batch that may start now, and count it as running.

        Short calls go first, unless the last batch was theirs. An error here ends all calls that wait:
        without that they would never end.
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
                # Beside others a small batch takes any small grid that is there: compiling would hold all up.
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
        """Remove all texts that are not running yet, and return their calls."""
        calls = {text.owner for text in (*self._short.texts, *self._long.texts)} | set(self._long_calls)
        self._short, self._long = Pool(self._lanes), Pool(self._lanes)
        self._long_calls.clear()
        return calls

    def _run(self, batch: Batch) -> None:
        """Run a batch and deliver its vectors; an error is that of every call that has a text in it."""
        places: dict[Call, list[int]] = {}
        for place, text in enumerate(batch.texts):
            places.setdefault(text.owner, []).append(place)
        try:
            for call in places:
                call.start()
            vectors = self._engine.run(batch)
        except Exception as error:
            self._finish(batch)
            for call in places:
                call.end(error)
            return
        tokens = sum(len(text.ids) for text in batch.texts)
        self._finish(batch, texts=len(batch.texts), tokens=tokens, batches=1, cells=batch.grid.cells)
        for call, mine in places.items():
            call.deliver([batch.texts[place].number for place in mine], vectors[mine])

    def _finish(self, batch: Batch, **counts: int) -> None:
        """Make room for the next batch; a caller that has its vectors finds nothing of it running."""
        with self._changed:
            self._running.discard(batch)
            self._counts.update(counts)
            self._wake()

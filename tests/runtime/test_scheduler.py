"""The queue that all callers share. Most tests have no threads: the test decides when a batch runs."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from support.fakes import FakeEngine
from support.processes import wait_until

from ov_minilm.runtime.packing import Batch
from ov_minilm.runtime.scheduler import LOOKAHEAD_CELLS, Call, Scheduler
from ov_minilm.runtime.tokens import Tokenized
from ov_minilm.spec import GRIDS, FloatArray, Grid

CHUNK_TEXTS = 820  # texts of 10 tokens in a chunk of 8,192 tokens


def make_call(count: int, tokens: int = 10, start: int = 1, **options: Any) -> Call:
    """Make a call; all ids of its first text are `start`, of its second text `start + 1`, and so on."""
    return Call(Tokenized([[np.full(tokens, start + i, np.int32)] for i in range(count)], {}), 1, **options)


def has_results(call: Call, count: int, tokens: int = 10, start: int = 1) -> bool:
    """Return whether a call has the sums that the fake engine computes for its texts."""
    return bool(call.result(10)[:, 0].tolist() == [tokens * (start + i) for i in range(count)])


class SteppedScheduler(Scheduler):
    """A scheduler without threads, which runs batches when a test asks for them."""

    def __init__(self, engine: FakeEngine | None = None) -> None:
        self.engine = engine or FakeEngine()
        super().__init__(self.engine, workers=0)  # type: ignore[arg-type]  # a stand-in

    def run(self, *calls: Call, steps: int = 10**6) -> None:
        """Submit calls and run at most this many batches."""
        for call in calls:
            self.submit(call)
        while steps and self.run_next():
            steps -= 1


@pytest.fixture
def stepped() -> SteppedScheduler:
    """A scheduler without threads."""
    return SteppedScheduler()


@pytest.mark.parametrize("counts", [[0], [1], [32], [2000], [1, 40, 3, 700, 1], [1] * 40])
def test_every_text_gets_its_own_vector(stepped: SteppedScheduler, counts: list[int]) -> None:
    """Vectors are in order; calls share batches; equal texts of a call run once; stats are correct."""
    calls = [make_call(count, start=1000 * i + 1) for i, count in enumerate(counts)]

    stepped.run(*calls)

    for i, (call, count) in enumerate(zip(calls, counts, strict=True)):
        assert has_results(call, count, start=1000 * i + 1)
    stats = stepped.stats
    assert (sum(counts), 10 * sum(counts), 0, 0) == (stats.texts, stats.tokens, stats.waiting, stats.running)
    assert stats.tokens <= stats.cells
    assert len(stepped.engine.ran) == stats.batches <= 4 + sum(counts) // 40
    stepped.run(equal := Call(Tokenized([[np.full(5, 1 + i % 3, np.int32)] for i in range(40)], {}), 1))
    assert [5 * (1 + i % 3) for i in range(40)] == equal.result(10)[:, 0].tolist()
    assert 3 == stepped.stats.texts - sum(counts)


def test_an_idle_engine_runs_a_short_call_in_the_thread_of_its_caller() -> None:
    """No thread starts, and `submit` returns with the result, also after an interrupted call."""

    class InterruptedOnce(FakeEngine):
        interrupts = True

        def run(self, batch: Batch) -> FloatArray:
            if self.interrupts:
                self.interrupts = False
                raise KeyboardInterrupt
            return super().run(batch)

    threads_before = threading.active_count()
    scheduler = Scheduler(InterruptedOnce())  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        scheduler.submit(make_call(1), inline=True)
    scheduler.submit(call := make_call(3), inline=True)

    assert call.done()
    assert has_results(call, 3)
    assert threads_before == threading.active_count()


@pytest.mark.parametrize(
    ("running", "tokens", "starts"),
    [
        (0, 1, True),  # idle: any text
        (1, 127, False),  # busy: only a full grid of several rows
        (1, 128, True),
        (2, 127, False),
        (2, 128, True),
        (3, 256, False),  # more batches than streams: no text
    ],
)
def test_a_busy_engine_starts_only_full_batches(
    stepped: SteppedScheduler, running: int, tokens: int, starts: bool
) -> None:
    """An idle engine starts any text; a busy engine starts texts that fill the smallest batch."""
    batches = []

    def meanwhile() -> None:
        if len(stepped.engine.began) < running:
            stepped.submit(make_call(2, tokens=64))  # a full batch, which starts at once
        else:
            stepped.engine.meanwhile = lambda: None
            for length in [64] * (tokens // 64) + [tokens % 64] * (tokens % 64 > 0):
                stepped.submit(make_call(1, tokens=length))
            batches.append(len(stepped.engine.began))
        stepped.run_next()
        batches.append(len(stepped.engine.began))

    stepped.engine.meanwhile = meanwhile
    meanwhile()

    assert starts == (batches[1] > batches[0])


def test_short_and_long_calls_alternate(stepped: SteppedScheduler) -> None:
    """Two long calls advance evenly and are packed little ahead; a single text runs next."""
    calls = [make_call(2000, 60, 10_000), *(make_call(32, 60, i) for i in range(60))]
    stepped.run(*calls, steps=40)
    kinds = ["long" if batch.texts[0].ids[0] >= 10_000 else "short" for batch in stepped.engine.ran]
    assert ["short", "long"] * 20 == kinds

    other = SteppedScheduler()
    other.run(make_call(5000), make_call(5000, start=100_000), steps=100)
    first = [text.ids[0] < 100_000 for batch in other.engine.ran for text in batch.texts]
    assert abs(2 * sum(first) - len(first)) <= 2 * CHUNK_TEXTS
    assert 10 * other.stats.running <= LOOKAHEAD_CELLS + 8192 + 10
    other.run(call := make_call(1, start=7), steps=1)
    assert has_results(call, 1, start=7)


def test_grids_are_compiled_only_if_it_pays(stepped: SteppedScheduler) -> None:
    """The last rows of a long call use a compiled grid; a short text may compile its own grid."""
    stepped.run(make_call(33, tokens=64))
    assert {Grid(8, 64)} == stepped.engine.compiled
    stepped.run(make_call(1, tokens=7))
    assert Grid(1, 8) == stepped.engine.ran[-1].grid


def failing_callback(*_: object) -> None:
    """Raise an error, as a caller's callback might."""
    raise RuntimeError("the callback failed")


def test_an_exception_in_a_callback_ends_only_its_own_call(stepped: SteppedScheduler) -> None:
    """Other calls in the same batch get their vectors."""
    failing, succeeding = (
        [make_call(3, started=failing_callback) for _ in range(2)],
        [make_call(3), make_call(3)],
    )
    for call in (failing[0], succeeding[0]):
        call.add_done_callback(failing_callback)

    stepped.run(failing[0], succeeding[0], failing[1], succeeding[1])

    assert all(has_results(call, 3) for call in succeeding)
    for call in failing:
        with pytest.raises(RuntimeError, match="the callback failed"):
            call.result(10)
    assert (0, 0) == (stepped.stats.waiting, stepped.stats.running)


@pytest.mark.parametrize("count", [1, 600])
def test_an_error_ends_the_calls_that_it_affects(count: int) -> None:
    """An engine error ends the calls of its batch, a packing error all waiting calls; later calls run."""
    stepped = SteppedScheduler(FakeEngine(grids=GRIDS[:2]))
    stepped.engine.breaks = True
    stepped.run(failed := make_call(count), steps=1)
    stepped.engine.breaks = False
    stepped.run(second := make_call(600))
    waiting = [make_call(600), make_call(40, tokens=300)]
    stepped.run(*waiting)
    stepped.run(last := make_call(2))

    assert has_results(second, 600)
    assert has_results(last, 2)
    with pytest.raises(RuntimeError, match="the engine broke"):
        failed.result(10)
    for call in waiting:
        with pytest.raises(ValueError, match="a text has 300 tokens; the widest row holds 256"):
            call.result(10)
    assert (0, 0) == (stepped.stats.waiting, stepped.stats.running)


def test_a_cancelled_call_leaves_the_queue(stepped: SteppedScheduler) -> None:
    """Texts of a cancelled call that are not packed yet never run."""
    calls = [make_call(600) for _ in range(50)]
    stepped.run(*calls, steps=1)
    assert all(call.cancel() for call in calls)
    stepped.run(last := make_call(1))

    assert has_results(last, 1)
    assert sum(len(batch.texts) for batch in stepped.engine.ran) <= 2 * CHUNK_TEXTS + 1


def test_a_slow_batch_delays_no_other(stepped: SteppedScheduler) -> None:
    """A call returns although a slow batch with other calls still runs."""
    slow, other, done = make_call(2, tokens=64), make_call(2, tokens=64), []

    def meanwhile() -> None:
        stepped.engine.meanwhile = lambda: None
        stepped.run(other)
        done.extend([other.done(), slow.done()])

    stepped.engine.meanwhile = meanwhile
    stepped.run(slow)

    assert [True, False, True] == [*done, slow.done()]


@pytest.mark.parametrize("by_callback", [False, True])
def test_close_finishes_accepted_calls_and_refuses_new_ones(by_callback: bool) -> None:
    """close() in a worker thread does not wait for the workers; a second close() waits."""
    engine = FakeEngine(gated=True)
    scheduler = Scheduler(engine)  # type: ignore[arg-type]
    closed = threading.Event()

    def close(*_: object) -> None:
        scheduler.close()
        closed.set()

    scheduler.submit(first := make_call(20))
    scheduler.submit(call := make_call(3000))
    if by_callback:
        first.add_done_callback(close)
    engine.release(1000)
    if not by_callback:
        close()
        assert call.done()

    assert closed.wait(10)
    assert has_results(call, 3000)
    scheduler.close()
    with pytest.raises(ValueError, match="closed"):
        scheduler.submit(make_call(1))


def test_threads_share_a_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen threads with calls of all sizes get their own sums; workers do not poll, and end at close()."""
    scheduler, threads_before = Scheduler(FakeEngine()), set(threading.enumerate())  # type: ignore[arg-type]
    timeouts: set[float | None] = set()
    wait = threading.Condition.wait

    def record(condition: threading.Condition, timeout: float | None = None) -> bool:
        timeouts.add(timeout)
        return wait(condition, timeout)

    monkeypatch.setattr(threading.Condition, "wait", record)

    def work(seed: int) -> bool:
        rng = np.random.default_rng(seed)
        for count, tokens in rng.integers((1, 2), (80, 200), (20, 2)).tolist():
            scheduler.submit(call := make_call(count, tokens, start=seed + 1), inline=count <= 32)
            if not has_results(call, count, tokens, start=seed + 1):
                return False
        return True

    with ThreadPoolExecutor(16) as threads:
        assert all(threads.map(work, range(16)))
    scheduler.close()
    wait_until(lambda: not set(threading.enumerate()) - threads_before)
    assert {None, 10} >= timeouts - {0}  # 10 is the timeout of `has_results`

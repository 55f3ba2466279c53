"""One queue under all callers. Most tests have no threads: each step is taken by hand, and is exact."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from support.fakes import FakeEngine
from support.processes import until

from ov_minilm.runtime.packing import Batch
from ov_minilm.runtime.scheduler import LOOKAHEAD_CELLS, Call, Scheduler
from ov_minilm.runtime.tokens import Tokenized
from ov_minilm.spec import GRIDS, FloatArray, Grid

STREAMS = 2


def call(
    count: int,
    tokens: int = 10,
    *,
    start: int = 1,
    short: bool | None = None,
    started: Callable[[], object] | None = None,
    on_done: Callable[[object], object] | None = None,
) -> Call:
    """Make a call of texts whose ids sum to tokens x their number."""
    windows = [[np.full(tokens, start + i, np.int32)] for i in range(count)]
    one = Call(Tokenized(windows, {}), 1, short=short, started=started)
    if on_done:
        one.add_done_callback(on_done)
    return one


def sums(count: int, tokens: int = 10, start: int = 1) -> list[float]:
    """Return what the fake engine gives for the texts of `call`."""
    return [float(tokens * (start + i)) for i in range(count)]


def by_hand(engine: FakeEngine | None = None) -> tuple[Scheduler, FakeEngine]:
    """Return a scheduler without threads, and its engine."""
    engine = engine or FakeEngine()
    return Scheduler(engine, workers=0), engine  # type: ignore[arg-type]  # a stand-in


def drain(scheduler: Scheduler) -> None:
    """Take steps until there is none."""
    while scheduler.run_next():
        pass


@pytest.fixture
def gated() -> Iterator[tuple[Scheduler, FakeEngine]]:
    """A scheduler with threads over an engine that waits to be let through."""
    engine = FakeEngine(gated=True)
    scheduler = Scheduler(engine)  # type: ignore[arg-type]
    yield scheduler, engine
    engine.let(10**6)
    scheduler.close()


@pytest.mark.parametrize("counts", [[1], [32], [2000], [1, 40, 3, 700, 1]])
def test_every_text_gets_its_own_vector(counts: list[int]) -> None:
    """In the order of each call, short and long ones mixed; counts add up."""
    scheduler, _ = by_hand()
    calls = [call(count, start=1000 * i) for i, count in enumerate(counts)]
    for one in calls:
        scheduler.submit(one)

    drain(scheduler)

    for i, (one, count) in enumerate(zip(calls, counts, strict=True)):
        assert sums(count, start=1000 * i) == one.result(10)[:, 0].tolist()
    stats = scheduler.stats
    assert (sum(counts), 10 * sum(counts), 0, 0) == (stats.texts, stats.tokens, stats.waiting, stats.running)
    assert stats.tokens <= stats.cells


def test_an_idle_engine_runs_a_short_call_in_its_own_thread() -> None:
    """No thread is started, and the vectors are there when `submit` returns."""
    before = threading.active_count()
    scheduler = Scheduler(FakeEngine())  # type: ignore[arg-type]
    one = call(3)

    scheduler.submit(one, inline=True)

    assert one.done()
    assert sums(3) == one.result(10)[:, 0].tolist()
    assert before == threading.active_count()


def test_texts_that_wait_at_the_same_time_share_a_batch() -> None:
    """Forty callers of one text each need a few batches, not forty."""
    scheduler, engine = by_hand()
    calls = [call(1, start=i) for i in range(1, 41)]
    for one in calls:
        scheduler.submit(one)

    drain(scheduler)

    assert [10.0 * i for i in range(1, 41)] == [float(one.result(10)[0, 0]) for one in calls]
    assert len(engine.ran) <= 4


@pytest.mark.parametrize(
    ("running", "tokens", "starts"),
    [
        (0, 1, True),  # idle: any text
        (1, 63, False),  # one stream busy: half of the smallest batch
        (1, 64, True),
        (2, 127, False),  # both busy: a whole one
        (2, 128, True),
        (3, 256, False),  # one more than there are streams: nothing
    ],
)
def test_the_busier_the_engine_the_more_texts_must_wait(
    gated: tuple[Scheduler, FakeEngine], running: int, tokens: int, starts: bool
) -> None:
    """A batch of short calls starts when they need min_batch x running / streams cells."""
    scheduler, engine = gated
    for _ in range(running):  # each fills a whole batch, so that it starts whatever runs
        scheduler.submit(call(2, tokens=64))
        until(lambda: not scheduler.stats.waiting)
    until(lambda: len(engine.began) == running)
    for length in [64] * (tokens // 64) + [tokens % 64]:
        if length:
            scheduler.submit(call(1, tokens=length))

    if starts:
        until(lambda: len(engine.began) > running)
    else:  # threads had their chance: they are asleep, and a step by hand takes nothing
        assert not scheduler.run_next()
        assert running == len(engine.began)


def test_short_and_long_calls_take_turns() -> None:
    """With both waiting, batches alternate, short first: neither starves."""
    scheduler, engine = by_hand()
    scheduler.submit(call(2000, tokens=60, start=10_000))
    for i in range(60):
        scheduler.submit(call(32, tokens=60, start=i))

    for _ in range(40):
        scheduler.run_next()

    kinds = ["long" if batch.texts[0].ids[0] >= 10_000 else "short" for batch in engine.ran]
    assert ["short", "long"] * 20 == kinds


def test_a_single_text_waits_for_one_batch_of_a_long_call() -> None:
    """It goes next, not after ten thousand texts."""
    scheduler, engine = by_hand()
    scheduler.submit(call(10_000, start=10_000))
    for _ in range(5):
        scheduler.run_next()
    one = call(1, start=7)
    scheduler.submit(one)

    scheduler.run_next()

    assert 70.0 == one.result(10)[0, 0]
    assert 6 == len(engine.ran)


def test_long_calls_take_turns() -> None:
    """Two of the same length end at about the same time, and no more is packed than is needed soon."""
    scheduler, engine = by_hand()
    for start in (1, 100_000):
        scheduler.submit(call(5000, start=start))

    for _ in range(100):
        scheduler.run_next()

    firsts = sum(text.ids[0] < 100_000 for batch in engine.ran for text in batch.texts)
    texts = sum(len(batch.texts) for batch in engine.ran)
    assert abs(2 * firsts - texts) <= 2 * 820  # a chunk of 8,192 tokens each
    assert 10 * scheduler.stats.running <= LOOKAHEAD_CELLS + 8192 + 10


def test_the_end_of_a_long_call_compiles_no_grid_of_its_own() -> None:
    """Rows that are left over run in a grid that is there."""
    scheduler, engine = by_hand()
    scheduler.submit(call(33, tokens=64))

    drain(scheduler)

    assert {Grid(8, 64)} == engine.compiled


def test_one_short_text_gets_the_grid_that_suits_it() -> None:
    """On an idle engine it is compiled even if a larger one is there: no later text is slow for that."""
    scheduler, engine = by_hand()
    scheduler.submit(call(400))
    drain(scheduler)

    scheduler.submit(call(1, tokens=7))
    drain(scheduler)

    assert Grid(1, 8) == engine.ran[-1].grid


def broken(*_: object) -> None:
    """Raise, as a caller's function may."""
    raise RuntimeError("the caller broke")


def test_what_a_callback_raises_ends_its_call_alone() -> None:
    """Calls in the same batch are served."""
    scheduler, _ = by_hand()
    failed = call(3, started=broken)
    calls = [call(3, started=broken, on_done=broken), call(3, on_done=broken), failed, call(3)]
    for one in calls:
        scheduler.submit(one)

    drain(scheduler)

    assert sums(3) == calls[-1].result(10)[:, 0].tolist()
    with pytest.raises(RuntimeError, match="the caller broke"):
        failed.result(10)
    assert 0 == scheduler.stats.running


@pytest.mark.parametrize("count", [1, 600])
def test_an_engine_that_breaks_ends_the_calls_of_that_batch(count: int) -> None:
    """They hear the error; calls after it are served."""
    scheduler, engine = by_hand()
    engine.breaks = True
    lost = call(count)
    scheduler.submit(lost)
    scheduler.run_next()
    engine.breaks = False
    one = call(600)
    scheduler.submit(one)

    drain(scheduler)

    with pytest.raises(RuntimeError, match="the engine broke"):
        lost.result(10)
    assert sums(600) == one.result(10)[:, 0].tolist()
    assert (0, 0) == (scheduler.stats.running, scheduler.stats.waiting)


def test_a_failure_of_packing_ends_all_calls_that_wait() -> None:
    """Nobody waits for ever: a text that no row holds is an error of packing, not of one batch."""
    scheduler, _ = by_hand(FakeEngine(grids=GRIDS[:2]))
    lost = [call(1, tokens=3), call(600), call(40, tokens=300)]
    for one in lost:
        scheduler.submit(one)

    drain(scheduler)

    for one in lost[1:]:
        with pytest.raises(ValueError, match="a text of 300 tokens; the widest row holds 256"):
            one.result(10)
    later = call(2)
    scheduler.submit(later)
    drain(scheduler)
    assert sums(2) == later.result(10)[:, 0].tolist()


def test_equal_texts_are_computed_once() -> None:
    """Each place in the call gets the vector; a call without texts is done at once."""
    scheduler, _ = by_hand()
    texts = [np.full(5, 1 + i % 3, np.int32) for i in range(40)]
    scheduler.submit(one := Call(Tokenized([[text] for text in texts], {}), 1))

    drain(scheduler)

    assert [float(text.sum()) for text in texts] == one.result(10)[:, 0].tolist()
    assert 3 == scheduler.stats.texts
    assert (0, 1) == call(0).result(0).shape


def test_a_cancelled_call_leaves_the_queue() -> None:
    """Texts that are not packed never run."""
    scheduler, engine = by_hand()
    calls = [call(600) for _ in range(50)]
    for one in calls:
        scheduler.submit(one)
    scheduler.run_next()
    for one in calls:
        assert one.cancel()
    scheduler.submit(last := call(1))

    drain(scheduler)

    assert 10.0 == last.result(10)[0, 0]
    assert sum(len(batch.texts) for batch in engine.ran) <= 2 * 820 + 1


def test_an_interrupt_in_the_callers_thread_leaves_the_engine_idle() -> None:
    """KeyboardInterrupt while a batch runs inline: the next call runs."""

    class InterruptedOnce(FakeEngine):
        interrupts = True

        def run(self, batch: Batch) -> FloatArray:
            if self.interrupts:
                self.interrupts = False
                raise KeyboardInterrupt
            return super().run(batch)

    scheduler, _ = by_hand(InterruptedOnce())
    with pytest.raises(KeyboardInterrupt):
        scheduler.submit(call(1), inline=True)

    scheduler.submit(one := call(2), inline=True)

    assert sums(2) == one.result(10)[:, 0].tolist()
    scheduler.close()


def test_a_slow_batch_holds_up_no_other(gated: tuple[Scheduler, FakeEngine]) -> None:
    """Workers deliver side by side: calls in other batches are done while one still runs."""
    scheduler, engine = gated
    slow = call(2, tokens=64)
    scheduler.submit(slow)
    until(lambda: len(engine.began) == 1)
    scheduler.submit(fast := call(2, tokens=64))
    until(lambda: len(engine.began) == 2)

    engine.let(1)

    until(lambda: slow.done() or fast.done())
    assert slow.done() != fast.done()


def test_a_callback_may_close(gated: tuple[Scheduler, FakeEngine]) -> None:
    """It runs in a worker and cannot wait for all of them; accepted calls are finished."""
    scheduler, engine = gated
    closed = threading.Event()

    def close(*_: object) -> None:
        scheduler.close()
        closed.set()

    scheduler.submit(call(20, on_done=close))
    scheduler.submit(one := call(600))
    engine.let(10**4)

    assert closed.wait(10)
    assert sums(600) == one.result(10)[:, 0].tolist()


def test_close_finishes_what_was_accepted(gated: tuple[Scheduler, FakeEngine]) -> None:
    """And takes nothing more."""
    scheduler, engine = gated
    scheduler.submit(one := call(3000))
    engine.let(10**4)

    scheduler.close()

    assert one.done()
    assert sums(3000) == one.result(10)[:, 0].tolist()
    with pytest.raises(ValueError, match="closed"):
        scheduler.submit(call(1))


def test_threads_get_what_one_caller_gets() -> None:
    """Sixteen threads with calls of all sizes: every sum is right, and the workers end with close()."""
    scheduler = Scheduler(FakeEngine())  # type: ignore[arg-type]
    before = threading.active_count()

    def work(seed: int) -> bool:
        rng = np.random.default_rng(seed)
        for count in rng.integers(1, 80, 20).tolist():
            tokens = int(rng.integers(2, 200))
            one = call(count, tokens, start=seed + 1)
            scheduler.submit(one, inline=count <= 32)
            if sums(count, tokens, start=seed + 1) != one.result(10)[:, 0].tolist():
                return False
        return True

    with ThreadPoolExecutor(16) as threads:
        assert all(threads.map(work, range(16)))
    scheduler.close()
    until(lambda: threading.active_count() == before)


def test_waiting_uses_no_cpu() -> None:
    """There is no timer: an idle scheduler sleeps until it is called."""
    scheduler = Scheduler(FakeEngine())  # type: ignore[arg-type]
    scheduler.submit(one := call(600))
    one.result(10)

    before = time.process_time()
    time.sleep(0.5)

    assert time.process_time() - before < 0.05
    scheduler.close()

"""One queue under all callers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
from conftest import until
from fakes import FakeEngine

from ov_minilm.runtime.packing import Batch, Pool
from ov_minilm.runtime.plan import Plan
from ov_minilm.runtime.scheduler import NUMBERS, Job, Scheduler
from ov_minilm.spec import GRIDS, FloatArray, IntArray

PLACES = 3  # batches in flight with two threads


class GatedFlight:
    """A batch under way in the stand-in."""

    def __init__(self, batch: Batch, engine: GatedEngine) -> None:
        self.batch = batch
        self._engine = engine

    def land(self) -> FloatArray:
        """Wait to be let through."""
        if self._engine.gated:
            self._engine.gate.acquire()
        if self._engine.breaks:
            raise RuntimeError("the engine broke")
        self._engine.ran.append(self.batch)
        return self._engine.run(self.batch)

    def release(self) -> None:
        """Nothing is kept."""


class GatedEngine(FakeEngine):
    """Runs a batch only when it is let through, and keeps what it ran."""

    def __init__(self, *, gated: bool = False) -> None:
        self.plan = Plan("CPU", "f32", "f32", "native", 2, "", 1, 1, GRIDS)
        self.ran: list[Batch] = []
        self.gate = threading.Semaphore(0)
        self.gated = gated
        self.breaks = False

    def start(self, batch: Batch) -> GatedFlight:
        """Begin."""
        return GatedFlight(batch, self)

    def stream(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, FloatArray]]:
        """Run one after the other."""
        for batch in batches:
            yield batch, GatedFlight(batch, self).land()


def texts(count: int, tokens: int = 10, start: int = 1) -> list[IntArray]:
    """Make texts whose ids sum to tokens x their number."""
    return [np.full(tokens, start + i, np.int32) for i in range(count)]


def expected(ids: list[IntArray]) -> list[float]:
    """What the fake engine gives for texts."""
    return [float(one.sum()) for one in ids]


def windows(ids: list[IntArray], size: int = 512) -> Iterator[list[IntArray]]:
    """Cut texts into windows."""
    for start in range(0, len(ids), size):
        yield ids[start : start + size]


def start(scheduler: Scheduler, ids: list[IntArray]) -> tuple[FloatArray, SimpleQueue[Any]]:
    """Submit a job; return its array and its news."""
    out, news = np.full((len(ids), 1), -1, np.float32), SimpleQueue[Any]()
    scheduler.submit(Job(windows(ids), out, news.put))
    return out, news


def wait(news: SimpleQueue[Any], count: int) -> None:
    """Wait until so many texts are done."""
    while count:
        found = news.get(timeout=10)
        if isinstance(found, BaseException):
            raise found
        count -= found


@pytest.fixture
def gated() -> Iterator[tuple[Scheduler, GatedEngine]]:
    """A scheduler over an engine that waits to be let through."""
    engine = GatedEngine(gated=True)
    scheduler = Scheduler(engine)  # type: ignore[arg-type]  # a stand-in
    yield scheduler, engine
    engine.gate.release(10**6)
    scheduler.close()


def test_every_text_gets_its_own_vector() -> None:
    """In the caller's order, over several windows, and progress adds up."""
    scheduler = Scheduler(GatedEngine())  # type: ignore[arg-type]
    ids = texts(2000)
    done: list[int] = []
    out = np.empty((2000, 1), np.float32)

    scheduler.run(windows(ids), out, done.append)

    assert expected(ids) == out[:, 0].tolist()
    assert 2000 == sum(done)
    scheduler.close()


def test_a_lone_small_call_starts_no_thread() -> None:
    """It runs where it is."""
    scheduler = Scheduler(GatedEngine())  # type: ignore[arg-type]
    out = np.empty((3, 1), np.float32)

    scheduler.run(windows(texts(3)), out, lambda _: None)

    assert [10.0, 20.0, 30.0] == out[:, 0].tolist()
    assert scheduler._threads == []


def test_calls_that_wait_share_grids(gated: tuple[Scheduler, GatedEngine]) -> None:
    """Beside one text under way, forty callers of one text each need a few batches, not forty."""
    scheduler, engine = gated
    first = start(scheduler, texts(1))
    until(lambda: not scheduler._small)
    jobs = [start(scheduler, texts(1, start=i)) for i in range(2, 42)]

    engine.gate.release(10)
    for out, news in (first, *jobs):
        wait(news, len(out))

    assert [10.0 * i for i in range(1, 42)] == [float(out[0, 0]) for out, _ in (first, *jobs)]
    assert len(engine.ran) <= 1 + 4


def test_a_lone_row_is_not_run_beside_another_batch(gated: tuple[Scheduler, GatedEngine]) -> None:
    """All threads run a lone row: eight short texts wait until what runs has landed, and then go together."""
    scheduler, engine = gated
    first = start(scheduler, texts(1))
    until(lambda: scheduler._flying == 1)
    jobs = [start(scheduler, texts(1, tokens=4, start=i)) for i in range(1, 9)]
    time.sleep(0.05)  # in which it would start them, if it did; nothing tells that it will not

    engine.gate.release(10)
    for out, news in (first, *jobs):
        wait(news, len(out))

    assert [1, 8] == [batch.texts for batch in engine.ran]


def test_a_long_text_of_a_small_call_needs_no_company(gated: tuple[Scheduler, GatedEngine]) -> None:
    """It is counted by its tokens: beside another batch it starts on a stream that is idle."""
    scheduler, engine = gated
    first = start(scheduler, texts(1))
    until(lambda: scheduler._flying == 1)
    long = start(scheduler, texts(1, tokens=200))

    until(lambda: scheduler._flying == 2)

    engine.gate.release(2)
    for out, news in (first, long):
        wait(news, len(out))


def test_the_place_behind_busy_streams_is_for_a_whole_batch(gated: tuple[Scheduler, GatedEngine]) -> None:
    """Small calls take it with as many tokens as the lowest grid of several rows has cells, not before."""
    scheduler, engine = gated
    jobs = [start(scheduler, texts(1, tokens=200)) for _ in range(2)]
    until(lambda: scheduler._flying == 2)
    jobs += [start(scheduler, texts(1, tokens=16, start=i)) for i in range(1, 8)]
    time.sleep(0.05)  # in which it would start them, if it did; nothing tells that it will not
    assert scheduler._flying == 2

    jobs.append(start(scheduler, texts(1, tokens=16, start=8)))

    until(lambda: scheduler._flying == PLACES)
    engine.gate.release(10)
    for out, news in jobs:
        wait(news, len(out))
    assert [1, 1, 8] == sorted(batch.texts for batch in engine.ran)


def test_a_small_call_whose_windows_fail_hears_it_and_is_gone(gated: tuple[Scheduler, GatedEngine]) -> None:
    """The error is the caller's, and the scheduler closes as if it had never come."""
    scheduler, _ = gated

    def broken() -> Iterator[list[IntArray]]:
        raise OSError("the windows broke")
        yield []

    news = SimpleQueue[Any]()
    scheduler.submit(Job(broken(), np.empty((3, 1), np.float32), news.put))

    assert isinstance(news.get(timeout=10), OSError)
    scheduler.close()


def test_rows_of_waiting_calls_are_shared_among_the_streams(gated: tuple[Scheduler, GatedEngine]) -> None:
    """Thirty texts that come together are four batches for both streams: none idles beside a large one."""
    scheduler, engine = gated
    first = start(scheduler, texts(1))
    until(lambda: scheduler._flying == 1)
    with scheduler._changed:  # all come at once
        jobs = [start(scheduler, texts(1, tokens=16, start=i)) for i in range(1, 31)]
    for state in enumerate((PLACES, PLACES, 2, 2)):  # landed, flying; the last six texts are no whole batch
        until(lambda state=state: state == (len(engine.ran), scheduler._flying))  # type: ignore[misc]
        engine.gate.release()
    engine.gate.release()
    for out, news in (first, *jobs):
        wait(news, len(out))

    assert [1, 6, 8, 8, 8] == sorted(batch.texts for batch in engine.ran)


def test_who_is_done_first_is_served_first() -> None:
    """A batch that takes long holds up nobody whose own has landed."""
    held = threading.Event()

    class Held(GatedFlight):
        def land(self) -> FloatArray:
            if 77 in self.batch.ids:
                held.wait(10)
            return super().land()

    class HoldingEngine(GatedEngine):
        def start(self, batch: Batch) -> GatedFlight:
            return Held(batch, self)

    scheduler = Scheduler(HoldingEngine())  # type: ignore[arg-type]
    slow, slow_news = start(scheduler, texts(1, start=77))
    until(lambda: scheduler._flying == 1)
    out, news = start(scheduler, texts(8, tokens=16))

    wait(news, 8)

    assert expected(texts(8, tokens=16)) == out[:, 0].tolist()
    assert slow_news.empty()
    held.set()
    wait(slow_news, 1)
    assert 770.0 == slow[0, 0]
    scheduler.close()


@pytest.mark.parametrize("tokens", [10, 60])
def test_a_single_text_overtakes_a_long_call(gated: tuple[Scheduler, GatedEngine], tokens: int) -> None:
    """It waits for the batches in flight, not for a hundred thousand texts."""
    scheduler, engine = gated
    _, long_news = start(scheduler, texts(10_000, tokens=tokens))
    engine.gate.release(5)
    until(lambda: len(engine.ran) == 5)

    out, news = start(scheduler, texts(1, start=7))
    engine.gate.release(PLACES + 1)
    wait(news, 1)

    assert 70.0 == out[0, 0]
    assert not long_news.empty()


def test_small_calls_do_not_starve_a_long_one(gated: tuple[Scheduler, GatedEngine]) -> None:
    """However many wait, a batch of the long call runs after eight of theirs."""
    scheduler, engine = gated
    for i in range(400):
        start(scheduler, texts(32, tokens=60, start=i))
    long, _ = start(scheduler, texts(20_000))
    engine.gate.release(200)

    until(lambda: len(engine.ran) == 200)

    assert int((long >= 0).sum()) >= 20 * 40  # of 48 in a batch; more than are drawn at once


def test_long_calls_take_turns(gated: tuple[Scheduler, GatedEngine]) -> None:
    """Two of the same length end at about the same time."""
    scheduler, engine = gated
    first, second = (start(scheduler, texts(5000)) for _ in range(2))
    engine.gate.release(120)

    until(lambda: len(engine.ran) == 120)
    done = [int((out >= 0).sum()) for out, _ in (first, second)]

    assert abs(done[0] - done[1]) <= 2 * 512


def test_a_long_text_does_not_wait_for_others_like_it(gated: tuple[Scheduler, GatedEngine]) -> None:
    """While a call of short texts goes on, nothing of a call that is drawn waits for a fuller grid."""
    scheduler, engine = gated
    start(scheduler, texts(20_000))
    out, news = start(scheduler, texts(33, tokens=200))
    engine.gate.release(80)

    wait(news, 33)

    assert 200.0 == out[0, 0]


def test_what_a_callers_functions_raise_ends_its_call_alone() -> None:
    """Whoever is told of a start, or of vectors, may fail at it as often as it likes; others are served."""
    scheduler = Scheduler(GatedEngine())  # type: ignore[arg-type]

    def broken(*_: object) -> None:
        raise RuntimeError("the caller broke")

    for _ in range(2 * PLACES):
        scheduler.submit(Job(windows(texts(3)), np.empty((3, 1), np.float32), broken, broken))
        scheduler.submit(Job(windows(texts(3)), np.empty((3, 1), np.float32), broken))
    news = SimpleQueue[Any]()
    scheduler.submit(Job(windows(texts(3)), np.empty((3, 1), np.float32), news.put, broken))
    out = np.empty((600, 1), np.float32)
    scheduler.run(windows(texts(600)), out, lambda _: None)

    assert expected(texts(600)) == out[:, 0].tolist()
    with pytest.raises(RuntimeError, match="the caller broke"):
        wait(news, 3)
    scheduler.close()


def test_a_callback_may_close(gated: tuple[Scheduler, GatedEngine]) -> None:
    """It runs in one of the scheduler's threads, and cannot wait for all of them; what is in flight lands."""
    scheduler, engine = gated
    closed = threading.Event()

    def news(_: object) -> None:
        scheduler.close()
        closed.set()

    scheduler.submit(Job(windows(texts(20)), np.empty((20, 1), np.float32), news))
    until(lambda: scheduler._flying == 1)
    out, theirs = start(scheduler, texts(600))
    until(lambda: scheduler._flying == PLACES)
    engine.gate.release(10**4)

    assert closed.wait(10)
    wait(theirs, 600)
    assert expected(texts(600)) == out[:, 0].tolist()


def test_a_call_that_was_given_up_leaves_the_queue(gated: tuple[Scheduler, GatedEngine]) -> None:
    """What was not packed yet never runs."""
    scheduler, engine = gated
    jobs = [Job(windows(texts(600)), np.empty((600, 1), np.float32), lambda _: None) for _ in range(50)]
    for job in jobs:
        scheduler.submit(job)
    for job in jobs:
        job.give_up()
    out, news = start(scheduler, texts(1))
    engine.gate.release(10**4)

    wait(news, 1)
    scheduler.close()

    assert 10.0 == out[0, 0]
    assert sum(int((batch.owner >= 0).sum()) for batch in engine.ran) <= 2 * 512 + 1


def test_an_interrupted_caller_leaves_the_others_alone(gated: tuple[Scheduler, GatedEngine]) -> None:
    """Its job is given up, theirs are done, and the next one runs."""
    scheduler, engine = gated
    out, news = start(scheduler, texts(700))
    engine.gate.release(10**4)

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scheduler.run(windows(texts(5000)), np.empty((5000, 1), np.float32), interrupt)
    wait(news, 700)
    again = np.empty((600, 1), np.float32)
    scheduler.run(windows(texts(600)), again, lambda _: None)

    assert expected(texts(700)) == out[:, 0].tolist()
    assert expected(texts(600)) == again[:, 0].tolist()


def test_what_is_wrong_with_one_call_is_its_own(gated: tuple[Scheduler, GatedEngine]) -> None:
    """Windows that raise end their job with that error; a call beside it is done."""
    scheduler, engine = gated

    def broken() -> Iterator[list[IntArray]]:
        yield texts(512)
        raise ValueError("text 512 is too long")

    out, news = start(scheduler, texts(600))
    engine.gate.release(10**4)

    with pytest.raises(ValueError, match="text 512"):
        scheduler.run(broken(), np.empty((600, 1), np.float32), lambda _: None)
    wait(news, 600)

    assert expected(texts(600)) == out[:, 0].tolist()


def test_an_engine_that_breaks_ends_its_jobs_and_serves_the_next() -> None:
    """Nobody waits for ever."""
    engine = GatedEngine()
    scheduler = Scheduler(engine)  # type: ignore[arg-type]
    engine.breaks = True

    with pytest.raises(RuntimeError, match="the engine broke"):
        scheduler.run(windows(texts(2000)), np.empty((2000, 1), np.float32), lambda _: None)
    until(lambda: not scheduler.stats.running)
    engine.breaks = False
    out = np.empty((600, 1), np.float32)
    scheduler.run(windows(texts(600)), out, lambda _: None)

    assert expected(texts(600)) == out[:, 0].tolist()
    scheduler.close()


def test_batches_that_cannot_be_made_end_every_job_and_leave_nothing() -> None:
    """Where packing itself breaks, callers hear so, nothing is counted as running, and the next call runs."""

    class BrokenPool(Pool):
        def take(self, *, streams: int = 1, in_turn: bool = False) -> Batch | None:
            raise RuntimeError(f"no batch, {streams=}, {in_turn=}")

    scheduler = Scheduler(GatedEngine())  # type: ignore[arg-type]
    scheduler._pool = BrokenPool(GRIDS)

    with pytest.raises(RuntimeError, match="no batch, streams"):
        scheduler.run(windows(texts(600)), np.empty((600, 1), np.float32), lambda _: None)
    until(lambda: not scheduler.stats.running)
    out = np.empty((600, 1), np.float32)
    scheduler.run(windows(texts(600)), out, lambda _: None)

    assert expected(texts(600)) == out[:, 0].tolist()
    scheduler.close()


def test_close_finishes_what_was_accepted(gated: tuple[Scheduler, GatedEngine]) -> None:
    """And takes nothing more."""
    scheduler, engine = gated
    out, news = start(scheduler, texts(3000))
    engine.gate.release(10**4)

    scheduler.close()

    wait(news, 3000)
    assert expected(texts(3000)) == out[:, 0].tolist()
    with pytest.raises(ValueError, match="closed"):
        start(scheduler, texts(1))


def test_numbers_of_texts_may_wrap() -> None:
    """After two thousand million texts, too, each gets its own vector."""
    scheduler = Scheduler(GatedEngine())  # type: ignore[arg-type]
    scheduler._number = NUMBERS - 300
    out = np.empty((1000, 1), np.float32)

    scheduler.run(windows(texts(1000)), out, lambda _: None)

    assert expected(texts(1000)) == out[:, 0].tolist()
    scheduler.close()


def test_waiting_uses_no_cpu() -> None:
    """There is no timer: an idle scheduler sleeps until it is called."""
    scheduler = Scheduler(GatedEngine())  # type: ignore[arg-type]
    scheduler.run(windows(texts(600)), np.empty((600, 1), np.float32), lambda _: None)

    before = time.process_time()
    time.sleep(0.5)

    assert time.process_time() - before < 0.05
    scheduler.close()

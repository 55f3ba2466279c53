"""One queue under all callers. Most tests have no threads: each step is taken by hand, and is exact."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from support.fakes import FakeEngine
from support.processes import until

from ov_minilm.runtime.packing import Batch
from ov_minilm.runtime.scheduler import LOOKAHEAD_CELLS, Call, Scheduler
from ov_minilm.runtime.tokens import Tokenized
from ov_minilm.spec import GRIDS, FloatArray, Grid

Callback = Callable[..., object] | None


def call(count: int, tokens: int = 10, *, start: int = 1, on_done: Callback = None, **given: Any) -> Call:
    """Make a call of texts whose ids sum to tokens x their number."""
    windows = [[np.full(tokens, start + i, np.int32)] for i in range(count)]
    one = Call(Tokenized(windows, {}), 1, **given)
    if on_done:
        one.add_done_callback(on_done)
    return one


def right(one: Call, count: int, tokens: int = 10, start: int = 1) -> bool:
    """Tell whether a call has what the fake engine gives for its texts."""
    return bool(one.result(10)[:, 0].tolist() == [tokens * (start + i) for i in range(count)])


class Hand:
    """A scheduler without threads: calls are submitted, and steps are taken until there is none."""

    def __init__(self, engine: FakeEngine | None = None) -> None:
        self.engine = engine or FakeEngine()
        self.scheduler = Scheduler(self.engine, workers=0)  # type: ignore[arg-type]  # a stand-in

    def submit(self, *calls: Call) -> None:
        """Put calls into the queue."""
        for one in calls:
            self.scheduler.submit(one)

    def run(self, *calls: Call, steps: int = 10**6) -> None:
        """Submit, and take so many steps."""
        self.submit(*calls)
        while steps and self.scheduler.run_next():
            steps -= 1

    @property
    def left(self) -> tuple[int, int]:
        """Calls that wait to be packed, and texts that are packed or run."""
        return self.scheduler.stats.waiting, self.scheduler.stats.running


@pytest.fixture
def hand() -> Hand:
    """A scheduler for steps by hand."""
    return Hand()


@pytest.mark.parametrize("counts", [[0], [1], [32], [2000], [1, 40, 3, 700, 1], [1] * 40])
def test_every_text_gets_its_own_vector(hand: Hand, counts: list[int]) -> None:
    """In the order of each call; counts add up, callers share batches, and equal texts are computed once."""
    calls = [call(count, start=1000 * i + 1) for i, count in enumerate(counts)]

    hand.run(*calls)

    for i, (one, count) in enumerate(zip(calls, counts, strict=True)):
        assert right(one, count, start=1000 * i + 1)
    stats = hand.scheduler.stats
    assert (sum(counts), 10 * sum(counts), 0, 0) == (stats.texts, stats.tokens, stats.waiting, stats.running)
    assert stats.tokens <= stats.cells
    assert len(hand.engine.ran) == stats.batches <= 4 + sum(counts) // 40
    hand.run(equal := Call(Tokenized([[np.full(5, 1 + i % 3, np.int32)] for i in range(40)], {}), 1))
    assert [5 * (1 + i % 3) for i in range(40)] == equal.result(10)[:, 0].tolist()
    assert 3 == hand.scheduler.stats.texts - sum(counts)


def test_an_idle_engine_runs_a_short_call_in_its_own_thread() -> None:
    """No thread is started, the vectors are there when `submit` returns; an interrupt leaves it idle."""

    class InterruptedOnce(FakeEngine):
        interrupts = True

        def run(self, batch: Batch) -> FloatArray:
            if self.interrupts:
                self.interrupts = False
                raise KeyboardInterrupt
            return super().run(batch)

    before = threading.active_count()
    scheduler = Scheduler(InterruptedOnce())  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        scheduler.submit(call(1), inline=True)
    scheduler.submit(one := call(3), inline=True)

    assert one.done()
    assert right(one, 3)
    assert before == threading.active_count()


@pytest.mark.parametrize(
    ("running", "tokens", "starts"),
    [
        (0, 1, True),  # idle: any text
        (1, 127, False),  # busy: the smallest batch, full
        (1, 128, True),
        (2, 127, False),
        (2, 128, True),
        (3, 256, False),  # one more than there are streams: nothing
    ],
)
def test_beside_other_batches_a_full_one_starts(hand: Hand, running: int, tokens: int, starts: bool) -> None:
    """On an idle engine any text starts; beside other batches as many as fill the smallest one."""
    started = []

    def meanwhile() -> None:
        if len(hand.engine.began) < running:
            hand.submit(call(2, tokens=64))  # a whole batch, which starts whatever runs
        else:
            hand.engine.meanwhile = lambda: None
            for length in [64] * (tokens // 64) + [tokens % 64] * (tokens % 64 > 0):
                hand.submit(call(1, tokens=length))
            started.append(len(hand.engine.began))
        hand.scheduler.run_next()
        started.append(len(hand.engine.began))

    hand.engine.meanwhile = meanwhile
    meanwhile()

    assert starts == (started[1] > started[0])


def test_calls_take_turns(hand: Hand) -> None:
    """Batches of short and long calls alternate; two long ones end together, packed as far as needed soon."""
    hand.submit(call(2000, tokens=60, start=10_000), *(call(32, tokens=60, start=i) for i in range(60)))
    hand.run(steps=40)
    kinds = ["long" if batch.texts[0].ids[0] >= 10_000 else "short" for batch in hand.engine.ran]
    assert ["short", "long"] * 20 == kinds

    other = Hand()
    other.run(call(5000), call(5000, start=100_000), steps=100)
    texts = [text.ids[0] < 100_000 for batch in other.engine.ran for text in batch.texts]
    assert abs(2 * sum(texts) - len(texts)) <= 2 * 820  # a chunk of 8,192 tokens each
    assert 10 * other.scheduler.stats.running <= LOOKAHEAD_CELLS + 8192 + 10
    other.run(one := call(1, start=7), steps=1)  # a single text goes next, not after ten thousand
    assert right(one, 1, start=7)


def test_grids_are_compiled_for_what_is_worth_it(hand: Hand) -> None:
    """Not for rows that a long call leaves over; for one short text on an idle engine, to be fast later."""
    hand.run(call(33, tokens=64))
    assert {Grid(8, 64)} == hand.engine.compiled
    hand.run(call(1, tokens=7))
    assert Grid(1, 8) == hand.engine.ran[-1].grid


def broken(*_: object) -> None:
    """Raise, as a caller's function may."""
    raise RuntimeError("the caller broke")


def test_what_a_callback_raises_ends_its_call_alone(hand: Hand) -> None:
    """Calls in the same batch are served."""
    failed = [call(3, started=broken, on_done=broken), call(3, started=broken)]
    served = [call(3, on_done=broken), call(3)]

    hand.run(failed[0], served[0], failed[1], served[1])

    assert right(served[0], 3)
    assert right(served[1], 3)
    for one in failed:
        with pytest.raises(RuntimeError, match="the caller broke"):
            one.result(10)
    assert (0, 0) == hand.left


@pytest.mark.parametrize("count", [1, 600])
def test_a_failure_ends_the_calls_that_it_concerns(count: int) -> None:
    """Of the engine: the calls in its batch. Of packing: all that wait. Later calls are served."""
    hand = Hand(FakeEngine(grids=GRIDS[:2]))
    hand.engine.breaks = True
    hand.run(lost := call(count), steps=1)
    hand.engine.breaks = False
    hand.run(first := call(600))
    packed = [call(600), call(40, tokens=300)]
    hand.run(*packed)
    hand.run(last := call(2))

    assert right(first, 600)
    assert right(last, 2)
    with pytest.raises(RuntimeError, match="the engine broke"):
        lost.result(10)
    for one in packed:
        with pytest.raises(ValueError, match="a text has 300 tokens; the widest row holds 256"):
            one.result(10)
    assert (0, 0) == hand.left


def test_a_cancelled_call_leaves_the_queue(hand: Hand) -> None:
    """Texts that are not packed never run."""
    calls = [call(600) for _ in range(50)]
    hand.run(*calls, steps=1)
    assert all(one.cancel() for one in calls)
    hand.run(last := call(1))

    assert right(last, 1)
    assert sum(len(batch.texts) for batch in hand.engine.ran) <= 2 * 820 + 1


def test_a_slow_batch_holds_up_no_other(hand: Hand) -> None:
    """Calls in other batches are done while one still runs."""
    slow, other, done = call(2, tokens=64), call(2, tokens=64), []

    def meanwhile() -> None:
        hand.engine.meanwhile = lambda: None
        hand.run(other)
        done.extend([other.done(), slow.done()])

    hand.engine.meanwhile = meanwhile
    hand.run(slow)

    assert [True, False, True] == [*done, slow.done()]


@pytest.mark.parametrize("by_callback", [False, True])
def test_close_finishes_what_was_accepted(by_callback: bool) -> None:
    """And takes nothing more; called by a worker, it cannot wait for all of them."""
    engine = FakeEngine(gated=True)
    scheduler = Scheduler(engine)  # type: ignore[arg-type]
    closed = threading.Event()

    def close(*_: object) -> None:
        scheduler.close()
        closed.set()

    scheduler.submit(call(20, on_done=close if by_callback else None))
    scheduler.submit(one := call(3000))
    engine.let(1000)
    if not by_callback:
        close()
        assert one.done()

    assert closed.wait(10)
    assert right(one, 3000)
    scheduler.close()  # once more, and now it waits
    with pytest.raises(ValueError, match="closed"):
        scheduler.submit(call(1))


def test_threads_get_what_one_caller_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen threads with calls of all sizes: every sum is right, workers sleep without a timer, and end."""
    scheduler, before = Scheduler(FakeEngine()), set(threading.enumerate())  # type: ignore[arg-type]
    timeouts: set[float | None] = set()
    wait = threading.Condition.wait

    def heard(condition: threading.Condition, timeout: float | None = None) -> bool:
        timeouts.add(timeout)
        return wait(condition, timeout)

    monkeypatch.setattr(threading.Condition, "wait", heard)

    def work(seed: int) -> bool:
        rng = np.random.default_rng(seed)
        for count in rng.integers(1, 80, 20).tolist():
            tokens = int(rng.integers(2, 200))
            scheduler.submit(one := call(count, tokens, start=seed + 1), inline=count <= 32)
            if not right(one, count, tokens, start=seed + 1):
                return False
        return True

    with ThreadPoolExecutor(16) as threads:
        assert all(threads.map(work, range(16)))
    scheduler.close()
    until(lambda: not set(threading.enumerate()) - before)
    assert {None, 10} >= timeouts - {0}  # 10: of `right`, in the threads of this test; 0 polls

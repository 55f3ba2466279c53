"""The race: rounds, ratios, end and failed contenders; and the texts that are encoded."""

import itertools

import pytest
from support.rows import race

from ov_minilm import Embedder
from ov_minilm.measure.contender import Contender, ContenderFailed
from ov_minilm.measure.race import MIN_ROUNDS, Race, Values, half_interval
from ov_minilm.measure.row import OURS, RATIO
from ov_minilm.measure.texts import Texts


class Toy:
    """A running contender, unless its name is "broken"."""

    def __init__(self, contender: Contender, _threads: int) -> None:
        if contender.name == "broken":
            raise ContenderFailed("broken: no model")
        self.name, self.versions, self.closed = contender.name, {"toy": "1.0"}, False

    def close(self) -> None:
        """Record that this contender was closed."""
        self.closed = True


def toys(embedder: Embedder, *names: str, seconds: float = 0.05) -> Race[Toy]:
    """Start a race of ov_minilm and toys."""
    return race(embedder, [Contender(name, "a toy", (), "") for name in (OURS, *names)], Toy, seconds)


def test_ratios_are_taken_within_a_round(shipped: Embedder) -> None:
    """If the machine slows down, values change and ratios do not; the value of a row is the median."""
    clock = itertools.count(10)

    def measure(toy: Toy) -> Values:
        return {"p50_ms": next(clock) * (1.0 if toy.name == OURS else 4.0), "p99_ms": 1.0}

    with toys(shipped, "other") as started:
        rows = {row.what: row for row in started.rows("mix", measure, max_rounds=9)}

    ours, other = rows[f"mix/{OURS}/p50_ms"], rows["mix/other/p99_ms"]
    assert 9 == ours.rounds
    assert ours.low < ours.value < ours.high
    assert ours.high > 1.3 * ours.low
    assert 4 == pytest.approx(rows[f"mix/other/{RATIO}"].value, rel=0.1)
    assert ("abc", "toy 1.0", "ms") == (other.artefact, other.versions, other.unit)


@pytest.mark.parametrize(
    ("quantity", "seconds", "their_values", "expected_ratio"),
    [
        ("p50_ms", 1000, [1.0], 0.5),
        ("texts_per_s", 1000, [1.0], 2.0),
        ("texts_per_s", 0, [1.0, 5.0, 25.0], 0.4),
    ],
)
def test_a_ratio_above_one_means_faster(
    shipped: Embedder, quantity: str, seconds: float, their_values: list[float], expected_ratio: float
) -> None:
    """Fewer ms or more texts/s are faster; a race ends when the values agree or the time is over."""
    values = itertools.cycle(their_values)

    with toys(shipped, "other", seconds=seconds) as started:
        rows = list(started.rows("mix", lambda toy: {quantity: 2.0 if toy.name == OURS else next(values)}))

    assert [expected_ratio] == [row.value for row in rows if row.quantity == RATIO]
    assert {MIN_ROUNDS} == {row.rounds for row in rows}
    assert half_interval([1, 2, 3] * 4) == pytest.approx(2 * half_interval([1, 2, 3] * 16), rel=0.1)


def test_a_failed_contender_leaves_the_race(shipped: Embedder) -> None:
    """The reason is recorded and other contenders go on; if ov_minilm itself fails, the race ends."""

    def measure(toy: Toy, broken: str) -> Values:
        if toy.name == broken:
            raise ContenderFailed(f"{toy.name}: out of memory")
        return {"texts_per_s": 1.0}

    with toys(shipped, "broken", "later", "other") as race:
        running = list(race.running.values())
        rows = list(race.rows("mix", lambda toy: measure(toy, "later")))
        with pytest.raises(ContenderFailed, match=f"{OURS}: out of memory"):
            list(race.rows("mix", lambda toy: measure(toy, OURS)))

    assert {"broken": "no model", "later": "out of memory"} == race.failed
    assert {OURS, "other"} == {row.contender for row in rows}
    assert all(toy.closed for toy in running)
    for probes, noisy in (([1.0, 1, 1, 1, 9], False), ([1.0, 2, 3, 4], False), ([1, 1, 1.2, 1.2, 1.2], True)):
        race.probes = probes
        assert noisy == race.machine_is_noisy, probes


@pytest.mark.parametrize(
    ("name", "count", "low", "high"),
    [
        ("query", 20, 8, 16),
        ("sentences", 512, 6, 40),
        ("chunks", 32, 180, 256),
        ("documents", 32, 257, 700),
        ("mix", 128, 4, 700),
    ],
)
def test_workloads_have_the_lengths_they_promise(
    shipped: Embedder, name: str, count: int, low: int, high: int
) -> None:
    """Lengths are in tokens with [CLS] and [SEP]; a larger workload begins with the same texts."""
    texts, same_texts = (Texts(shipped.count_tokens) for _ in range(2))

    workload = texts.make(name)

    lengths = shipped.count_tokens(workload)
    assert count == len(workload) == pytest.approx(len(set(workload)), rel=0.1)
    assert low <= min(lengths) <= max(lengths) <= high
    assert list(lengths) == [texts.tokens(text) for text in workload]
    assert workload == same_texts.make(name, 2 * count)[:count]

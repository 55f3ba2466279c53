"""The runner: turns, ratios of neighbours in time, an end, and contenders that fall out."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from ov_minilm import Embedder
from ov_minilm.measure.contender import Contender, ContenderFailed
from ov_minilm.measure.race import MAX_ROUNDS, MIN_ROUNDS, Race, Values, half_interval
from ov_minilm.measure.row import OURS, RATIO, Row
from ov_minilm.measure.texts import Texts


class Toy:
    """A contender that has started."""

    def __init__(self, contender: Contender, _threads: int) -> None:
        if contender.variant == "broken":
            raise ContenderFailed(f"{contender.name}: no model")
        self.name = contender.name
        self.facts = {"toy": "1.0"}
        self.closed = False

    def close(self) -> None:
        """Note it."""
        self.closed = True


@pytest.fixture
def race(shipped: Embedder) -> Callable[..., Race[Toy]]:
    """Race ours against toys."""

    def start(*names: str, seconds: float = 0.05) -> Race[Toy]:
        contenders = [Contender(name, "a toy", (), name) for name in (OURS, *names)]
        texts = Texts(shipped.count_tokens)
        return Race(contenders, Toy, texts, threads=1, artefact="abc", seconds=seconds, say=lambda _: None)

    return start


def rows(race: Race[Toy], turn: Callable[[Toy], Values], max_rounds: int = MAX_ROUNDS) -> dict[str, Row]:
    """Run the race and index its rows."""
    return {row.what.removeprefix("mix/"): row for row in race.rows("mix", turn, max_rounds=max_rounds)}


def test_a_row_is_the_median_and_the_ratio_that_of_neighbours(race: Callable[..., Race[Toy]]) -> None:
    """A machine that slows down slows both sides: values drift, the ratio does not."""
    slower = itertools.count(10)

    with race("other") as started:
        found = rows(
            started,
            lambda toy: {"p50_ms": next(slower) * (1.0 if toy.name == OURS else 4.0), "p99_ms": 1.0},
            9,
        )

    ours, other = found[f"{OURS}/p50_ms"], found["other/p99_ms"]
    assert 9 == ours.rounds
    assert ours.high > 1.3 * ours.low
    assert ours.low < ours.value < ours.high
    assert 4 == pytest.approx(found[f"other/{RATIO}"].value, rel=0.1)
    assert ("abc", "toy 1.0") == (other.artefact, other.versions)


@pytest.mark.parametrize(("quantity", "better"), [("p50_ms", 0.5), ("texts_per_s", 2.0)])
def test_a_ratio_above_one_is_ours_ahead(
    race: Callable[..., Race[Toy]], quantity: str, better: float
) -> None:
    """Less is better for milliseconds, more for texts a second; equal values need the fewest rounds only."""
    with race("other", seconds=1000) as started:
        found = rows(started, lambda toy: {quantity: 2.0 if toy.name == OURS else 1.0})

    assert better == found[f"other/{RATIO}"].value
    assert {MIN_ROUNDS} == {row.rounds for row in found.values()}


def test_rounds_end_when_the_time_is_over(race: Callable[..., Race[Toy]]) -> None:
    """Values that never resolve do not go on for ever."""
    values = itertools.cycle([1.0, 5.0, 25.0])

    with race(seconds=0.0) as started:
        found = rows(started, lambda _: {"texts_per_s": next(values)})

    assert MIN_ROUNDS == found[f"{OURS}/texts_per_s"].rounds
    assert half_interval([1, 2, 3] * 4) == pytest.approx(2 * half_interval([1, 2, 3] * 16), rel=0.1)


def test_one_that_fails_falls_out_with_its_reason(race: Callable[..., Race[Toy]]) -> None:
    """At its start or in a round; the others go on, and all are closed in the end. Ours ends the race."""

    def turn(toy: Toy, broken: str) -> Values:
        if toy.name == broken:
            raise ContenderFailed(f"{toy.name}: out of memory")
        return {"texts_per_s": 1.0}

    with race("broken", "later", "other") as started:
        running = list(started.running.values())
        found = rows(started, lambda toy: turn(toy, "later"))
        with pytest.raises(ContenderFailed, match=f"{OURS}: out of memory"):
            rows(started, lambda toy: turn(toy, OURS))

    assert {"broken": "no model", "later": "out of memory"} == started.failed
    assert {OURS, "other"} == {row.contender for row in found.values()}
    assert all(toy.closed for toy in running)

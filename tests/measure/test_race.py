"""The runner: turns, ratios of neighbours in time, an end, and contenders that fall out."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence

import pytest

from ov_minilm import Embedder
from ov_minilm.measure.contender import Contender, ContenderFailed
from ov_minilm.measure.race import MIN_ROUNDS, Race, Values, half_interval
from ov_minilm.measure.row import OURS, RATIO, Row
from ov_minilm.measure.texts import Texts


class Toy:
    """A contender that has started."""

    def __init__(self, contender: Contender, _threads: int) -> None:
        if contender.variant == "broken":
            raise ContenderFailed(f"{contender.name}: no model")
        self.contender = contender
        self.facts = {"toy": "1.0"}
        self.closed = False

    def close(self) -> None:
        """Note it."""
        self.closed = True


def race(shipped: Embedder, *variants: str, seconds: float = 0.05) -> Race[Toy]:
    """Race ours against toys."""
    contenders = [Contender(OURS, "ours", (), "plain")]
    contenders += [Contender(name, "a toy", (), name) for name in variants]
    texts = Texts(shipped.count_tokens)
    return Race(contenders, Toy, texts, threads=1, artefact="abc", seconds=seconds, say=lambda _: None)


def by_name(rows: Sequence[Row]) -> dict[str, Row]:
    """Index rows."""
    return {row.what: row for row in rows}


def test_a_row_is_the_median_and_the_ratio_that_of_neighbours(shipped: Embedder) -> None:
    """A machine that slows down slows both sides: values drift, the ratio does not."""
    slower = itertools.count(10)

    def turn(toy: Toy) -> Values:
        slow = next(slower)
        return {"p50_ms": slow * (1.0 if toy.contender.name == OURS else 4.0), "p99_ms": 1.0}

    with race(shipped, "other") as found:
        rows = by_name(list(found.rows("query", turn, max_rounds=9)))

    assert 9 == rows[f"query/{OURS}/p50_ms"].rounds
    assert rows[f"query/{OURS}/p50_ms"].high > 1.3 * rows[f"query/{OURS}/p50_ms"].low
    assert 4 == pytest.approx(rows[f"query/other/{RATIO}"].value, rel=0.1)
    assert ("abc", "toy 1.0") == (rows["query/other/p99_ms"].artefact, rows["query/other/p99_ms"].versions)


@pytest.mark.parametrize(("quantity", "better"), [("p50_ms", 0.5), ("texts_per_s", 2.0)])
def test_a_ratio_above_one_is_ours_ahead(shipped: Embedder, quantity: str, better: float) -> None:
    """Whether less is better, as for milliseconds, or more, as for texts a second."""
    values = {OURS: 2.0, "other": 1.0}

    with race(shipped, "other") as found:
        rows = by_name(list(found.rows("mix", lambda toy: {quantity: values[toy.contender.name]})))

    assert better == rows[f"mix/other/{RATIO}"].value


def test_rounds_end_when_the_median_is_known(shipped: Embedder) -> None:
    """Equal values need no more than the fewest rounds, whatever time is left."""
    with race(shipped, seconds=1000) as found:
        rows = list(found.rows("mix", lambda _: {"texts_per_s": 7.0}))

    assert [MIN_ROUNDS] == [row.rounds for row in rows]


def test_rounds_end_when_the_time_is_over(shipped: Embedder) -> None:
    """Values that never resolve do not go on for ever."""
    values = itertools.cycle([1.0, 5.0, 25.0])

    def turn(_: Toy) -> Values:
        time.sleep(0.005)
        return {"texts_per_s": next(values)}

    with race(shipped, seconds=0.1) as found:
        rows = list(found.rows("mix", turn))

    assert MIN_ROUNDS <= rows[0].rounds <= 20


def test_the_interval_narrows_with_rounds() -> None:
    """Four times as many rounds of the same spread halve it."""
    assert half_interval([1, 2, 3] * 4) == pytest.approx(2 * half_interval([1, 2, 3] * 16), rel=0.1)


def test_one_that_fails_falls_out_with_its_reason(shipped: Embedder) -> None:
    """At its start or in a round; the others go on, and all are closed in the end."""

    def turn(toy: Toy) -> Values:
        if toy.contender.name == "later":
            raise ContenderFailed("later: out of memory")
        return {"texts_per_s": 1.0}

    with race(shipped, "broken", "later", "other") as found:
        started = list(found.running.values())
        rows = list(found.rows("mix", turn))

    assert {"broken": "no model", "later": "out of memory"} == found.failed
    assert {OURS, "other"} == {row.contender for row in rows}
    assert all(toy.closed for toy in started)


def test_ours_that_fails_ends_the_race(shipped: Embedder) -> None:
    """There would be nothing to compare with."""

    def turn(toy: Toy) -> Values:
        raise ContenderFailed(f"{toy.contender.name}: broken")

    with race(shipped, "other") as found, pytest.raises(ContenderFailed, match=f"{OURS}: broken"):
        list(found.rows("mix", turn))

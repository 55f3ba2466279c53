"""The measurement, with contenders that cost nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adapters import contender
from ov_minilm.bench import measure as module
from ov_minilm.bench.measure import Effort, measure
from ov_minilm.bench.workload import Workload, Workloads

EFFORT = Effort(rounds=3, bulk=("short", "long"), lengths=(8,), counts=(1, 2, 64), patience=60.0)
TEXTS = Workloads(
    "made here",
    {
        "short": Workload("short", ["one", "two", "three"], [3, 3, 3]),
        "long": Workload("long", ["a long text"] * 2, [5, 5]),
    },
    {8: "a single text"},
)


class Silent:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.steps: list[tuple[int, int, str]] = []

    def say(self, line: str) -> None:
        """Keep a line."""
        self.lines.append(line)

    def step(self, done: int, total: int, what: str) -> None:
        """Keep a step."""
        self.steps.append((done, total, what))


def race(folder: Path, *variants: tuple[str, str], effort: Effort = EFFORT) -> tuple[dict[str, Any], Silent]:
    """Measure toys: (name, variant) each."""
    progress = Silent()
    toys = [contender(folder, variant, name=name) for name, variant in variants]
    return measure(toys, TEXTS, effort, 1, unavailable={"absent": "not here"}, progress=progress), progress


def test_every_contender_gets_every_figure(tmp_path: Path) -> None:
    """Rates, percentiles, cost, memory, and the ratio to ours; the result is plain JSON."""
    result, _ = race(tmp_path, ("fp32", "plain"), ("int8", "plain"))

    fp32 = result["contenders"]["fp32"]
    assert result == json.loads(json.dumps(result))
    assert {"short", "long"} == fp32["throughput"].keys()
    assert 3 == fp32["rounds"]
    assert 60 == fp32["latency_ms"]["8"]["calls"]
    assert fp32["latency_ms"]["8"]["p50"] <= fp32["latency_ms"]["8"]["p95"] <= fp32["latency_ms"]["8"]["p99"]
    assert {"1", "2"} == fp32["cost_ms"].keys()  # there are only three short texts
    assert fp32["throughput"]["short"]["ours_is_faster"]["median"] > 0
    assert {"mean": 1.0, "min": 1.0} == fp32["cosine"]["short"]
    assert fp32["peak_mb"] > 0


def test_ours_against_itself_is_one(tmp_path: Path) -> None:
    """Ratios are of the same round."""
    result, _ = race(tmp_path, ("int8", "plain"))

    ratio = result["contenders"]["int8"]["throughput"]["short"]["ours_is_faster"]
    assert {"median": 1.0, "min": 1.0, "max": 1.0, "spread": 0.0} == ratio


def test_one_that_fails_is_reported_and_the_rest_goes_on(tmp_path: Path) -> None:
    """With its reason, beside those that could not start at all."""
    result, progress = race(tmp_path, ("int8", "plain"), ("peer", "broken"))

    assert ["int8"] == list(result["contenders"])
    assert {"absent": "not here", "peer": "OSError: no model"} == result["unavailable"]
    assert ["left out: peer: OSError: no model"] == progress.lines


def test_ctrl_c_keeps_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rounds before it stand, and the result says that it was interrupted."""
    turn, turns = module._turn, 0

    def interrupted(*arguments: Any) -> None:
        nonlocal turns
        turns += 1
        if turns == 4:
            raise KeyboardInterrupt
        turn(*arguments)

    monkeypatch.setattr(module, "_turn", interrupted)
    result, _ = race(tmp_path, ("fp32", "plain"), ("int8", "plain"))

    assert result["interrupted"]
    assert {"fp32": 1, "int8": 2} == {name: found["rounds"] for name, found in result["contenders"].items()}


def test_a_slow_contender_has_fewer_rounds_but_at_least_two(tmp_path: Path) -> None:
    """Patience is for each contender, so that one cannot eat the time of all."""
    result, _ = race(tmp_path, ("int8", "plain"), effort=replace(EFFORT, patience=0.0))

    assert 2 == result["contenders"]["int8"]["rounds"]


def test_steps_count_up_to_their_total(tmp_path: Path) -> None:
    """A bar moves evenly and ends where it should."""
    _, progress = race(tmp_path, ("fp32", "plain"), ("int8", "plain"))

    assert list(range(8)) == [done for done, _, _ in progress.steps]
    assert {8} == {total for _, total, _ in progress.steps}


def test_another_one_begins_each_round() -> None:
    """So that nobody always follows the same one."""
    assert [list("abc"), list("bca"), list("cab"), list("abc")] == [
        module._rotated(list("abc"), number) for number in range(4)
    ]


def test_rounds_that_disagree_are_marked() -> None:
    """By name, with the workload."""
    figures = {"throughput": {"short": {"spread": 0.16}, "long": {"spread": 0.15}}, "latency_ms": {}}

    assert ["int8, throughput short"] == module._noisy({"contenders": {"int8": figures}})


def test_a_contender_of_another_width_has_no_cosine() -> None:
    """Vectors of 256 components cannot be compared with those of 384."""
    assert module._agreement(np.ones((2, 3), np.float32), np.ones((2, 2), np.float32)) is None


def test_wrong_vectors_show_in_the_cosine() -> None:
    """The least cosine finds the one text that is off, whatever its length."""
    expected = np.eye(3, dtype=np.float32)
    found = expected * 2
    found[1] = [0, 0.6, 0.8]

    assert {"mean": pytest.approx(2.6 / 3, abs=1e-5), "min": 0.6} == module._agreement(expected, found)

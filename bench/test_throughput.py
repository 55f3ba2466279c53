"""Many texts at a time: how cost grows with their number and length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from rungs import LADDER

from ov_minilm.bench.workload import Workloads

Race = Callable[[str, Sequence[str], int], None]


@pytest.mark.parametrize(("length", "count"), [("short", 32), ("short", 1000), ("long", 32), ("mixed", 200)])
@pytest.mark.parametrize("rung", LADDER)
def test_texts(race: Race, benchmark: Any, texts: Workloads, rung: str, length: str, count: int) -> None:
    """A rung encodes so many texts in one call."""
    benchmark.group = f"{count} {length} texts"

    race(rung, texts.bulk[length].texts[:count], 5)

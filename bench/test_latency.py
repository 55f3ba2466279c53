"""One text at a time: what a caller waits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from rungs import LADDER

from ov_minilm.bench.workload import Workloads

Race = Callable[[str, Sequence[str], int], None]


@pytest.mark.parametrize("tokens", [8, 16, 32, 64, 128, 256])
@pytest.mark.parametrize("rung", LADDER)
def test_one_text(race: Race, benchmark: Any, texts: Workloads, rung: str, tokens: int) -> None:
    """A rung encodes one text of so many tokens."""
    benchmark.group = f"one text of {tokens} tokens"

    race(rung, [texts.single[tokens]], 100)

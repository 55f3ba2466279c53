"""Invented rows of the shipped artefact, and races that yield them."""

from collections.abc import Callable, Sequence
from typing import Any

from ov_minilm import Embedder
from ov_minilm.measure.contender import Contender
from ov_minilm.measure.race import Race
from ov_minilm.measure.row import UNITS, Row, shipped_fingerprint
from ov_minilm.measure.texts import Texts


def row(what: str, value: float = 1.0, spread: float = 0.1) -> Row:
    """Return a row whose bounds are `value` times 1 - spread and 1 + spread."""
    return Row(
        what=what,
        value=value,
        unit=UNITS[what.split("/")[2]],
        low=value * (1 - spread),
        high=value * (1 + spread),
        rounds=5,
        machine="a machine, 2 threads",
        artefact=shipped_fingerprint(),
        versions="a library 1.0",
        taken="2026-11-28",
    )


def race(
    embedder: Embedder, contenders: Sequence[Contender], start: Callable[..., Any], seconds: float = 0.05
) -> Race[Any]:
    """Start a race with one thread, which prints no messages."""
    texts = Texts(embedder.count_tokens)
    return Race(contenders, start, texts, threads=1, artefact="abc", seconds=seconds, say=lambda _: None)

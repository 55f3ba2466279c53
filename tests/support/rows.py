"""Rows made up for tests, of the artefact that ships."""

from __future__ import annotations

from ov_minilm.measure.row import UNITS, Row, shipped_fingerprint


def row(what: str, value: float = 1.0, spread: float = 0.1) -> Row:
    """Make a row whose interval is `spread` of the value to both sides."""
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

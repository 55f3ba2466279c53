"""Who takes part in a benchmark."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from ov_minilm.bench.ours import RUNGS
from ov_minilm.bench.run import FP32_MISSING, Options, line_up
from test_measure import Silent


def test_quick_is_int8_against_fp32(tmp_path: Path) -> None:
    """The reference first, then ours."""
    contenders, unavailable = line_up(Options(reference=tmp_path), Silent())

    assert (["fp32", "int8"], {}) == ([c.name for c in contenders], unavailable)


def test_full_is_the_whole_ladder(tmp_path: Path) -> None:
    """One change a row."""
    contenders, _ = line_up(Options(reference=tmp_path, full=True), Silent())

    assert list(RUNGS) == [c.name for c in contenders]


def test_without_fp32_every_rung_of_it_has_its_reason() -> None:
    """And the others run."""
    contenders, unavailable = line_up(Options(full=True), Silent())

    assert {"fp32", "fp32-padded", "bf16-padded"} == unavailable.keys()
    assert {FP32_MISSING} == set(unavailable.values())
    assert {"int8", "int8-packed", "int8-native-padded", "int8-conv-padded"} == {c.name for c in contenders}


def test_only_keeps_ours_and_fp32_beside_the_chosen(tmp_path: Path) -> None:
    """Ratios are to ours and cosines to FP32, so both always run."""
    contenders, _ = line_up(Options(reference=tmp_path, full=True, only=("bf16-padded",)), Silent())

    assert ["bf16-padded", "fp32", "int8"] == [c.name for c in contenders]


def test_a_name_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    """With those that do."""
    with pytest.raises(ValueError, match="no contender 'x'; there are fp32, int8"):
        line_up(Options(reference=tmp_path, only=("x",)), Silent())


def test_peers_stand_before_ours(tmp_path: Path) -> None:
    """A folder of peers is enough; one that cannot run has its reason."""
    peer = tmp_path / "toy"
    peer.mkdir()
    facts = {"runtime": "python", "variants": {"a": "A", "b": "B"}, "makes": [], "needs": []}
    (peer / "peer.json").write_text(json.dumps(facts))
    (peer / "requirements.txt").write_text("")
    (peer / "adapter.py").write_text("")

    contenders, _ = line_up(Options(peers=tmp_path, reference=tmp_path), Silent())

    assert ["toy/a", "toy/b", "fp32", "int8"] == [c.name for c in contenders]
    assert sys.executable == contenders[0].command[0]

"""The texts that everybody encodes."""

from __future__ import annotations

from pathlib import Path

import pytest
from ov_minilm.bench.workload import LENGTHS, workloads

from ov_minilm import Embedder
from ov_minilm.drift.evaluation import FOLDER_VARIABLE


def test_own_texts_serve_where_no_folder_is_named(shipped: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package alone is enough, and the source says so."""
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)

    found = workloads(shipped.count_tokens, short=500, long=20)

    assert "calibration.txt of the package, repeated" == found.source
    assert [500, 20, 130] == [len(found.bulk[name].texts) for name in ("short", "long", "mixed")]
    assert max(found.bulk["short"].tokens) <= 32
    assert min(found.bulk["long"].tokens) > 128


def test_a_folder_is_used_where_it_is_named(
    shipped: Embedder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Short texts from the pairs, long ones from the passages."""
    (tmp_path / "stsb_dev.tsv").write_text("1.0\tone sentence\tanother one\n")
    (tmp_path / "passages.txt").write_text(" ".join(["word"] * 200) + "\n")
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))

    found = workloads(shipped.count_tokens, short=3, long=1)

    assert ["one sentence", "another one", "one sentence"] == found.bulk["short"].texts
    assert [202] == found.bulk["long"].tokens


def test_single_texts_have_exactly_their_tokens(shipped: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    """[CLS] and [SEP] included."""
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)

    found = workloads(shipped.count_tokens, short=1, long=1)

    assert list(LENGTHS) == [shipped.count_tokens(found.single[tokens]) for tokens in LENGTHS]


def test_mixed_spreads_the_few_among_the_many(shipped: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each half of the list has half of the long texts."""
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)

    mixed = workloads(shipped.count_tokens, short=160, long=16).bulk["mixed"]

    assert [2, 2] == [sum(n > 128 for n in half) for half in (mixed.tokens[:22], mixed.tokens[22:])]


def test_facts_tell_one_list_from_another(shipped: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two results can be compared only if their hashes agree."""
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)

    first, same, other = (workloads(shipped.count_tokens, short=n, long=1).bulk["short"] for n in (3, 3, 4))

    assert first.facts() == same.facts()
    assert first.facts()["sha256"] != other.facts()["sha256"]

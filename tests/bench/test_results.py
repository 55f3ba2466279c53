"""Tables and pictures of the stored rows; all rows are of the shipped artefact."""

from pathlib import Path

import pytest
import tables
from limit import MULTIPLICATIONS_ONLY
from run import PEERS_AT_A_TIME, compare, peer_groups
from support.rows import row

from ov_minilm.measure.contender import Contender
from ov_minilm.measure.render import Figures
from ov_minilm.measure.row import OURS, RATIO, read, refuse_stale, shipped_fingerprint

NAMES = (OURS, "onnxruntime int8", "onnxruntime f32", "fastembed f32")
ROWS = [
    *(
        row(f"{workload}/{name}/texts_per_s", 1000 / (1 + place))
        for workload in ("sentences", "chunks", "server, 1 clients", "server, 8 clients")
        for place, name in enumerate(NAMES)
    ),
    *(row(f"server, {n} clients/{name}/p50_ms", n) for n in (1, 8) for name in NAMES),
    *(row(f"accuracy/{name}/spearman_change", -0.1) for name in NAMES),
    *(row(f"accuracy/{name}/cosine", 0.999) for name in NAMES),
    *(row(f"new process/{name}/peak_mb", 300) for name in NAMES),
    *(row(f"{prefix}/{OURS}/share", 30) for prefix in ("limit, chunks", "parts of a batch, attention")),
    *(row(f"limit, one text of 8 tokens/{name}/gflops", 9) for name in (OURS, MULTIPLICATIONS_ONLY)),
]


def test_tables_show_only_the_shipped_artefact(monkeypatch: pytest.MonkeyPatch) -> None:
    """All stored rows are of the shipped artefact; a table without rows says so."""
    refuse_stale(read(tables.ROWS) if tables.ROWS.exists() else [], shipped_fingerprint())
    monkeypatch.setattr(tables, "machines", list)

    for name in "reasons speed race serving smaller_vectors memory limit jobs billion".split():
        assert tables.MISSING in getattr(tables, name)(), name


def test_pictures_are_drawn_of_the_rows(tmp_path: Path) -> None:
    """Pictures are PNG, 800 to 900 pixels wide, with the same bytes each time, and need rows."""
    from pictures import PICTURES, draw_all  # matplotlib imports slowly

    written, redrawn = (draw_all(ROWS, tmp_path / name) for name in ("a", "b"))

    assert sorted(PICTURES) == sorted(path.stem for path in written)
    assert all(800 <= int.from_bytes(path.read_bytes()[16:20], "big") <= 900 for path in written)
    assert [path.read_bytes() for path in written] == [path.read_bytes() for path in redrawn]
    assert [] == draw_all([], tmp_path)


def test_other_libraries_are_compared_by_their_best_variant(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only libraries with the model's vectors are compared; workloads on which they are faster are listed."""
    from pictures import best_variants

    rows = [*ROWS, row(f"chunks/fastembed f32/{RATIO}", 0.5), row(f"mix/fastembed f32/{RATIO}", 2.0)]
    rows += [row("sentences/not compared/texts_per_s", 9e9)]
    figures = Figures(rows, shipped_fingerprint())
    monkeypatch.setattr(tables, "machines", lambda: [figures])

    assert ["onnxruntime int8", "fastembed f32"] == best_variants(figures, "sentences", "texts_per_s")
    assert "- chunks: fastembed f32 is 2.00× as fast as ov_minilm (a machine, 2 threads)\n" == tables.behind()


def test_a_new_ratio_is_compared_with_the_stored_interval(capsys: pytest.CaptureFixture[str]) -> None:
    """A ratio outside of its interval is named, and the exit code is 1."""
    old = [row(f"mix/a/{RATIO}", 2.0), row(f"mix/b/{RATIO}", 2.0)]

    assert 0 == compare(old, [row(f"mix/a/{RATIO}", 2.1)])
    assert 1 == compare(old, [row(f"mix/a/{RATIO}", 2.1), row(f"mix/b/{RATIO}", 3.0)])
    assert "CHANGED  mix against b: 3.00×, committed 2.00× (1.80 to 2.20)" in capsys.readouterr().out


def test_libraries_run_in_groups_with_ov_minilm_in_each() -> None:
    """A group is small, to limit memory; each peer and each variant of ov_minilm runs once."""
    our_contenders = [Contender(name, "", (), "") for name in (OURS, f"{OURS} conv")]
    peers = [Contender(str(n), "", (), "") for n in range(12)]

    actual = [[contender.name for contender in group] for group in peer_groups(our_contenders, peers)]

    assert [str(n) for n in range(12)] == [name for group in actual for name in group if name.isdigit()]
    assert all(OURS == group[0] and len(group) <= PEERS_AT_A_TIME + 2 for group in actual)
    assert [1, *[0] * (len(actual) - 1)] == [group.count(f"{OURS} conv") for group in actual]

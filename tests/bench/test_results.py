"""What the pages show: rows that are kept, of the artefact that ships, and pictures of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import tables
from limit import PLAIN
from pictures import PICTURES, draw_all, rivals
from run import PEERS_AT_A_TIME, compare, groups
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
    *(row(f"{what}/{OURS}/share", 30) for what in ("limit, chunks", "parts of a batch, attention")),
    *(row(f"limit, one text of 8 tokens/{name}/gflops", 9) for name in (OURS, PLAIN)),
]


def test_pages_show_the_artefact_that_ships_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept rows are of it, or a build removes them; a table without rows says so instead."""
    refuse_stale(read(tables.ROWS) if tables.ROWS.exists() else [], shipped_fingerprint())
    monkeypatch.setattr(tables, "machines", list)

    for name in "reasons speed race serving smaller_vectors memory limit jobs billion".split():
        assert tables.MISSING in getattr(tables, name)(), name


def test_pictures_are_drawn_where_there_are_rows(tmp_path: Path) -> None:
    """As PNGs about 880 pixels wide, shown at 800, the same each time; nothing is drawn of nothing."""
    written, again = (draw_all(ROWS, tmp_path / name) for name in ("a", "b"))

    assert sorted(PICTURES) == sorted(path.stem for path in written)
    assert all(800 <= int.from_bytes(path.read_bytes()[16:20], "big") <= 900 for path in written)
    assert [path.read_bytes() for path in written] == [path.read_bytes() for path in again]
    assert [] == draw_all([], tmp_path)


def test_a_rival_is_a_library_once_and_listed_where_it_is_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its best variant, if its vectors are the model's; what is still to win, and only that."""
    rows = [*ROWS, row(f"chunks/fastembed f32/{RATIO}", 0.5), row(f"mix/fastembed f32/{RATIO}", 2.0)]
    rows += [row("sentences/not compared/texts_per_s", 9e9)]
    figures = Figures(rows, shipped_fingerprint())
    monkeypatch.setattr(tables, "machines", lambda: [figures])

    assert ["onnxruntime int8", "fastembed f32"] == rivals(figures, "sentences", "texts_per_s")
    assert "- chunks: fastembed f32 is 2.00× as fast as ov_minilm (a machine, 2 threads)\n" == tables.behind()


def test_a_fresh_ratio_is_held_to_the_kept_interval(capsys: pytest.CaptureFixture[str]) -> None:
    """One inside holds; one outside is named, and the exit code is 1."""
    old = [row(f"mix/a/{RATIO}", 2.0), row(f"mix/b/{RATIO}", 2.0)]

    assert 0 == compare(old, [row(f"mix/a/{RATIO}", 2.1)])
    assert 1 == compare(old, [row(f"mix/a/{RATIO}", 2.1), row(f"mix/b/{RATIO}", 3.0)])
    assert "MOVED  mix against b: 3.00×, kept 2.00× (1.80 to 2.20)" in capsys.readouterr().out


def test_peers_run_in_groups_with_ours_in_each() -> None:
    """Few at a time, for their memory; no peer is left out, and the other forms of ours run once."""
    mine = [Contender(name, "", (), "") for name in (OURS, f"{OURS} conv")]
    peers = [Contender(str(n), "", (), "") for n in range(12)]

    found = [[one.name for one in group] for group in groups(mine, peers)]

    assert [str(n) for n in range(12)] == [name for group in found for name in group if name.isdigit()]
    assert all(OURS == group[0] and len(group) <= PEERS_AT_A_TIME + 2 for group in found)
    assert [1, *[0] * (len(found) - 1)] == [group.count(f"{OURS} conv") for group in found]

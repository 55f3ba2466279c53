"""The benchmarks of the repository, each with one short turn: what they yield, not how fast it is."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from accuracy import NotMeasured, accuracy, smaller_vectors
from jobs import job, table
from limit import limit
from servers import Server, load, our_server
from support.rows import race

from ov_minilm import Embedder
from ov_minilm.drift.evaluation import FOLDER_VARIABLE
from ov_minilm.measure.contender import Contender, ContenderFailed, Process, ours


def test_the_limit_is_above_what_is_reached(shipped: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shares lie between nothing and everything, the parts of a batch are all of it; accuracy needs texts."""
    for name, value in {"ROUNDS": 5, "PROFILE_S": 0.2, "ONE_TEXT": (8, 256)}.items():
        monkeypatch.setattr(f"limit.{name}", value)
    monkeypatch.setenv(FOLDER_VARIABLE, "")

    with race(shipped, ours(None, None)[:1], Process) as started:
        rows = {row.workload: row.value for row in limit(started)}
        for measure in (accuracy, smaller_vectors):
            with pytest.raises(NotMeasured, match=FOLDER_VARIABLE):
                list(measure(started))

    assert 0 < rows["limit, chunks"] < 100
    assert rows["limit, list"] > 1
    assert {"limit, one text of 8 tokens", "limit, one text of 256 tokens"} <= rows.keys()
    parts = [value for name, value in rows.items() if name.startswith("parts of a batch, ")]
    assert 5 == len(parts)
    assert pytest.approx(100, abs=0.1) == sum(parts)


def test_a_job_gives_its_seconds_and_its_peak(tmp_path: Path) -> None:
    """Of the process that did it; one that fails says why."""
    source = table(tmp_path / "in.parquet", ["one", "two"])

    done = job(source, "--rows-per-shard", "1")

    assert 0.1 < done.seconds < 60
    assert 20 < done.peak_mb < 1000
    assert 2 == len(done.written)
    with pytest.raises(RuntimeError, match="No such option"):
        job(source, "--nothing")


def test_a_server_is_loaded_or_left_out(shipped: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every client asks again as soon as it is answered; one that does not start leaves its last line."""
    monkeypatch.setattr("servers.LOAD_S", 0.5)
    broken = (sys.executable, "-c", "print('no model'); raise SystemExit(3)")

    with race(shipped, [our_server()], Server) as started:
        rows = {row.quantity: row.value for row in load("server, 32 texts a request", 2, 32)(started)}
        (server,) = started.running.values()
        memory = server.pss_mb()

    assert 1.3 < rows["texts_per_s"] / 32 * rows["p50_ms"] / 1000 < 3  # two requests are under way at once
    assert rows["p99_ms"] >= rows["p50_ms"]
    assert 100 < memory < 1500
    with pytest.raises(ContenderFailed, match="stub: no model"):
        Server(Contender("stub", "", broken, ""), 1)

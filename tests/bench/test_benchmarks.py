"""Each benchmark of the repository, run for a short time, returns the expected rows."""

import sys
from pathlib import Path

import pytest
from accuracy import NotMeasured, accuracy, smaller_vectors
from jobs import run_job, write_table
from limit import limit
from servers import Server, apis, load, our_server
from support.rows import race

from ov_minilm import Embedder
from ov_minilm.drift.evaluation import FOLDER_VARIABLE
from ov_minilm.measure.contender import Contender, ContenderFailed, Process, ours


@pytest.mark.slow
def test_the_limit_of_the_machine_is_measured(shipped: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Percentages are between 0 and 100, parts of a batch add up to 100 %; accuracy needs texts."""
    for name, value in {"ROUNDS": 2, "REPEAT_S": 0.02, "PROFILE_S": 0.2, "ONE_TEXT": (8, 256)}.items():
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


def test_a_job_is_timed(tmp_path: Path) -> None:
    """A job reports time and peak memory of its process; a failed job reports the reason."""
    source = write_table(tmp_path / "in.parquet", ["one", "two"])

    finished = run_job(source, "--rows-per-shard", "1")

    assert 0.1 < finished.seconds < 60
    assert 20 < finished.peak_mb < 1000
    assert 2 == len(finished.written)
    with pytest.raises(RuntimeError, match="No such option"):
        run_job(source, "--nothing")


@pytest.mark.slow
def test_a_server_is_timed(shipped: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client sends a request after each answer; if a server fails to start, its last line is reported."""
    monkeypatch.setattr("servers.LOAD_S", 0.5)
    broken = (sys.executable, "-c", "print('no model'); raise SystemExit(3)")

    with race(shipped, [our_server()], Server) as started:
        rows = {row.quantity: row.value for row in load("server, requests of 32 texts", 2, 32)(started)}
        (server,) = started.running.values()
        memory = server.pss_mb()
        for name, value in {"LOAD_S": 0.01, "CLIENTS": 2}.items():
            monkeypatch.setattr(f"servers.{name}", value)
        names = {row.contender for row in apis(started)}

    assert 1.3 < rows["texts_per_s"] / 32 * rows["p50_ms"] / 1000 < 3  # two requests at a time
    assert rows["p99_ms"] >= rows["p50_ms"]
    assert 100 < memory < 1500
    assert {"ov_minilm", "ov_minilm TEI", "ov_minilm Ollama"} == names
    with pytest.raises(ContenderFailed, match="stub: no model"):
        Server(Contender("stub", "", broken, ""), 1)

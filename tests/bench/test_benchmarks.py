"""The benchmarks of the repository, each with one short turn: what they yield, not how fast it is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from accuracy import NotMeasured, accuracy, smaller_vectors
from jobs import job, table
from limit import limit
from servers import Server, load

from ov_minilm import Embedder
from ov_minilm.drift.evaluation import FOLDER_VARIABLE
from ov_minilm.measure.contender import Contender, ContenderFailed, Process, ours
from ov_minilm.measure.race import Race
from ov_minilm.measure.row import OURS
from ov_minilm.measure.texts import Texts

Start = Callable[[Contender, Any], Race[Any]]


@pytest.fixture
def race(shipped: Embedder) -> Start:
    """Race one contender against nobody."""
    texts = Texts(shipped.count_tokens)

    def start(contender: Contender, kind: Any) -> Race[Any]:
        return Race([contender], kind, texts, threads=1, artefact="abc", seconds=0.1, say=lambda _: None)

    return start


def test_the_limit_is_above_what_is_reached(race: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shares lie between nothing and everything, the parts of a batch are all of it; accuracy needs texts."""
    monkeypatch.setattr("limit.ROUNDS", 1)
    monkeypatch.setattr("limit.PROFILE_S", 0.2)
    monkeypatch.setattr("limit.ONE_TEXT", (8, 256))
    monkeypatch.setenv(FOLDER_VARIABLE, "")

    with race(ours(None, None)[0], Process) as started:
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


STUB = """
import asyncio, sys
async def answer(reader, writer):
    while head := await reader.readuntil(b"\\r\\n\\r\\n"):
        await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\\r\\n")[0]))
        writer.write(b"HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\n\\r\\n{}")
async def main():
    async with await asyncio.start_server(answer, "127.0.0.1", int(sys.argv[1])) as server:
        await server.serve_forever()
print("starting", flush=True)
asyncio.run(main())
"""


def test_a_server_is_loaded_or_left_out(race: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every client asks again as soon as it is answered; one that does not start leaves its last line."""
    monkeypatch.setattr("servers.LOAD_S", 0.1)
    broken = (sys.executable, "-c", "print('no model'); raise SystemExit(3)")

    with race(Contender(OURS, "a stub", (sys.executable, "-c", STUB, "PORT"), ""), Server) as started:
        rows = {row.quantity: row for row in load("server, 32 texts a request", 2, 32)(started)}

    assert rows["texts_per_s"].value > 8 * 1000 / rows["p50_ms"].value  # of 64, with two clients at once
    assert rows["p99_ms"].value >= rows["p50_ms"].value
    with pytest.raises(ContenderFailed, match="stub: no model"):
        Server(Contender("stub", "", broken, ""), 1)

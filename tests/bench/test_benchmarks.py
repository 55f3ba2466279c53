"""The benchmarks of the repository, each with one short turn: what they yield, not how fast it is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from accuracy import NotMeasured, accuracy, smaller_vectors
from jobs import job, table
from limit import limit
from servers import Server, load

from ov_minilm import Embedder
from ov_minilm.drift.evaluation import FOLDER_VARIABLE
from ov_minilm.measure.contender import Contender, ContenderFailed, Process, ours
from ov_minilm.measure.race import Race
from ov_minilm.measure.row import OURS, shipped_fingerprint
from ov_minilm.measure.texts import Texts


@pytest.fixture(scope="module")
def race(shipped: Embedder) -> Iterator[Race[Process]]:
    """Ours alone."""
    texts = Texts(shipped.count_tokens)
    with Race(
        ours(None, None)[:1],
        Process,
        texts,
        threads=1,
        artefact=shipped_fingerprint(),
        seconds=0.1,
        say=lambda _: None,
    ) as found:
        yield found


def test_the_limit_is_above_what_is_reached(race: Race[Process], monkeypatch: pytest.MonkeyPatch) -> None:
    """Shares lie between nothing and everything, and the parts of a batch are all of it."""
    monkeypatch.setattr("limit.ROUNDS", 1)
    monkeypatch.setattr("limit.PROFILE_S", 0.2)
    monkeypatch.setattr("limit.ONE_TEXT", (8, 256))

    rows = {row.workload: row.value for row in limit(race)}

    assert 0 < rows["limit, chunks"] < 100
    assert rows["limit, list"] > 1
    assert {"limit, one text of 8 tokens", "limit, one text of 256 tokens"} <= rows.keys()
    parts = [value for name, value in rows.items() if name.startswith("parts of a batch, ")]
    assert pytest.approx(100, abs=0.1) == sum(parts)
    assert 5 == len(parts)


@pytest.mark.parametrize("measure", [accuracy, smaller_vectors])
def test_accuracy_without_texts_says_what_is_missing(
    race: Race[Process], monkeypatch: pytest.MonkeyPatch, measure: object
) -> None:
    """The variable that names the folder."""
    monkeypatch.setenv(FOLDER_VARIABLE, "")

    with pytest.raises(NotMeasured, match=FOLDER_VARIABLE):
        list(measure(race))  # type: ignore[operator]


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
        status = b"200 OK" if sys.argv[2] == "works" else b"503 Full"
        writer.write(b"HTTP/1.1 " + status + b"\\r\\ncontent-length: 2\\r\\n\\r\\n{}")
async def main():
    async with await asyncio.start_server(answer, "127.0.0.1", int(sys.argv[1])) as server:
        await server.serve_forever()
print("starting", flush=True)
asyncio.run(main())
"""


def test_a_server_is_loaded(shipped: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every client asks again as soon as it is answered; texts count, not requests."""
    monkeypatch.setattr("servers.LOAD_S", 0.1)
    stub = Contender(OURS, "a stub", (sys.executable, "-c", STUB, "PORT", "works"), "")
    texts = Texts(shipped.count_tokens)

    with Race([stub], Server, texts, threads=1, artefact="abc", seconds=0.1, say=lambda _: None) as race:
        rows = {row.quantity: row for row in load("server, 32 texts a request", 2, 32)(race)}

    assert rows["texts_per_s"].value > 8 * 1000 / rows["p50_ms"].value  # of 64, with two clients at once
    assert rows["p99_ms"].value >= rows["p50_ms"].value


def test_a_server_that_does_not_start_is_left_out() -> None:
    """With the last line that it printed."""
    command = (sys.executable, "-c", "print('no model'); raise SystemExit(3)")

    with pytest.raises(ContenderFailed, match="stub: no model"):
        Server(Contender("stub", "", command, ""), 1)

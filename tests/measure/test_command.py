"""`ov-minilm bench` in a real process, as its users start it, and the sentences that it says."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.processes import here, run
from support.rows import row

from ov_minilm import Embedder
from ov_minilm.artefact.manifest import SHIPPED, Manifest
from ov_minilm.measure.command import Result, sentences
from ov_minilm.measure.row import FP32, OURS, RATIO, Row

FIGURES = {
    f"sentences/{OURS}/texts_per_s": 1000,
    f"chunks/{OURS}/texts_per_s": 100,
    f"query/{OURS}/p50_ms": 1.5,
    f"query after a list/{OURS}/p50_ms": 1.6,
    f"sentences/{FP32}/{RATIO}": 3.04,
    f"chunks/{FP32}/{RATIO}": 2.8,
    f"query/{FP32}/{RATIO}": 2.2,
}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {},
            "INT8 is faster than FP32 here: 3.0× on sentences, 2.8× on chunks of 180–256 tokens, 2.2× for",
        ),
        ({}, "A million texts take 0.3 hours for sentences or 2.8 hours for chunks."),
        ({}, "One query takes 1.5 ms, after a list 1.6 ms."),
        (
            {f"query after a list/{OURS}/p50_ms": 48},
            "after a list 48 ms: slower; a list leaves less compiled",
        ),
        ({f"sentences/{OURS} conv/{RATIO}": 1.0}, "conv is as fast (1.00×), so the choice does not matter"),
        ({f"sentences/{OURS} conv/{RATIO}": 1.3}, "it is 1.30× as fast as conv"),
        ({f"sentences/{OURS} conv/{RATIO}": 0.5}, "conv is faster, 2.00×: pass lowering='conv'"),
    ],
)
def test_a_question_has_a_sentence(shipped: Embedder, changes: dict[str, float], sentence: str) -> None:
    """What is fast here, what a million texts cost, which lowering, and of a noisy machine that it is."""
    rows = [row(what, value) for what, value in (FIGURES | changes).items()]
    result = Result(dataclasses.replace(shipped.info, lowering="native"), rows)

    assert sentence in "\n".join(sentences(result))
    assert "noisy" not in "\n".join(sentences(result))
    assert "This machine is noisy" in "\n".join(sentences(dataclasses.replace(result, machine_is_noisy=True)))


FROZEN = Path(__file__).parents[1] / "frozen/0.1.0/artefact"  # small: measured in seconds


@pytest.mark.parametrize("model", [FROZEN, pytest.param(SHIPPED, marks=pytest.mark.slow)])
def test_without_an_fp32_artefact_ours_is_measured_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Path
) -> None:
    """With a line that says how to get one; the page opens, and every line of JSON is a row."""
    monkeypatch.chdir(tmp_path)

    done = run("bench", model, "--seconds", "5", "--json", "--report", "page.html")

    assert 0 == done.returncode, done.stderr.decode()
    rows = [Row(**json.loads(line)) for line in done.stdout.splitlines()]
    assert {OURS} == {row.contender for row in rows} - {f"{OURS} conv", f"{OURS} native"}
    assert {Manifest.read(model).fingerprint} == {row.artefact for row in rows}
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "FP32 was not measured: make it with `ov-minilm convert`" in page
    assert page.rstrip().endswith("</html>")


def test_a_report_that_cannot_be_written_is_refused_before_the_work() -> None:
    """Not after a minute of measuring."""
    done = here("bench", "--report", "/nowhere/page.html")

    assert 2 == done.returncode
    assert "nowhere" in done.stderr.decode()


def test_ctrl_c_keeps_what_was_measured(tmp_path: Path) -> None:
    """What is whole is shown, with a line that says so, and the exit code is that of an interrupt."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ov_minilm", "bench", FROZEN, "--seconds", "20"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "COLUMNS": "200"},
        start_new_session=True,
    )
    assert process.stderr is not None
    assert any(b"2 of 5, " in line for line in process.stderr)  # the first workload is over
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the contenders get it too
    out, err = process.communicate(timeout=30)

    assert 130 == process.returncode, err.decode()
    assert "Interrupted: this is what was measured until then." in out.decode()
    assert "query, p50 ms" in out.decode()

"""`ov-minilm bench` and `pytest bench` in real processes, as their users start them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import run

ROOT = Path(__file__).parents[2]
NO_TEXTS = {"OV_MINILM_STSB": ""}


def test_without_an_fp32_artefact_ours_is_measured_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one line that says what is missing and how to get it; the page opens and the JSON is whole."""
    monkeypatch.chdir(tmp_path)

    done = run(
        "bench",
        "--rounds",
        "2",
        "--json",
        "--report",
        "page.html",
        "--plots",
        "pictures",
        environment=NO_TEXTS,
    )

    assert 0 == done.returncode, done.stderr.decode()
    result = json.loads(done.stdout)
    assert ["int8"] == list(result["contenders"])
    assert "ov-minilm convert" in result["unavailable"]["fp32"]
    assert "calibration.txt of the package, repeated" == result["texts"]
    assert "</html>" in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert {"latency.png", "throughput.png", "memory.png"} == {
        p.name for p in (tmp_path / "pictures").iterdir()
    }


def test_a_contender_that_does_not_exist_is_refused_at_once() -> None:
    """With the names there are."""
    done = run("bench", "--only", "int9", environment=NO_TEXTS)

    assert (2, b"") == (done.returncode, done.stdout)
    assert "error: no contender 'int9'; there are fp32, int8" == done.stderr.decode().strip()


def test_a_report_that_cannot_be_written_is_refused_before_the_work() -> None:
    """Not after a minute of measuring."""
    done = run("bench", "--report", "/nowhere/page.html", environment=NO_TEXTS)

    assert 2 == done.returncode
    assert "nowhere" in done.stderr.decode()


def test_ctrl_c_keeps_what_was_measured(tmp_path: Path) -> None:
    """The JSON is whole, says that it was interrupted, and the exit code is that of an interrupt."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ov_minilm", "bench", "--rounds", "500", "--json"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **NO_TEXTS},
        start_new_session=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if b"round 2 of" in line:  # the first is over
            break
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the contenders get it too
    out, err = process.communicate(timeout=30)

    assert 130 == process.returncode, err.decode()
    result = json.loads(out)
    assert result["interrupted"]
    assert result["contenders"]["int8"]["rounds"] > 0


@pytest.mark.convert
@pytest.mark.parametrize(
    "chosen",
    ["test_one_text and 16 or test_texts and 32 and short", pytest.param("not 1000", marks=pytest.mark.slow)],
)
def test_the_suite_runs_and_checks_what_it_times(built: Path, chosen: str) -> None:
    """Every rung once, without timing: its vectors agree with FP32."""
    done = _suite(built, "--benchmark-disable", "-k", chosen)

    assert 0 == done.returncode, done.stdout[-3000:]
    assert "passed" in done.stdout


@pytest.mark.convert
def test_a_ratio_that_fell_fails_the_suite(built: Path, tmp_path: Path) -> None:
    """Against a baseline of this machine; one that held does not; one of another kernel is refused."""
    chosen = ("-k", "test_one_text and int8-8 or test_one_text and fp32-8")
    baseline = tmp_path / "baseline.json"
    first = _suite(built, *chosen, f"--benchmark-json={baseline}")
    assert 0 == first.returncode, first.stdout[-3000:]
    found = json.loads(baseline.read_text())

    def against(factor: float, kernel: str | None = None) -> subprocess.CompletedProcess[str]:
        changed = json.loads(baseline.read_text())
        for one in changed["benchmarks"]:
            one["extra_info"]["ratio"] *= factor
        changed["machine_info"]["kernel"] = kernel or changed["machine_info"]["kernel"]
        other = tmp_path / "other.json"
        other.write_text(json.dumps(changed))
        return _suite(built, *chosen, f"--benchmark-compare={other}")

    # Far from any noise: other tests may run beside this one.
    held, fell, foreign = against(0.1), against(10.0), against(1.0, "another")
    assert {"cpu", "isa", "kernel", "fingerprint"} <= found["machine_info"].keys()
    assert "node" not in found["machine_info"]
    assert (0, 1) == (held.returncode, fell.returncode), held.stdout[-2000:]
    assert "fell beyond its band" in held.stdout
    assert "times as fast as FP32, the baseline was" in fell.stdout
    assert 0 != foreign.returncode
    assert "the baseline ran on another" in foreign.stdout + foreign.stderr


def _suite(built: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # As a user starts it: pytest-benchmark measures nothing where it sees that it is a worker's.
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "bench", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=ROOT,
        env={**alone, **NO_TEXTS, "OV_MINILM_FP32": str(built / "fp32")},
        capture_output=True,
        text=True,
        check=False,
    )

"""Fixtures of the suite, and what makes its figures comparable: ratios to FP32, taken round by round.

    pytest bench                                                   tables
    pytest bench --benchmark-json=now.json                         every round, as JSON
    pytest bench --benchmark-compare=bench/results/suite-amx.json  exit 1 if a ratio fell beyond the band

Absolute times differ between machines and days. The ratio to an FP32 call made just before does not, so that
is what is compared. --benchmark-compare-fail goes on comparing times, as pytest-benchmark has it.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rungs import Contenders

from ov_minilm import TruncationWarning, cpus
from ov_minilm.bench import machine
from ov_minilm.bench.measure import REFERENCE
from ov_minilm.bench.workload import Workloads, workloads
from ov_minilm.runtime.embedder import Embedder

BAND = 0.15  # a ratio may fall by this share of the baseline's
SINGLE_BAND = 0.35  # for one text: FP32 alone swings from 2.0 to 2.8 ms between one minute and the next
BASELINE: pytest.StashKey[dict[str, Any]] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Say where FP32 and peers are, and how far a ratio may fall."""
    group = parser.getgroup("ov_minilm")
    group.addoption("--fp32", type=Path, help="FP32 artefact; default OV_MINILM_FP32, else out/fp32")
    group.addoption(
        "--peers", type=Path, help="run the ladder's foreign rungs too, from this folder of peers"
    )
    group.addoption(
        "--ratio-band", type=float, help=f"how far ratios may fall: {BAND}, one text {SINGLE_BAND}"
    )


@pytest.fixture(scope="session")
def fp32_folder(request: pytest.FixtureRequest) -> Path:
    """The FP32 artefact that everything is held to."""
    named = request.config.getoption("--fp32") or os.environ.get("OV_MINILM_FP32")
    folder = Path(named or request.config.rootpath / "out/fp32")
    if not folder.is_dir():
        pytest.skip(f"{folder}: no FP32 artefact; scripts/convert makes one, --fp32 names it")
    return folder


@pytest.fixture(scope="session")
def texts() -> Workloads:
    """What everybody encodes."""
    with Embedder.open(threads=1) as embedder:
        return workloads(embedder.count_tokens, short=4000, long=400)


@pytest.fixture(scope="session")
def contenders(fp32_folder: Path, request: pytest.FixtureRequest) -> Iterator[Contenders]:
    """Every rung of the ladder, opened when it is first asked for."""
    with Contenders(fp32_folder, request.config.getoption("--peers")) as found:
        yield found


@pytest.fixture
def race(benchmark: Any, contenders: Contenders) -> Callable[[str, Sequence[str], int], None]:
    """Time a rung on texts, each round just after FP32 on the same texts, and check what it returned."""

    def run(name: str, texts: Sequence[str], rounds: int) -> None:
        warnings.simplefilter("ignore", TruncationWarning)
        rung = contenders[name]
        expected, found = contenders[REFERENCE].vectors(texts), rung.vectors(texts)
        reference = contenders[REFERENCE].timed(texts)
        cosines = (expected.astype(np.float64) * found).sum(1)
        seconds: list[float] = []

        def before() -> None:
            started = time.perf_counter()
            reference()
            seconds.append(time.perf_counter() - started)

        benchmark.pedantic(rung.timed(texts), setup=before, rounds=rounds, warmup_rounds=1)
        if benchmark.enabled:
            mine = benchmark.stats.stats.data
            before_mine = seconds[-len(mine) :]
            benchmark.extra_info |= {
                "ratio": float(np.median([f / m for f, m in zip(before_mine, mine, strict=True)])),
                "p50_ms": 1000 * float(np.percentile(mine, 50)),
                "p95_ms": 1000 * float(np.percentile(mine, 95)),
                "p99_ms": 1000 * float(np.percentile(mine, 99)),
                "texts_per_s": len(texts) / float(np.median(mine)),
                "texts_per_s_per_thread": len(texts) / float(np.median(mine)) / cpus.granted(),
                "cosine": float(cosines.mean()),
            }
        assert cosines.min() > 0.95

    return run


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    """Keep what decides speed, and nothing that names a machine or its owner."""
    facts = machine.facts()
    del facts["load"]
    with Embedder.open() as embedder:
        info = embedder.info.as_dict()
    machine_info.clear()
    machine_info.update(
        facts | {name: info[name] for name in ("fingerprint", "precision", "lowering", "kernel")}
    )


def pytest_benchmark_update_commit_info(commit_info: dict[str, Any]) -> None:
    """Leave the commit out: the fingerprint and the versions say what ran."""
    commit_info.clear()


def pytest_benchmark_compare_machine_info(
    config: pytest.Config, machine_info: dict[str, Any], compared_benchmark: dict[str, Any]
) -> None:
    """Keep the baseline's ratios; refuse one of another kernel, whose ratios mean something else."""
    theirs, mine = (info.get("kernel") for info in (compared_benchmark["machine_info"], machine_info))
    if theirs != mine:
        raise pytest.UsageError(
            f"the baseline ran on {theirs}, this machine runs {mine}: compare like with like"
        )
    config.stash[BASELINE] = {
        found["fullname"]: found["extra_info"]["ratio"]
        for found in compared_benchmark["benchmarks"]
        if "ratio" in found["extra_info"]
    }


def _band(config: pytest.Config, name: str) -> float:
    asked: float | None = config.getoption("--ratio-band")
    return asked if asked is not None else SINGLE_BAND if "test_one_text" in name else BAND


def fallen(config: pytest.Config) -> list[str]:
    """List the benchmarks whose ratio fell below the baseline's beyond their band."""
    baseline = config.stash.get(BASELINE, {})
    ratios = {
        found.fullname: found.extra_info["ratio"]
        for found in config._benchmarksession.benchmarks  # type: ignore[attr-defined]  # pytest-benchmark's
        if "ratio" in found.extra_info
    }
    return [
        f"{name}: {ratios[name]:.2f} times as fast as FP32, the baseline was {baseline[name]:.2f} times"
        for name in sorted(baseline.keys() & ratios.keys())
        if ratios[name] < baseline[name] * (1 - _band(config, name))
    ]


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run for a ratio that fell."""
    if fallen(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Name the ratios that fell, or say how many held."""
    if BASELINE not in config.stash:
        return
    lines = fallen(config)
    terminalreporter.section("ratios to FP32 against the baseline")
    for line in lines or [f"none of {len(config.stash[BASELINE])} fell beyond its band"]:
        terminalreporter.write_line(line)

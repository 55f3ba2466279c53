"""`ov-minilm doctor`: all is well here, and each thing that is wrong is found, named and has a way out."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from support.processes import python, run

from ov_minilm.artefact.manifest import SHIPPED
from ov_minilm.doctor import judge_memory, memory_limit
from ov_minilm.runtime import cpus
from ov_minilm.runtime.cache import SUFFIX, Cache


def examine(
    *arguments: str | Path, environment: dict[str, str] | None = None
) -> tuple[int, dict[str, dict[str, Any]]]:
    """Run the command; return its exit code and the findings by topic."""
    done = run("doctor", "--json", *arguments, environment=environment)
    assert b"" == done.stderr
    return done.returncode, {finding["topic"]: finding for finding in json.loads(done.stdout)}


def wrong(findings: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The findings that make the exit code 1; each has a way out."""
    found = {topic: finding for topic, finding in findings.items() if finding["state"] == "wrong"}
    assert all(finding["fix"] for finding in found.values())
    return found


def test_a_machine_that_works(tmp_path: Path) -> None:
    """Exit 0, with kernels, devices, golden vector, speed both ways and memory as they are here."""
    code, findings = examine("--cache-dir", tmp_path / "cache")

    assert (0, {}) == (code, wrong(findings))
    topics = "threads cache versions devices cpu artefact plan golden speed memory".split()
    assert topics == list(findings)
    assert cpus.granted() == findings["threads"]["facts"]["granted"]
    assert "CPU" in findings["devices"]["facts"]
    assert findings["cpu"]["facts"]["int8"] in findings["cpu"]["text"]
    assert {"1x16", "2x256"} <= findings["golden"]["facts"].keys()
    assert min(findings["golden"]["facts"].values()) > 0.998
    assert {"int8 native", "int8 conv"} == findings["speed"]["facts"].keys()
    assert all(figures["texts_per_s"] > 1 for figures in findings["speed"]["facts"].values())


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells the peak of this process alone")
def test_the_memory_that_it_tells_is_what_a_process_takes() -> None:
    """The peak with every grid is that of another process after warm_up() and texts of all lengths."""
    done = python(
        "import re; from pathlib import Path; from ov_minilm import Embedder\n"
        "embedder = Embedder.open(memory_mb=256); embedder.warm_up()\n"
        "embedder.encode(['word ' * length for length in range(1, 254)], progress=False)\n"
        "print(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])"
    )

    _, findings = examine("--memory-mb", "256")

    peaks = list(findings["memory"]["facts"]["peaks"].values())
    assert sorted(peaks) == peaks
    assert findings["memory"]["facts"]["bytes"] == pytest.approx(int(done.stdout) * 1024, rel=0.15)
    assert f"{findings['memory']['facts']['bytes'] / 1e6:.0f} after texts" in findings["memory"]["text"]


@pytest.mark.parametrize(
    ("limit_mb", "asked_mb", "state", "fix"),
    [
        (None, None, "ok", ""),
        (900, None, "ok", ""),
        (
            600,
            None,
            "note",
            "pass --memory-mb 540 (memory_mb=540 to Embedder.open), or give the container more",
        ),
        (600, 540, "ok", ""),
        (
            600,
            560,
            "note",
            "pass --memory-mb 540 (memory_mb=540 to Embedder.open), or give the container more",
        ),
        (256, None, "wrong", "give the container 277 MB or more"),
    ],
)
def test_the_budget_that_fits_a_container(
    limit_mb: int | None, asked_mb: int | None, state: str, fix: str
) -> None:
    """Nine tenths of the limit, for all grids and a server, for what was asked for, or for the least."""
    peaks = {"open": 110, "first_text": 160, "lists": 200, "all_grids": 670}
    limit = None if limit_mb is None else limit_mb * 10**6

    found = judge_memory({name: mb * 10**6 for name, mb in peaks.items()}, limit, 184, asked_mb)

    assert (state, fix) == (found.state, found.fix)
    assert "670 after texts of all lengths" in found.text


@pytest.mark.parametrize(
    ("group", "files", "expected"),
    [
        ("0::/", {"memory.max": "max\n"}, None),
        ("0::/a/b", {"a/b/memory.max": "300\n", "a/memory.max": "200\n", "memory.max": "max\n"}, 200),
        ("0::/elsewhere", {"memory.max": "500\n"}, 500),  # in a container
        ("4:memory:/a", {"memory/a/memory.limit_in_bytes": "400\n"}, 400),
        ("4:memory:/", {"memory/memory.limit_in_bytes": f"{2**63 - 4096}\n"}, None),
        ("3:cpu:/", {"memory/memory.limit_in_bytes": "100\n"}, None),
    ],
)
def test_the_limit_of_a_container(
    group: str, files: dict[str, str], expected: int | None, tmp_path: Path
) -> None:
    """The tightest limit of both versions of cgroups counts; none is None."""
    placed = {f"sys/fs/cgroup/{name}": said for name, said in files.items()}
    for name, said in {"proc/self/cgroup": f"{group}\n", **placed}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(said)

    assert expected == memory_limit(tmp_path)


def test_a_table_for_people() -> None:
    """Without --json each finding is a line, and a fix follows the one it belongs to."""
    done = run("doctor", "--device", "NPU.7", "--threads", "4096")

    lines = done.stdout.decode().splitlines()
    assert 1 == done.returncode
    assert lines[0].startswith("wrong  threads   4096 threads for ")
    assert "-> pass threads=" in lines[1]
    assert lines[-2].startswith("wrong  plan      device 'NPU.7' is not available; this machine has ")


def test_the_model_has_its_usual_name() -> None:
    """Its own name is the model in the package."""
    _, findings = examine("--model", "all-MiniLM-L6-v2", "--device", "NPU.7")

    assert "ok" == findings["artefact"]["state"]


def test_the_variable_counts_as_asked_for() -> None:
    """OV_MINILM_THREADS above what is granted is as wrong as --threads, and one that is no number too."""
    for said, text in (("4096", "4096 threads for"), ("many", "OV_MINILM_THREADS='many'")):
        _, findings = examine("--device", "NPU.7", environment={cpus.VARIABLE: said})

        assert text in wrong(findings)["threads"]["text"]


def test_a_damaged_artefact_is_named(tmp_path: Path) -> None:
    """One changed byte is found by its file."""
    folder = tmp_path / "model"
    shutil.copytree(SHIPPED, folder)
    data = bytearray((folder / "model.bin").read_bytes())
    data[1000] ^= 1
    (folder / "model.bin").write_bytes(data)

    code, findings = examine("--model", folder)

    assert (1, ["artefact"]) == (code, list(wrong(findings)))
    assert "model.bin" in findings["artefact"]["text"]


def test_a_wrong_golden_vector_is_found(tmp_path: Path) -> None:
    """An artefact that does not give the vector of its manifest fails, with the grid and the cosine."""
    folder = tmp_path / "model"
    shutil.copytree(SHIPPED, folder)
    raw = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    raw["golden"]["ids"][3] += 1
    (folder / "manifest.json").write_text(json.dumps(raw), encoding="utf-8")

    code, findings = examine("--model", folder)

    assert 1 == code
    assert "gives wrong vectors: cosine" in wrong(findings)["golden"]["text"]


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals on Windows")
def test_a_crash_of_openvino_is_a_finding(tmp_path: Path) -> None:
    """Where OpenVINO dies of SIGFPE, as it can on some CPUs, doctor lives and says what to try."""
    (tmp_path / "openvino.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGFPE)\n")

    code, findings = examine(environment={"PYTHONPATH": str(tmp_path)})

    assert (1, "crashed with SIGFPE at its start") == (code, wrong(findings)["openvino"]["text"])


def test_an_installation_without_openvino_is_a_finding(tmp_path: Path) -> None:
    """What Python says when it cannot import it is passed on."""
    (tmp_path / "openvino.py").write_text("raise ImportError('libopenvino.so: cannot open')\n")

    code, findings = examine(environment={"PYTHONPATH": str(tmp_path)})

    assert 1 == code
    assert "libopenvino.so: cannot open" in wrong(findings)["openvino"]["text"]


def test_a_cache_that_is_damaged_or_unusable_is_found(tmp_path: Path) -> None:
    """Damaged models, and a folder that cannot be one."""
    Cache(tmp_path / "cache", {}).store("1x16", {}, b"blob")
    (entry,) = (tmp_path / "cache").glob(f"*{SUFFIX}")
    entry.write_bytes(entry.read_bytes()[:-1])
    early = {"--device": "NPU.7"}  # ends before the long part

    found = [
        examine("--cache-dir", folder, *next(iter(early.items())))[1]["cache"]
        for folder in (tmp_path / "cache", entry)
    ]

    assert ["wrong", "wrong"] == [finding["state"] for finding in found]
    assert entry.name in found[0]["text"]
    assert "cannot be written" in found[1]["text"]
    assert all(finding["fix"] for finding in found)


def test_a_limit_on_instruction_sets_is_noted() -> None:
    """A variable that holds OpenVINO back is named, and is no reason to fail."""
    _, findings = examine("--device", "NPU.7", environment={"ONEDNN_MAX_CPU_ISA": "AVX2"})

    assert "note" == findings["cpu"]["state"]
    assert "ONEDNN_MAX_CPU_ISA=AVX2 is set" in findings["cpu"]["text"]


@pytest.mark.slow
@pytest.mark.convert
def test_fp32_joins_the_race(built: Path) -> None:
    """With --reference the speed of FP32 stands beside that of INT8."""
    code, findings = examine("--reference", built / "fp32")

    assert 0 == code
    assert {"int8 native", "int8 conv", "fp32"} == findings["speed"]["facts"].keys()

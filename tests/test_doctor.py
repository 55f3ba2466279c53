"""`ov-minilm doctor`: a working machine passes; each problem is found and named, with a fix."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.processes import python, run

from ov_minilm.artefact.manifest import SHIPPED
from ov_minilm.doctor import judge_memory, memory_limit
from ov_minilm.runtime import cpus
from ov_minilm.runtime.cache import SUFFIX, Cache

FROZEN = Path(__file__).parent / "frozen/0.1.0/artefact"  # a small model, examined in seconds


def diagnose(*arguments: str | Path, **environment: str) -> tuple[list[str], dict[str, Any]]:
    """Run the command; return the topics that are wrong, each with a fix, and all findings by topic."""
    result = run("doctor", "--json", *arguments, environment=environment)
    findings = {finding["topic"]: finding for finding in json.loads(result.stdout)}
    wrong_topics = [topic for topic, finding in findings.items() if finding["state"] == "wrong"]
    assert (b"", int(bool(wrong_topics))) == (result.stderr, result.returncode)
    assert all(findings[topic]["fix"] for topic in wrong_topics)
    return wrong_topics, findings


@pytest.mark.parametrize("model", [FROZEN, pytest.param(SHIPPED, marks=pytest.mark.slow)], ids=["small", ""])
def test_a_working_machine_has_no_finding(model: Path) -> None:
    """The exit code is 0; kernels, devices, self-check, speed and memory describe this machine."""
    wrong_topics, findings = diagnose("--model", model, "--memory-mb", "256")
    facts = {topic: finding["facts"] for topic, finding in findings.items()}

    assert [] == wrong_topics
    assert "threads versions devices cpu artefact plan golden speed memory".split() == list(findings)
    assert cpus.available_cpus() == facts["threads"]["available"]
    assert "CPU" in facts["devices"]
    assert facts["cpu"]["int8"] in findings["cpu"]["text"]
    assert {"1x64", "8x64"} <= facts["golden"].keys()
    assert min(facts["golden"].values()) > 0.998
    assert {"int8 native", "int8 conv"} == facts["speed"].keys()
    assert all(figures["texts_per_s"] > 1 for figures in facts["speed"].values())
    assert sorted(facts["memory"]["peaks"].values()) == list(facts["memory"]["peaks"].values())
    assert f"{facts['memory']['bytes'] / 1e6:.0f} after texts of all lengths" in findings["memory"]["text"]
    if sys.platform == "linux":  # /proc has the peak memory of a process
        peak = python(
            "import re, warnings; from pathlib import Path; from ov_minilm import Embedder\n"
            "warnings.simplefilter('ignore')  # the small model truncates\n"
            f"embedder = Embedder.open({str(model)!r}, memory_mb=256); embedder.warm_up()\n"
            "embedder.encode(['word ' * length for length in range(1, 254)], progress=False)\n"
            "print(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])"
        )
        assert facts["memory"]["bytes"] == pytest.approx(int(peak.stdout) * 1024, rel=0.15)


REDUCE_BUDGET = "pass --memory-mb 540 (memory_mb=540 to Embedder.open), or give the container more"


@pytest.mark.parametrize(
    ("limit_mb", "asked_mb", "state", "fix"),
    [
        (None, None, "ok", ""),
        (900, None, "ok", ""),
        (600, None, "note", REDUCE_BUDGET),
        (600, 540, "ok", ""),
        (600, 560, "note", REDUCE_BUDGET),
        (256, None, "wrong", "give the container 277 MB or more"),
    ],
)
def test_memory_is_judged_by_the_limit(limit_mb: Any, asked_mb: int | None, state: str, fix: str) -> None:
    """90 % of the memory limit may hold all grids, only some (then --memory-mb), or too few."""
    peaks = {"open": 110 * 10**6, "first_text": 160 * 10**6, "lists": 200 * 10**6, "all_grids": 670 * 10**6}

    actual = judge_memory(peaks, limit_mb and limit_mb * 10**6, 184, asked_mb)

    assert (state, fix) == (actual.state, actual.fix)
    assert "670 after texts of all lengths" in actual.text


@pytest.mark.parametrize(
    ("group", "files", "expected"),
    [
        ("0::/", {"memory.max": "max"}, None),
        ("0::/a/b", {"a/b/memory.max": "300", "a/memory.max": "200", "memory.max": "max"}, 200),
        ("0::/elsewhere", {"memory.max": "500"}, 500),  # the group as seen in a container
        ("4:memory:/a", {"memory/a/memory.limit_in_bytes": "400"}, 400),
        ("4:memory:/", {"memory/memory.limit_in_bytes": f"{2**63 - 4096}"}, None),
        ("3:cpu:/", {"memory/memory.limit_in_bytes": "100"}, None),
    ],
)
def test_the_tightest_limit_is_found(
    group: str, files: dict[str, str], expected: Any, tmp_path: Path
) -> None:
    """The smallest memory limit of the cgroup and its parents counts, in cgroup v1 and v2."""
    system_files = {f"sys/fs/cgroup/{name}": content for name, content in files.items()}
    for name, content in {"proc/self/cgroup": group, **system_files}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{content}\n")

    assert expected == memory_limit(tmp_path)


def test_wrong_options_and_a_damaged_cache_are_found(tmp_path: Path) -> None:
    """Too many threads, a damaged cache or a missing device is wrong; a limited ISA is a note."""
    Cache(tmp_path, {}).store("1x16", {}, b"blob")
    (entry,) = tmp_path.glob(f"*{SUFFIX}")
    _, findings = diagnose("--device", "NPU.7", "--cache-dir", tmp_path)
    assert "1 models, 0 MB, none damaged" in findings["cache"]["text"]
    entry.write_bytes(entry.read_bytes()[:-1])
    variables = {cpus.VARIABLE: "4096", "ONEDNN_MAX_CPU_ISA": "AVX2"}

    options = "--model", "all-MiniLM-L6-v2", "--device", "NPU.7", "--cache-dir", tmp_path
    wrong, findings = diagnose(*options, **variables)
    table = run("doctor", "--device", "NPU.7", "--cache-dir", entry, environment={cpus.VARIABLE: "many"})

    assert ["threads", "cache", "plan"] == wrong
    assert "4096 threads for " in findings["threads"]["text"]
    assert entry.name in findings["cache"]["text"]
    assert ("note", "ok") == (findings["cpu"]["state"], findings["artefact"]["state"])
    assert "ONEDNN_MAX_CPU_ISA=AVX2 is set" in findings["cpu"]["text"]
    assert "device 'NPU.7' is not available; this machine has " in findings["plan"]["text"]
    threads, fix, cache, *_, plan, _ = table.stdout.decode().splitlines()
    assert threads.startswith(f"wrong  threads   {cpus.VARIABLE}='many'")
    assert fix.strip().startswith("-> unset ")
    assert cache.startswith(f"wrong  cache     {entry} cannot be written")
    assert plan.startswith("wrong  plan      ")


def change_golden_text(data: bytes) -> bytes:
    """Change a token of the golden text in a manifest."""
    raw = json.loads(data)
    raw["golden"]["ids"][3] += 1
    return json.dumps(raw).encode()


@pytest.mark.parametrize(
    ("option", "file", "damage", "topic", "text"),
    [
        ("--model", "model.bin", bytes.swapcase, "artefact", "model.bin: expected "),
        ("--model", "manifest.json", change_golden_text, "golden", "gives wrong vectors: cosine"),
        ("--reference", "manifest.json", bytes.upper, "artefact", "manifest.json: "),
    ],
    ids=["weights", "golden", "reference"],
)
def test_a_damaged_model_is_a_finding(
    option: str, file: str, damage: Callable[[bytes], bytes], topic: str, text: str, tmp_path: Path
) -> None:
    """The finding names the file of changed weights, or grid and cosine of a wrong vector."""
    folder = shutil.copytree(SHIPPED, tmp_path / "model")
    (folder / file).write_bytes(damage((folder / file).read_bytes()))

    wrong, findings = diagnose(option, folder)

    assert ([topic], topic) == (wrong, list(findings)[-1])
    assert text in findings[topic]["text"]


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals on Windows")
@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGFPE)", "crashed with SIGFPE at its start"),
        ("raise ImportError('libopenvino.so: cannot open')", "libopenvino.so: cannot open"),
    ],
)
def test_an_openvino_that_does_not_load_is_a_finding(module: str, text: str, tmp_path: Path) -> None:
    """The import of OpenVINO may fail, or crash as on some CPUs; both are findings."""
    (tmp_path / "openvino.py").write_text(module)

    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    wrong, findings = diagnose(PYTHONPATH=path)

    assert ["openvino"] == wrong
    assert text in findings["openvino"]["text"]


@pytest.mark.slow
@pytest.mark.convert
def test_a_reference_is_timed_too(built: Path) -> None:
    """With --reference, the speed of FP32 is measured too."""
    wrong, findings = diagnose("--reference", built / "fp32")

    assert [] == wrong
    assert {"int8 native", "int8 conv", "fp32"} == findings["speed"]["facts"].keys()

"""Checks a machine: speed, memory and correct vectors; says how to fix problems.

OpenVINO runs in a child process. If OpenVINO crashes while it compiles, the crash becomes a finding, and the
report goes on. The child prints each finding at once, as a line of JSON.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ov_minilm._version import __version__
from ov_minilm.errors import ArtefactError, CacheWarning, OvMiniLMError
from ov_minilm.files import atomic_write
from ov_minilm.runtime import cpus
from ov_minilm.spec import LONG_TEXT_TOKENS, Grid

if TYPE_CHECKING:
    from ov_minilm.runtime.embedder import Embedder
    from ov_minilm.runtime.plan import Kernels

CHILD_TIMEOUT_S = 300  # a child process that takes longer is killed, because some kernels hang
TEXTS_PER_ROUND, ROUNDS, SINGLE_CALLS = 128, 5, 40  # texts, rounds and calls in each speed test
SERVER_MB = 65  # memory that `serve` needs under load in addition to its Embedder
LIMIT_SHARE = 0.9  # share of a container's memory that a process may use
UNLIMITED_BYTES = 1 << 60  # in cgroup v1, a number of this size or larger means "no limit"
MIN_SPEED_RATIO = 0.9  # doctor reports a configuration that is slower than this share of the fastest

KERNELS = {  # part of a kernel's name -> instruction set; the first entry that matches counts
    "amx": "AMX",
    "brgemm_avx512": "AVX-512 VNNI",
    "brgemm_avx2": "AVX-VNNI",
    "": "AVX2 (no VNNI)",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    topic: str
    state: Literal["ok", "note", "wrong"]
    text: str
    fix: str = ""
    facts: dict[str, Any] | None = None


def examine(options: Mapping[str, Any], *, reference: Path | None = None) -> list[Finding]:
    """Return the findings of all checks, in the order of the report.

    Args:
        options: the options of Embedder.open.
        reference: an FP32 artefact to compare the speed with.
    """
    findings = [_threads(options.get("threads"))]
    findings += _in_a_child("probe", options, reference)
    if findings[-1].topic == "speed":  # the first child completed every check
        findings += _in_a_child("probe_memory", options, reference)
    return findings


def _threads(requested: int | None) -> Finding:
    """Compare the number of threads with the CPUs that the affinity mask and the cgroup quota allow."""
    available, cpu_count = cpus.available_cpus(), os.cpu_count() or 1
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    try:
        running = cpus.threads(requested)
    except ValueError as error:
        return Finding("threads", "wrong", str(error), f"unset {cpus.VARIABLE}, or pass a number")
    details = {"available": available, "cpus": cpu_count, "running": running, "load": round(load, 2)}
    text = f"{running} of {cpu_count} CPUs"
    if running > available:
        fix = f"pass threads={available}, or give the container more CPUs"
        return Finding("threads", "wrong", f"{running} threads for {available} CPUs", fix, details)
    if available < cpu_count:
        text += "; the affinity mask or the cgroup quota does not allow more"
    if load > cpu_count:
        fix = "run again when the machine is idle: the speed below is too low"
        return Finding(
            "threads", "note", f"{text}; other processes use them too, load {load:.1f}", fix, details
        )
    return Finding("threads", "ok", text, facts=details)


def _cache(folder: Path) -> Finding:
    """Check that the cache is writable, and the checksums of the models in it."""
    from ov_minilm.runtime.cache import SUFFIX, has_valid_hash

    models = [path for path in folder.rglob(f"*{SUFFIX}") if path.is_file()]
    damaged = [path for path in models if not has_valid_hash(path)]
    size = sum(path.stat().st_size for path in models)
    details = {
        "folder": str(folder),
        "models": len(models),
        "bytes": size,
        "damaged": [str(p) for p in damaged],
    }
    if damaged:
        return Finding(
            "cache",
            "wrong",
            f"{len(damaged)} of {len(models)} models are damaged: {damaged[0].name}",
            f"delete {folder}; check the disk if it happens again",
            details,
        )
    probe = folder / ".doctor"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(probe) as file:
            file.write(bytes(1 << 20))
        probe.unlink()
    except OSError as error:
        fix = "use a folder that this user can write, on a disk with 200 MB free"
        return Finding("cache", "wrong", f"{folder} cannot be written ({error.strerror})", fix, details)
    return Finding(
        "cache", "ok", f"{folder}: {len(models)} models, {size / 1e6:.0f} MB, none damaged", facts=details
    )


def _in_a_child(function: str, options: Mapping[str, Any], reference: Path | None) -> list[Finding]:
    arguments = json.dumps({"options": options, "reference": reference}, default=str)
    command = [
        sys.executable,
        "-c",
        f"import sys; from ov_minilm import doctor; doctor.{function}(sys.argv[1])",
    ]
    with subprocess.Popen(
        [*command, arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    ) as child:
        try:
            out, err = child.communicate(timeout=CHILD_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            out, err = child.communicate()
            err = f"no result within {CHILD_TIMEOUT_S} s\n"
    findings = [Finding(**json.loads(line)) for line in out.splitlines()]
    if child.returncode != 0:
        findings.append(_crash(child.returncode, err, findings))
    return findings


def _crash(code: int, err: str, findings: Sequence[Finding]) -> Finding:
    """Return the finding about a child that crashed or failed."""
    moment = f"after {findings[-1].topic}" if findings else "at its start"
    last = (err.strip().splitlines() or [""])[-1]
    if code < 0 and not last.startswith("no result"):
        name = signal.Signals(-code).name
        fix = "set ONEDNN_MAX_CPU_ISA=AVX2 and try again, or install another version of openvino"
        return Finding("openvino", "wrong", f"crashed with {name} {moment}", fix, {"signal": name})
    return Finding(
        "openvino",
        "wrong",
        f"failed {moment}: {last}",
        "reinstall ov-minilm; if the message appears again, report it",
    )


def probe(arguments: str) -> None:
    """Print the findings of `examine` that need OpenVINO, as lines of JSON. Runs in a child process."""
    request = json.loads(arguments)
    warnings.simplefilter("ignore", CacheWarning)  # the check of the cache reports such problems
    for finding in _probe(request["options"], request["reference"]):
        print(json.dumps(asdict(finding)), flush=True)  # noqa: T201  # read by the parent


def _probe(options: dict[str, Any], reference: str | None) -> Iterator[Finding]:
    from ov_minilm.artefact.location import find_model
    from ov_minilm.artefact.manifest import Manifest

    # imported here and not at the top, because importing OpenVINO may crash
    from ov_minilm.runtime.embedder import Embedder
    from ov_minilm.runtime.engine import survey

    if options["cache_dir"] is not None:
        yield _cache(Path(options["cache_dir"]))
    version, devices, kernels = survey()
    yield _versions(version)
    listed = ", ".join(f"{name} ({full_name})" for name, full_name in devices.items())
    yield Finding("devices", "ok", listed, facts=devices)
    yield _cpu(kernels)

    try:
        folder = find_model(options["model"])
        manifest = Manifest.read(folder)
        if reference is not None:
            Manifest.read(Path(reference))
    except ArtefactError as error:
        yield Finding("artefact", "wrong", str(error), "reinstall ov-minilm, or run ov-minilm convert again")
        return
    hashes = {name: facts.sha256 for name, facts in manifest.files.items()}
    yield Finding(
        "artefact",
        "ok",
        f"{folder}: {manifest.weights} {manifest.fingerprint}, {len(hashes)} files match their hashes",
        facts={"fingerprint": manifest.fingerprint, "sha256": hashes},
    )
    with ExitStack() as stack:
        try:
            embedder = stack.enter_context(Embedder.open(**options))
        except (OvMiniLMError, ValueError) as error:
            yield Finding("plan", "wrong", str(error), "change the option that the message names")
            return
        info = embedder.info
        yield Finding(
            "plan",
            "ok",
            f"{info.device}, {info.weights} {info.lowering}, {info.precision} "
            f"({info.long_precision} for texts over {LONG_TEXT_TOKENS} tokens), {info.threads} threads",
            facts=info.as_dict(),
        )
        golden = _golden(embedder)
        yield golden
        if golden.state == "wrong":
            return  # the other configurations would fail the same check
        configurations = {f"{info.weights} {info.lowering}": embedder}
        if info.weights == "int8" and info.device == "CPU":
            other = "native" if info.lowering == "conv" else "conv"
            configurations[f"int8 {other}"] = stack.enter_context(
                Embedder.open(**{**options, "lowering": other})
            )
        if reference is not None:
            fp32 = {**options, "model": reference, "precision": "f32", "lowering": "auto"}
            configurations["fp32"] = stack.enter_context(Embedder.open(**fp32))
        yield _speed(configurations, manifest.golden.text)


def _versions(openvino: str) -> Finding:
    """Return the installed versions and the system."""
    system = f"{platform.system()} {platform.machine()}"
    facts = {"ov-minilm": __version__, "openvino": openvino, "python": platform.python_version()}
    text = ", ".join(f"{name} {number}" for name, number in facts.items())
    return Finding("versions", "ok", f"{text}, {system}", facts=facts | {"system": system})


def _cpu(kernels: Kernels) -> Finding:
    """Return the instruction sets that OpenVINO's kernels use, and whether a variable limits them."""
    family = next(family_name for part, family_name in KERNELS.items() if part in kernels.int8)
    bf16 = "BF16 native" if kernels.native_bf16 else "no BF16"
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "ALL")
    details = asdict(kernels) | {"family": family, "native_bf16": kernels.native_bf16, "limit": limit}
    text = f"INT8 on {family} ({kernels.int8}), {bf16}"
    if limit not in ("ALL", "DEFAULT"):
        fix = "unset it if this CPU supports more and nothing crashes"
        return Finding("cpu", "note", f"{text}; ONEDNN_MAX_CPU_ISA={limit} is set", fix, details)
    return Finding("cpu", "ok", text, facts=details)


def _golden(embedder: Embedder) -> Finding:
    """Check a known vector in every input shape."""
    try:
        cosines = embedder.warm_up()
    except OvMiniLMError as error:
        fix = "do not use these vectors; try --device CPU, or another version of openvino or of the driver"
        return Finding("golden", "wrong", str(error), fix)
    lowest = min(cosines.values())
    text = f"all {len(cosines)} input shapes reproduce a known vector: cosine {lowest:.4f} or more"
    return Finding("golden", "ok", text, facts=cosines)


def _speed(configurations: Mapping[str, Embedder], text: str) -> Finding:
    """Compare the speed of configurations, which take turns. The first configuration is the one in use."""
    rates: dict[str, list[float]] = {name: [] for name in configurations}
    times: dict[str, list[float]] = {name: [] for name in configurations}
    for round_ in range(ROUNDS + 1):
        for name, embedder in configurations.items():
            seconds = [_time(embedder, [f"{number}: {text}" for number in range(TEXTS_PER_ROUND)])]
            singles = [_time(embedder, [text]) for _ in range(SINGLE_CALLS // ROUNDS)]
            if round_:  # the first round compiles
                rates[name] += [TEXTS_PER_ROUND / second for second in seconds]
                times[name] += singles
    facts = {
        name: {
            "texts_per_s": round(statistics.median(rates[name]), 1),
            "ms": round(1000 * statistics.median(times[name]), 2),
        }
        for name in configurations
    }
    summary = "; ".join(
        f"{name} {figures['texts_per_s']:.0f} texts/s, {figures['ms']:.1f} ms for one text"
        for name, figures in facts.items()
    )
    chosen, *others = facts.values()
    best = max((figures["texts_per_s"] for figures in others), default=0.0)
    if chosen["texts_per_s"] < MIN_SPEED_RATIO * best:
        fix = "try lowering= or precision= of Embedder.open; measure with `ov-minilm bench`"
        return Finding("speed", "note", f"{summary}; the configuration in use is not the fastest", fix, facts)
    return Finding("speed", "ok", summary, facts=facts)


def _time(embedder: Embedder, texts: list[str]) -> float:
    started = time.perf_counter()
    embedder.encode(texts, progress=False)
    return time.perf_counter() - started


def probe_memory(arguments: str) -> None:
    """Print the finding about memory, as a line of JSON. Runs in a child process."""
    options = json.loads(arguments)["options"]
    print(json.dumps(asdict(_memory(options, memory_limit()))), flush=True)  # noqa: T201  # to the parent


def _memory(options: dict[str, Any], limit: int | None) -> Finding:
    """Measure the peak memory of this process, and compare it with a limit in bytes."""
    if importlib.util.find_spec("resource") is None:  # Windows
        return Finding("memory", "ok", "not measured on this system")
    from ov_minilm.artefact.location import find_model
    from ov_minilm.artefact.manifest import Manifest
    from ov_minilm.runtime.embedder import Embedder
    from ov_minilm.runtime.plan import memory

    # numbered, because equal texts would be computed once
    short = [f"sentence {number} of a list" for number in range(512)]
    long_texts = [f"{number}: " + "word " * length for number in range(8) for length in range(0, 250, 5)]
    peaks: dict[str, int] = {}
    manifest = Manifest.read(find_model(options["model"]))
    with Embedder.open(**options) as embedder:
        peaks["open"] = _peak()
        embedder.encode(short[0])
        peaks["first_text"] = _peak()
        embedder.encode(short, progress=False)
        peaks["lists"] = _peak()
        embedder.warm_up()
        for long_text in long_texts[:50]:
            embedder.encode(long_text)
        embedder.encode(long_texts, progress=False)
        peaks["all_grids"] = _peak()
        grids = [Grid(*map(int, name.split("x"))) for name in embedder.info.grids]
        least_mb = memory(manifest, grids[:2], embedder.info.threads)
    return judge_memory(peaks, limit, least_mb, options["memory_mb"])


def judge_memory(peaks: Mapping[str, int], limit: int | None, least_mb: int, asked_mb: int | None) -> Finding:
    """Return the finding about memory: the peaks, and which `--memory-mb` fits the container.

    Args:
        peaks: bytes of resident memory after each kind of work, in order.
        limit: bytes that the container may use; None: no limit.
        least_mb: the smallest valid memory_mb.
        asked_mb: the memory_mb with which the peaks were measured; None: without a limit.
    """
    text = (
        "peak {open:.0f} MB when opened, {first_text:.0f} after one text, {lists:.0f} after a list of short "
        "texts, {all_grids:.0f} after texts of all lengths; a server needs {server} MB more"
    ).format(server=SERVER_MB, **{name: peak / 1e6 for name, peak in peaks.items()})
    facts = {"bytes": peaks["all_grids"], "peaks": peaks, "limit": limit}
    if limit is None:
        return Finding("memory", "ok", f"{text}; no container limit", facts=facts)
    budget = int(LIMIT_SHARE * limit / 1e6)
    facts["budget_mb"] = budget
    text += f"; the container's limit is {limit / 1e6:.0f} MB"
    if budget >= min(asked_mb or math.inf, peaks["all_grids"] / 1e6 + SERVER_MB):
        return Finding("memory", "ok", text, facts=facts)
    if budget < least_mb + SERVER_MB:
        fix = f"give the container {math.ceil((least_mb + SERVER_MB) / LIMIT_SHARE)} MB or more"
        return Finding("memory", "wrong", text, fix, facts)
    fix = f"pass --memory-mb {budget} (memory_mb={budget} to Embedder.open), or give the container more"
    return Finding("memory", "note", text, fix, facts)


def memory_limit(root: Path = Path("/")) -> int | None:
    """Return the memory limit of this process in bytes, the lowest of its cgroups; None: no limit.

    Args:
        root: root of the file system.
    """
    files = [
        folder / ("memory.max" if v2 else "memory.limit_in_bytes")
        for v2, folder in cpus.cgroup_folders("memory", root)
    ]
    values = [file.read_text(encoding="ascii") for file in files if file.is_file()]
    found = min((int(value) for value in values if value.strip() != "max"), default=UNLIMITED_BYTES)
    return None if found >= UNLIMITED_BYTES else found


def _peak() -> int:
    import resource  # Windows has no such module

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

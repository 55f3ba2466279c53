"""One benchmark from its options to its result: who takes part, what is measured beside the rounds."""

from __future__ import annotations

import dataclasses
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ov_minilm.artefact.manifest import SHIPPED, Manifest
from ov_minilm.bench import peers, startup
from ov_minilm.bench.contender import Contender, ours
from ov_minilm.bench.measure import FULL, OURS, QUICK, REFERENCE, Progress, measure
from ov_minilm.bench.ours import RUNGS
from ov_minilm.bench.roofline import roofline
from ov_minilm.bench.workload import Workloads, workloads
from ov_minilm.drift import evaluation
from ov_minilm.drift.compare import compare, lowerings
from ov_minilm.errors import TruncationWarning
from ov_minilm.runtime import cpus
from ov_minilm.runtime.embedder import Embedder

FP32_MISSING = "no FP32 artefact: make one with `ov-minilm convert`, and name it with --reference"


@dataclass(frozen=True, slots=True)
class Options:
    """What the user asked for."""

    model: Path | None = None  # None: the artefact in the package
    reference: Path | None = None  # the FP32 artefact, None: there is none
    full: bool = False
    peers: Path | None = None  # a folder of peers
    checkpoint: str | None = None  # from which peers get their model files
    only: tuple[str, ...] = ()
    threads: int | None = None
    rounds: int | None = None


def run(options: Options, progress: Progress) -> dict[str, Any]:
    """Measure what the options say and return plain values for JSON.

    Raises:
        ValueError: `only` names a contender that does not exist.
        ArtefactError: the model or the reference is not a complete, unchanged artefact.
    """
    warnings.simplefilter("ignore", TruncationWarning)
    threads = options.threads or cpus.granted()
    manifest = Manifest.read(options.model or SHIPPED)
    effort = FULL if options.full else QUICK
    if options.rounds:
        effort = replace(effort, rounds=options.rounds)
    contenders, unavailable = line_up(options, progress)
    with Embedder.open(options.model, threads=1) as embedder:
        texts = workloads(embedder.count_tokens, short=1024, long=64)
    result = measure(contenders, texts, effort, threads, unavailable=unavailable, progress=progress)
    result |= {"artefact": manifest.fingerprint, "mode": "full" if options.full else "quick"}
    try:
        if not result["interrupted"]:
            _beside(result, options, contenders, texts, threads, progress)
    except KeyboardInterrupt:
        result["interrupted"] = True
    return result


def line_up(options: Options, progress: Progress) -> tuple[list[Contender], dict[str, str]]:
    """List who takes part, and who cannot and why."""
    models = {"int8": str(options.model or ""), "fp32": str(options.reference or "")}
    names = list(RUNGS) if options.full else [REFERENCE, OURS]
    contenders = {name: ours(name, RUNGS[name].title, models) for name in names}
    unavailable: dict[str, str] = {}
    if options.reference is None:
        without = [name for name in contenders if RUNGS[name].weights == "fp32"]
        unavailable |= dict.fromkeys(without, FP32_MISSING)
    if options.peers:
        found = peers.discover(options.peers)
        names = [f"{peer.name}/{variant}" for peer in found for variant in peer.variants]
        _check_only(options.only, [*contenders, *names])  # before minutes of installing
        wanted = [
            p for p in found if not options.only or any(f"{p.name}/{v}" in options.only for v in p.variants)
        ]
        ready = peers.ready(wanted, options.peers / ".peers", options.checkpoint, progress.say)
        contenders = {k: c for k, c in ready.items() if isinstance(c, Contender)} | contenders
        unavailable |= {name: reason for name, reason in ready.items() if isinstance(reason, str)}
    _check_only(options.only, [*contenders, *unavailable])
    return [
        contender
        for name, contender in contenders.items()
        if name not in unavailable and (not options.only or name in (*options.only, REFERENCE, OURS))
    ], unavailable


def _check_only(only: Sequence[str], known: Sequence[str]) -> None:
    for name in only:
        if name not in known:
            raise ValueError(f"no contender {name!r}; there are {', '.join(dict.fromkeys(known))}")


def _beside(
    result: dict[str, Any],
    options: Options,
    contenders: Sequence[Contender],
    texts: Workloads,
    threads: int,
    progress: Progress,
) -> None:
    """Measure what is not a race: start-up, and with --full threads, compile times, drift and roofline."""
    progress.say("start-up")
    result["startup"] = startup.startup(5 if options.full else 3)
    if not options.full:
        return
    progress.say("compile times and threads")
    result["compile_s"] = startup.compile_seconds(options.model, threads)
    mine = next(contender for contender in contenders if contender.name == OURS)
    with tempfile.TemporaryDirectory() as folder:
        result["scaling"] = startup.scaling(mine, texts.bulk["short"].texts, threads, Path(folder))
    data = evaluation.find([], [])
    if options.reference and not data.empty:
        progress.say("drift")
        found = compare(
            options.model, options.reference, data, ways=lowerings(options.model), threads=threads
        )
        result["drift"] = [dataclasses.asdict(one) for one in found]
    progress.say("roofline")
    sentences = texts.bulk["short"].texts
    result["roofline"] = dataclasses.asdict(roofline(options.model, options.reference, sentences, threads))

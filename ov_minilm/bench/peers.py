"""Other libraries that run the same model: described by data, installed once, started as contenders.

A peer is a folder with peer.json, what it requires, and an adapter; see bench/peers/README.md. Whatever it
writes lies under a cache folder: environments by the hash of what they hold, model files by the hash of
what made them, and a home folder of its own, in which the telemetry of openvino is declined.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ov_minilm.bench.contender import WORKER, Contender
from ov_minilm.convert import source
from ov_minilm.convert.calibrate import CALIBRATION
from ov_minilm.errors import SourceRefused

FACTS = "peer.json"
GIVEN = ("checkpoint", "texts")  # what a peer can need that no peer makes

# Nothing is fetched and nothing is reported while a peer prepares or runs.
SILENCE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "ANONYMIZED_TELEMETRY": "False",  # chromadb
    "NNCF_CI": "1",  # nncf then builds a stub
    "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime, on in its official builds
}

Say = Callable[[str], None]
Steps = tuple[tuple[str, ...], ...]


class Unavailable(Exception):
    """A peer cannot take part; the message is one line: what failed, and how to see to it."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """What a peer of one language is made of."""

    requirements: str
    adapter: str


RUNTIMES = {
    "python": Runtime("requirements.txt", "adapter.py"),
    "node": Runtime("package.json", "worker.mjs"),
}


@dataclass(frozen=True, slots=True)
class Peer:
    """One library, in one environment."""

    name: str
    folder: Path
    runtime: str  # a key of RUNTIMES
    variants: dict[str, str]  # ways to run the model, each with its title
    makes: tuple[str, ...]  # model files, by name, each in a folder
    needs: tuple[str, ...]  # names that other peers make, or GIVEN

    @property
    def requirements(self) -> Path:
        """The file that lists what to install."""
        return self.folder / RUNTIMES[self.runtime].requirements

    @property
    def adapter(self) -> Path:
        """The code between the protocol and the library."""
        return self.folder / RUNTIMES[self.runtime].adapter


def discover(folder: Path) -> list[Peer]:
    """Read every peer in a folder, by name.

    Raises:
        ValueError: naming the file that is missing or wrong.
    """
    peers = [_read(path) for path in sorted(folder.resolve().glob(f"*/{FACTS}"))]
    if not peers:
        raise ValueError(f"{folder}: no peers; each is a folder with a {FACTS}")
    made = list(GIVEN) + [name for peer in peers for name in peer.makes]
    for peer in peers:
        for name in peer.makes:
            if made.count(name) > 1:
                raise ValueError(f"{peer.folder / FACTS}: {name!r} comes from elsewhere too")
        for name in peer.needs:
            if name not in made:
                raise ValueError(f"{peer.folder / FACTS}: no peer makes {name!r}")
    return peers


def _read(path: Path) -> Peer:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    keys = {field.name for field in fields(Peer)} - {"name", "folder"}
    if not isinstance(facts, dict) or set(facts) != keys:
        raise ValueError(f"{path}: the keys are {', '.join(facts)}; expected {', '.join(sorted(keys))}")
    if facts["runtime"] not in RUNTIMES:
        raise ValueError(f"{path}: runtime {facts['runtime']!r} is none of {', '.join(RUNTIMES)}")
    if not isinstance(facts["variants"], dict) or not facts["variants"]:
        raise ValueError(f"{path}: variants maps each variant to its title")
    for key in ("makes", "needs"):
        if not isinstance(facts[key], list) or not all(isinstance(name, str) for name in facts[key]):
            raise ValueError(f"{path}: {key} is {facts[key]!r}, expected a list of names")
    makes, needs = tuple(facts["makes"]), tuple(facts["needs"])
    peer = Peer(path.parent.name, path.parent, facts["runtime"], facts["variants"], makes, needs)
    for part in (peer.requirements, peer.adapter):
        if not part.is_file():
            raise ValueError(f"{part}: no such file; a {peer.runtime} peer has one")
    return peer


def ready(
    peers: Sequence[Peer], cache: Path, checkpoint: Path | str | None, say: Say
) -> dict[str, Contender | str]:
    """Install peers and make their model files, as far as that was not done before.

    Args:
        peers: who shall take part; what they need is made by their neighbours, who need not.
        cache: the folder for everything that this leaves behind.
        checkpoint: the official checkpoint as a folder; None is the one of the installed package.
        say: is told of every step that takes its time.

    Returns:
        For each "peer/variant" a contender, or the reason why there is none.
    """
    neighbours = [peer for folder in {peer.folder.parent for peer in peers} for peer in discover(folder)]
    workshop = _Workshop(neighbours, cache.resolve(), checkpoint, say)
    return {
        f"{peer.name}/{variant}": workshop.contender(peer, variant)
        for peer in peers
        for variant in peer.variants
    }


def install(peer: Peer, cache: Path, say: Say) -> tuple[str, ...]:
    """Make the environment of a peer, if it is not there, and return the command that starts its worker.

    Raises:
        Unavailable: it cannot be made.
    """
    folder = cache / "environments" / _key(peer.runtime, sys.version[:4], peer.requirements.read_text())
    steps, command = {"python": _python, "node": _node}[peer.runtime](peer, folder)
    complete = folder / "complete"
    if steps and not complete.exists():
        say(f"installing {peer.name}: {peer.requirements}")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        shutil.copy(peer.requirements, folder)
        for step in steps:
            _follow(peer, step)
        complete.touch()  # last: without it the next run begins anew
    return command


def _python(peer: Peer, folder: Path) -> tuple[Steps, tuple[str, ...]]:
    """Plan an environment with pip in it; without requirements, this interpreter will do."""
    lines = peer.requirements.read_text(encoding="utf-8").splitlines()
    python, steps = sys.executable, Steps()
    if any(line.strip() and not line.startswith("#") for line in lines):
        python = str(folder / "bin" / "python")
        pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        steps = (
            (sys.executable, "-m", "venv", str(folder)),
            (*pip, "--requirement", str(peer.requirements)),
        )
    return steps, (python, "-I", str(WORKER), str(peer.adapter))


def _node(peer: Peer, folder: Path) -> tuple[Steps, tuple[str, ...]]:
    """Plan a folder of packages; the worker is told of it, as Node looks only beside the script."""
    npm = ("npm", "install", "--loglevel=error", "--no-audit", "--no-fund", "--no-package-lock")
    return ((*npm, "--prefix", str(folder)),), ("node", str(peer.adapter), str(folder))


def _follow(peer: Peer, step: tuple[str, ...]) -> None:
    """Run one command of an installation."""
    environment = {**os.environ, "ONNXRUNTIME_NODE_INSTALL": "skip"}  # what it fetches is for GPUs
    try:
        done = subprocess.run(step, capture_output=True, text=True, env=environment, check=False)
    except OSError as error:
        raise Unavailable(f"{peer.name}: {step[0]} cannot be started: {error.strerror}") from error
    if done.returncode != 0:
        raise Unavailable(f"{peer.name}: {_last_words(done)}; to see it all: {shlex.join(step)}")


class _Workshop:
    """Makes each environment and each model file at most once, and remembers what could not be made."""

    def __init__(self, peers: Sequence[Peer], cache: Path, checkpoint: Path | str | None, say: Say) -> None:
        self._makers = {name: peer for peer in peers for name in peer.makes}
        self._cache = cache
        self._checkpoint = checkpoint
        self._say = say
        self._results: dict[str, Any] = {}
        home = cache / "home"
        (home / "intel").mkdir(parents=True, exist_ok=True)
        (home / "intel" / "openvino_telemetry").write_text("0\n")  # as its own opt_in_out --opt_out does
        self._environment = {**SILENCE, "HOME": str(home)}

    def contender(self, peer: Peer, variant: str) -> Contender | str:
        """Return how to start a variant, or why it cannot be."""
        try:
            command = self._command(peer)
            models = {name: self._model(name) for name in (*peer.needs, *peer.makes)}
        except Unavailable as reason:
            return str(reason)
        name = f"{peer.name}/{variant}"
        return Contender(name, peer.variants[variant], command, variant, models, self._environment)

    def _command(self, peer: Peer) -> tuple[str, ...]:
        command: tuple[str, ...] = self._once(peer.name, lambda: install(peer, self._cache, self._say))
        return command

    def _model(self, name: str) -> str:
        if name == "texts":
            return str(CALIBRATION)
        if name == "checkpoint":
            return str(self._once(name, self._find_checkpoint))
        maker = self._makers[name]
        return str(self._once(f"models of {maker.name}", lambda: self._make(maker)) / name)

    def _find_checkpoint(self) -> Path:
        try:
            return source.find(str(self._checkpoint or source.PACKAGE), None, None).folder.resolve()
        except SourceRefused as error:
            raise Unavailable(str(error)) from error

    def _make(self, peer: Peer) -> Path:
        """Let a peer make its model files, and return the folder that holds a folder for each."""
        command = self._command(peer)
        needs = {name: self._model(name) for name in peer.needs}
        key = _key(peer.requirements.read_text(), peer.adapter.read_text(), *needs.values())
        folder = self._cache / "models" / f"{peer.name}-{key}"
        if not folder.exists():
            self._say(f"making {', '.join(peer.makes)} with {peer.name}")
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
                making = Path(temporary) / "models"
                models = {name: str(making / name) for name in peer.makes}
                for path in models.values():
                    Path(path).mkdir(parents=True)
                self._prepare(peer, command, needs | models)
                making.rename(folder)
        return folder

    def _prepare(self, peer: Peer, command: tuple[str, ...], models: dict[str, str]) -> None:
        done = subprocess.run(
            command,
            input=json.dumps({"do": "prepare", "models": models}) + "\n",
            capture_output=True,
            text=True,
            env={**os.environ, **self._environment},
            check=False,
        )
        answer = json.loads(done.stdout) if done.stdout else {"error": _last_words(done)}
        if "error" in answer:
            why = " ".join(answer["error"].split())
            raise Unavailable(f"{peer.name}: cannot make {', '.join(peer.makes)}: {why}")

    def _once(self, key: str, work: Callable[[], Any]) -> Any:
        if key not in self._results:
            try:
                self._results[key] = work()
            except Unavailable as reason:
                self._results[key] = reason
        if isinstance(self._results[key], Unavailable):
            raise self._results[key]
        return self._results[key]


def _key(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def _last_words(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    return lines[-1] if lines else f"exit code {done.returncode}"

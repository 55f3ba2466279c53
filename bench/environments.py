"""Installs other libraries that run the same model, with uv or npm, and starts them as contenders.

A peer is a file in `peers/`; see its README. Environments, model files and a home folder, in which openvino's
telemetry is switched off, are in one cache folder.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ov_minilm.convert import source
from ov_minilm.convert.calibrate import CALIBRATION
from ov_minilm.measure.contender import WORKER, Contender

PEERS = Path(__file__).parent / "peers"
CACHE = PEERS / ".peers"
NPM_OPTIONS = ("--loglevel=error", "--no-audit", "--no-fund")
ALWAYS_AVAILABLE = ("checkpoint", "texts")  # model files that no peer needs to make
# constants of a peer's file; SERVES is optional
PEER_CONSTANTS = ("VARIANTS", "PROVIDES", "REQUIRES", "SERVES")

# Environment variables that forbid a peer to download files and to send telemetry.
OFFLINE_VARIABLES = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "ANONYMIZED_TELEMETRY": "False",  # read by chromadb
    "NNCF_CI": "1",  # nncf then uses a stub instead of its telemetry
    "ORT_DISABLE_TELEMETRY": "1",  # switches off the telemetry in the official builds of onnxruntime
}


class Unavailable(Exception):
    """A peer cannot be measured; the message is one line that says what failed."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A library or server to compare with, which has an environment of its own."""

    name: str
    file: Path
    variants: dict[str, str]  # name of a way to run the model -> its title
    provides: tuple[str, ...]  # names of the model files that this peer makes, each a folder
    requires: tuple[str, ...]  # names of model files that other peers make, or of ALWAYS_AVAILABLE
    serves: bool  # whether the peer is a server

    @classmethod
    def read(cls, file: Path) -> Peer:
        """Read the constants in a peer's file, without running it.

        ValueError: a constant is missing; the message has the file and the name.
        """
        text = file.read_text(encoding="utf-8")
        if file.suffix == ".mjs":
            text = "\n".join(re.findall(r"(?m)^// ([A-Z]+ = .+)$", text))
        constants: dict[str, Any] = {"SERVES": False}
        for node in ast.parse(text).body:
            if isinstance(node, ast.Assign) and (name := ast.unparse(node.targets[0])) in PEER_CONSTANTS:
                constants[name] = ast.literal_eval(node.value)
        if missing := sorted(set(PEER_CONSTANTS) - constants.keys()):
            raise ValueError(f"{file}: {', '.join(missing)} not defined")
        return cls(file.stem, file, *(constants[name] for name in PEER_CONSTANTS))


def discover(folder: Path = PEERS) -> list[Peer]:
    """Read every peer in a folder, by name.

    ValueError: a file lacks a constant, or needs files that no peer provides; the message names it.
    """
    peers = [Peer.read(path) for path in sorted(folder.iterdir()) if path.suffix in (".py", ".mjs")]
    made = {*ALWAYS_AVAILABLE, *(name for peer in peers for name in peer.provides)}
    for peer in peers:
        for name in set(peer.requires) - made:
            raise ValueError(f"{peer.file}: no peer provides {name!r}")
    return peers


class Environments:
    """Creates each environment and each model file at most once; failed commands are not repeated."""

    def __init__(
        self, peers: Sequence[Peer], say: Callable[[str], None], *, cache: Path = CACHE, checkpoint: str = ""
    ) -> None:
        """Use these peers; a peer may make files for another peer.

        `checkpoint` is a SOURCE of convert.
        """
        self._providers = {name: peer for peer in peers for name in peer.provides}
        self._cache = cache.resolve()
        self._checkpoint = checkpoint or source.PACKAGE
        self._say = say
        self._failed: dict[str, str] = {}
        intel = self._cache / "home/intel"
        intel.mkdir(parents=True, exist_ok=True)
        (intel / "openvino_telemetry").write_text("0\n")  # as `opt_in_out --opt_out` writes
        self.environment = {**OFFLINE_VARIABLES, "HOME": str(intel.parent)}

    def contender(self, peer: Peer, variant: str) -> Contender:
        """Install a peer; return the contender of one of its variants.

        Unavailable: the peer cannot be installed, or a file that the peer needs cannot be made.
        """
        command = self.command(peer)
        if peer.serves:
            # servers.py replaces PORT and THREADS by numbers
            command = (*command, "PORT", "THREADS", variant, *peer.requires)
        models = {name: str(self.model(name)) for name in (*peer.requires, *peer.provides)}
        title = peer.variants[variant]
        return Contender(f"{peer.name} {variant}", title, command, variant, models, self.environment)

    def command(self, peer: Peer) -> tuple[str, ...]:
        """Install a peer if it is not installed yet; return the command of its worker, or of its server."""
        if peer.file.suffix == ".mjs":
            return ("node", str(peer.file), str(self.npm(peer)))
        python = self.python(peer)
        return (python, "-I", *(() if peer.serves else (str(WORKER),)), str(peer.file))

    def python(self, peer: Peer) -> str:
        """Let uv create the environment for a file's PEP 723 header; return the Python interpreter."""
        uv, script = (sys.executable, "-m", "uv"), ("--script", str(peer.file))
        # all environments link to the copy of torch in uv's cache
        cache = {"UV_CACHE_DIR": str(self._cache / "uv")}
        self._run(peer, (*uv, "sync", "--python", sys.executable, *script), **cache)
        return self._run(peer, (*uv, "python", "find", *script), **cache).strip()

    def npm(self, peer: Peer) -> Path:
        """Install the packages in the line `// npm: …` of a file; return the folder with node_modules."""
        (packages,) = re.findall(r"(?m)^// npm: (.+)$", peer.file.read_text(encoding="utf-8"))
        folder = self._cache / "node" / f"{peer.name}-{_short_hash(packages)}"
        if not (folder / "complete").exists():
            command = ("npm", "install", *NPM_OPTIONS, "--prefix", str(folder), *packages.split())
            self._run(peer, command, ONNXRUNTIME_NODE_INSTALL="skip")  # no files for GPUs
            (folder / "complete").touch()
        return folder

    def model(self, name: str) -> Path:
        """Return the folder of model files with this name; if it is missing, a peer makes it."""
        if name == "texts":
            return CALIBRATION
        if name == "checkpoint":
            return source.find(self._checkpoint, None, None).folder.resolve()
        peer = self._providers[name]
        required = {need: str(self.model(need)) for need in peer.requires}
        folder = self._cache / "models" / f"{peer.name}-{_short_hash(peer.file.read_text(encoding='utf-8'))}"
        if not folder.exists():
            self._say(f"making {', '.join(peer.provides)} by {peer.name}")
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
                unfinished = Path(temporary) / "models"
                models = required | {made: str(unfinished / made) for made in peer.provides}
                for made in peer.provides:
                    (unfinished / made).mkdir(parents=True)
                request = json.dumps({"do": "prepare", "models": models}) + "\n"
                answer = self._run(peer, self.command(peer), request)
                if error := json.loads(answer).get("error"):
                    self._fail(peer, " ".join(error.split()))
                unfinished.rename(folder)
        return folder / name

    def _run(self, peer: Peer, command: Sequence[str], request: str = "", **variables: str) -> str:
        """Run an installation command; return its stdout. Unavailable: the command failed, now or before."""
        if peer.name in self._failed:
            raise Unavailable(self._failed[peer.name])
        env = {**os.environ, **(self.environment if request else {}), **variables}
        if not shutil.which(command[0]):
            self._fail(peer, f"{command[0]} is not installed")
        result = subprocess.run(command, input=request, capture_output=True, text=True, env=env, check=False)
        if result.returncode:
            output_lines = [
                line.strip() for line in (result.stderr or result.stdout).splitlines() if line.strip()
            ]
            errors = [line for line in output_lines if "error" in line.lower()]
            self._fail(peer, [*errors[:1], *reversed(output_lines), "no message"][0])
        return result.stdout

    def _fail(self, peer: Peer, reason: str) -> None:
        self._failed[peer.name] = reason
        raise Unavailable(reason)


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]

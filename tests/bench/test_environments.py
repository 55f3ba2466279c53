"""Peers: read strictly, pinned, installed and prepared once, and left out with a reason."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from environments import PEERS, Environments, Peer, Unavailable, discover

from ov_minilm.convert.source import PACKAGE
from ov_minilm.measure.contender import Process

FACTS = 'VARIANTS = {"plain": "a toy"}\nMAKES = ("table",)\nNEEDS = ("texts",)\n'
MAKER = """
import os, pathlib
import numpy as np
BATCHES, SORTED = (2,), True

def prepare(models):
    pathlib.Path(models["table"], "lines").write_text(str(len(open(models["texts"]).readlines())))

def load(variant, models, threads):
    lines = int(pathlib.Path(models["table"], "lines").read_text())
    return lambda texts: np.array([[len(text), lines] for text in texts])

def facts(variant):
    return {name: os.environ[name] for name in ("HF_HUB_OFFLINE", "DO_NOT_TRACK", "HOME")}
"""


class Here(Environments):
    """Takes this interpreter for every peer: what uv does is uv's."""

    def python(self, peer: Peer) -> str:
        """Return this interpreter."""
        assert peer
        return sys.executable


def write(folder: Path, text: str, name: str = "toy.py") -> Path:
    """Write a peer's file."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("peer", discover(), ids=lambda peer: str(peer.name))
def test_requirements_are_pinned(peer: Peer) -> None:
    """Every requirement in the head of a peer's file names one version."""
    text = peer.file.read_text(encoding="utf-8")
    if peer.file.suffix == ".mjs":
        wanted = re.findall(r"(?m)^// npm: (.+)$", text)[0].split()
        loose = [one for one in wanted if not re.search(r".@\d", one)]
    else:
        head = re.search(r"(?ms)^# /// script$.+?^# ///$", text)
        assert head
        wanted = re.findall(r'"(.+)"', head[0])
        loose = [one for one in wanted if "==" not in one]

    assert wanted
    assert [] == loose


def test_the_folder_of_peers_is_read_whole() -> None:
    """Every file beside the cache is a peer."""
    files = [path for path in PEERS.iterdir() if path.suffix in (".py", ".mjs")]

    assert sorted(path.stem for path in files) == sorted(peer.name for peer in discover())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (FACTS.replace("MAKES", "MADE"), r"toy\.py: no MAKES at its top"),
        (FACTS.replace('("texts",)', '("onnx",)'), "toy.py: no peer makes 'onnx'"),
    ],
)
def test_wrong_facts_are_refused(tmp_path: Path, text: str, message: str) -> None:
    """By the name of the file."""
    with pytest.raises(ValueError, match=message):
        discover(write(tmp_path / "peers", text))


def test_a_peer_answers_and_its_files_are_made_once(tmp_path: Path) -> None:
    """It makes its files, loads them and encodes, offline and in a home of its own."""
    (peer,) = discover(write(tmp_path / "peers", FACTS + MAKER))
    said: list[str] = []
    environments = Here([peer], said.append, cache=tmp_path / "cache")
    texts = tmp_path / "texts.json"
    texts.write_text('["one", "a longer one"]', encoding="utf-8")

    with Process(environments.contender(peer, "plain"), threads=1) as process:
        vectors = process.vectors(str(texts))
    again = Here([peer], said.append, cache=tmp_path / "cache").contender(peer, "plain")

    assert [3.0, 12.0] == vectors[:, 0].tolist()
    assert {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "HOME": str(tmp_path / "cache/home")} == process.facts
    assert ("toy plain", "a toy") == (again.name, again.title)
    assert ["making table by toy"] == said


def test_a_peer_that_cannot_make_its_files_says_why(tmp_path: Path) -> None:
    """In one line, and nothing half made is taken for whole the next time."""
    (peer,) = discover(
        write(tmp_path / "peers", FACTS + "def prepare(models):\n    raise OSError('no\\nroom')\n")
    )
    environments = Here([peer], lambda _: None, cache=tmp_path / "cache")

    with pytest.raises(Unavailable, match=r"^OSError: no room$"):
        environments.contender(peer, "plain")
    assert [] == list((tmp_path / "cache" / "models").iterdir())


def test_a_program_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without npm on the path, a peer on Node says so."""
    facts = "// npm: a@1\n" + FACTS.replace("VARIANTS", "// VARIANTS").replace("\nM", "\n// M").replace(
        "\nN", "\n// N"
    )
    (peer,) = discover(write(tmp_path / "peers", facts, "toy.mjs"))
    monkeypatch.setenv("PATH", "")

    with pytest.raises(Unavailable, match="npm is not installed"):
        Environments([peer], lambda _: None, cache=tmp_path / "cache").contender(peer, "plain")


@pytest.mark.slow
def test_uv_makes_what_the_head_describes(tmp_path: Path) -> None:
    """An interpreter that has the pinned package, and not those of this one."""
    head = '# /// script\n# dependencies = [\n#   "click==8.1.8",\n# ]\n# ///\n'
    (peer,) = discover(write(tmp_path / "peers", head + FACTS))

    python = Environments([peer], lambda _: None, cache=tmp_path / "cache", checkpoint=PACKAGE).python(peer)

    assert (Path(python).parents[1] / "bin").is_dir()
    assert list(Path(python).parents[1].rglob("click-8.1.8.dist-info"))

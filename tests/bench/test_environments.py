"""Other libraries to compare with: pinned, installed and prepared once, or left out with a reason."""

import re
import sys
from pathlib import Path

import pytest
from environments import PEERS, Environments, Peer, Unavailable, discover

from ov_minilm.measure.contender import Process

FACTS = 'VARIANTS = {"plain": "a toy"}\nPROVIDES = ("table",)\nREQUIRES = ("texts",)\n'
PREPARING_PEER = """
import os, pathlib
import numpy as np
BATCHES, SORTED = (2,), True

def prepare(models):
    pathlib.Path(models["table"], "lines").write_text(str(len(open(models["texts"]).readlines())))

def load(variant, models, threads):
    lines = int(pathlib.Path(models["table"], "lines").read_text())
    return lambda texts: np.array([[len(text), lines] for text in texts])

def versions(variant):
    return {name: os.environ[name] for name in ("HF_HUB_OFFLINE", "DO_NOT_TRACK", "HOME")}
"""


@pytest.fixture
def this_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use this interpreter for every peer instead of an environment made by uv."""
    monkeypatch.setattr(Environments, "python", lambda *_: sys.executable)


def toy(folder: Path, text: str, name: str = "toy.py") -> Peer:
    """Write the file of a peer into a folder, and read the folder's only peer."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    (peer,) = discover(folder)
    return peer


def test_every_file_is_a_peer_with_pinned_requirements() -> None:
    """All files of the folder are found, and each requirement in their headers has one version."""
    for peer in (discovered := discover()):
        text = peer.file.read_text(encoding="utf-8")
        python, npm = re.findall(r"(?m)^#   \"(.+)\",$", text), re.findall(r"(?m)^// npm: (.+)$", text)
        requirements = python or npm[0].split()
        assert all(re.search(r"==|.@\d", requirement) for requirement in requirements), peer.file

    files = [path for path in PEERS.iterdir() if path.suffix in (".py", ".mjs")]
    assert sorted(files) == sorted(peer.file for peer in discovered)


def test_wrong_facts_are_refused(tmp_path: Path) -> None:
    """A constant that is missing, or needs an unknown file, is an error with the name of the file."""
    with pytest.raises(ValueError, match=r"toy\.py: PROVIDES not defined"):
        toy(tmp_path, FACTS.replace("PROVIDES", "MADE"))
    with pytest.raises(ValueError, match=r"toy\.py: no peer provides 'onnx'"):
        toy(tmp_path, FACTS.replace('("texts",)', '("onnx",)'))


@pytest.mark.usefixtures("this_python")
def test_the_files_of_a_peer_are_made_once(tmp_path: Path) -> None:
    """The peer makes and loads its files and encodes, offline and with its own home folder."""
    peer, messages, cache = toy(tmp_path / "peers", FACTS + PREPARING_PEER), list[str](), tmp_path / "cache"
    (tmp_path / "texts.json").write_text('["one", "a longer one"]', encoding="utf-8")

    with Process(
        Environments([peer], messages.append, cache=cache).contender(peer, "plain"), threads=1
    ) as process:
        vectors = process.vectors(str(tmp_path / "texts.json"))
    reused = Environments([peer], messages.append, cache=cache).contender(peer, "plain")

    assert [3.0, 12.0] == vectors[:, 0].tolist()
    assert {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "HOME": f"{cache}/home"} == process.versions
    assert ("toy plain", "a toy", ["making table by toy"]) == (reused.name, reused.title, messages)


@pytest.mark.usefixtures("this_python")
def test_an_unavailable_peer_gives_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of a failed preparation are removed; a missing program is named."""
    broken = toy(tmp_path / "python", FACTS + "def prepare(models):\n    raise OSError('no\\nroom')\n")
    node = toy(tmp_path / "node", "// npm: a@1\n" + re.sub("(?m)^", "// ", FACTS.strip()), "toy.mjs")
    cache = tmp_path / "cache"

    with pytest.raises(Unavailable, match=r"^OSError: no room$"):
        Environments([broken], print, cache=cache).contender(broken, "plain")
    assert [] == list((cache / "models").iterdir())
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Unavailable, match="npm is not installed"):
        Environments([node], print, cache=cache).contender(node, "plain")

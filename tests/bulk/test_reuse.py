"""`--reuse`: vectors that earlier jobs computed are read from a folder."""

from pathlib import Path

import numpy as np
import pytest
from support.processes import run_inline

from ov_minilm.bulk.reuse import KeptVectors

pytestmark = pytest.mark.usefixtures("shared_model")
TEXTS = [f"text {n} of a corpus" for n in range(200)] + ["", "long " * 400, "naïve 🐈"]


def encode(tmp_path: Path, texts: list[str], *options: str, reuse: bool = True) -> tuple[bytes, str]:
    """Encode texts into a file; return its bytes, and what the command prints on stderr."""
    source, target = tmp_path / "in.txt", tmp_path / "v.npy"
    source.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    target.unlink(missing_ok=True)
    kept = ["--reuse", str(tmp_path / "kept")] * reuse
    result = run_inline("encode", source, "-o", target, *options, *kept)
    return target.read_bytes() if target.exists() else b"", result.stderr.decode()


@pytest.mark.parametrize("options", [[], ["--truncate", "mean"], ["--dimensions", "64", "--dtype", "int8"]])
def test_reuse_does_not_change_the_output(tmp_path: Path, options: list[str]) -> None:
    """The bytes are the same with an empty and with a full folder, also for new texts in another order."""
    changed = [*TEXTS[100:], "a new text", *TEXTS[:100], "a new text"]

    assert encode(tmp_path, TEXTS, *options, reuse=False) == encode(tmp_path, TEXTS, *options)
    assert encode(tmp_path, changed, *options, reuse=False) == encode(tmp_path, changed, *options)
    (folder,) = (tmp_path / "kept").iterdir()
    assert [1, len(TEXTS)] == sorted(len(np.load(path)) for path in folder.glob("*.hashes.npy"))


def test_only_vectors_of_the_same_truncation_are_reused(tmp_path: Path) -> None:
    """All --dimensions share the vectors; --truncate error refuses a text that was truncated."""
    for options in (["--truncate", "end"], ["--truncate", "mean"], ["--dimensions", "8"]):
        encode(tmp_path, TEXTS[-3:], *options)

    output, stderr = encode(tmp_path, TEXTS[-3:], "--truncate", "error")

    assert b"" == output
    assert "line 2: 402 tokens, the model reads 256" in stderr
    assert 2 == len(list((tmp_path / "kept").iterdir()))
    assert "--reuse has no effect with --engine ray" in encode(tmp_path, ["a"], "--engine", "ray")[1]


def test_vectors_without_hashes_are_ignored(tmp_path: Path) -> None:
    """If a process is killed after it wrote the vectors but not their hashes, they are ignored."""
    first = KeptVectors(tmp_path, {}, 4)
    first.add(["a", "b"], np.eye(2, 4, dtype=np.float32), [3, 4], {1})
    first.write()
    (hashes,) = tmp_path.glob("*/*.hashes.npy")

    is_stored, records = KeptVectors(tmp_path, {}, 4).find(["b", "c", "a"])
    hashes.unlink()

    assert [True, False, True] == is_stored.tolist()
    assert ([0, 1, 0, 0], 4, True) == (records[0]["vector"].tolist(), *records[0].tolist()[1:])
    assert [False, False] == KeptVectors(tmp_path, {}, 4).find(["a", "b"])[0].tolist()

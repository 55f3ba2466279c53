"""Vectors that earlier jobs computed, kept in a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from ov_minilm.bulk.reuse import KeptVectors
from ov_minilm.cli import cli

TEXTS = [f"text {n} of a corpus" for n in range(700)] + ["", "long " * 400, "naïve 🐈"]


def encode(tmp_path: Path, name: str, texts: list[str], *options: str) -> bytes:
    """Encode texts into a file and return its bytes."""
    source, target = tmp_path / f"{name}.txt", tmp_path / f"{name}.npy"
    source.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    result = CliRunner().invoke(cli, ["encode", str(source), "-o", str(target), "--no-progress", *options])
    assert 0 == result.exit_code, result.output
    return target.read_bytes()


@pytest.mark.parametrize("options", [[], ["--truncate", "mean"], ["--dimensions", "64", "--dtype", "int8"]])
def test_the_output_has_the_same_bytes(tmp_path: Path, options: list[str]) -> None:
    """With an empty folder, with a full one, and where some texts are new and others in another order."""
    changed = [*TEXTS[350:], "a new text", *TEXTS[:350], "a new text"]
    reuse = ["--reuse", str(tmp_path / "kept"), *options]

    assert encode(tmp_path, "plain", TEXTS, *options) == encode(tmp_path, "first", TEXTS, *reuse)
    assert encode(tmp_path, "plain2", changed, *options) == encode(tmp_path, "second", changed, *reuse)
    (facts,) = (tmp_path / "kept").iterdir()
    sizes = sorted(len(np.load(path)) for path in facts.glob("*.hashes.npy"))
    assert [1, len(TEXTS)] == sizes


def test_how_texts_are_cut_makes_other_vectors(tmp_path: Path) -> None:
    """Those of whole texts are not taken for those of cut ones; of other dimensions and types they are."""
    for options in (["--truncate", "end"], ["--truncate", "mean"], ["--dimensions", "8"]):
        encode(tmp_path, "texts", TEXTS[-3:], "--overwrite", "--reuse", str(tmp_path / "kept"), *options)

    assert 2 == len(list((tmp_path / "kept").iterdir()))


def test_texts_that_are_too_long_stay_bad_rows(tmp_path: Path) -> None:
    """With --truncate error, also if an earlier job cut them."""
    kept = ["--reuse", str(tmp_path / "kept")]
    encode(tmp_path, "cut", TEXTS[-3:], *kept)
    source, target = str(tmp_path / "cut.txt"), str(tmp_path / "error.npy")

    result = CliRunner().invoke(cli, ["encode", source, "-o", target, "--truncate", "error", *kept])

    assert "line 2: 402 tokens, the model reads 256" in str(result.exception)


def test_ray_does_not_take_the_option(tmp_path: Path) -> None:
    """Its actors would each need the folder."""
    source = tmp_path / "a.txt"
    source.write_text("a\n")
    args = ["encode", str(source), "-o", str(tmp_path / "o.npy"), "--engine", "ray", "--reuse", str(tmp_path)]

    result = CliRunner().invoke(cli, args)

    assert "--reuse has no effect with --engine ray" in str(result.exception)


def test_a_segment_without_its_hashes_is_not_there(tmp_path: Path) -> None:
    """A process that was killed between the two files leaves nothing that is used."""
    first = KeptVectors(tmp_path, {}, 4)
    first.add(["a", "b"], np.eye(2, 4, dtype=np.float32), [3, 4], {1})
    first.write()
    (hashes,) = tmp_path.glob("*/*.hashes.npy")

    again = KeptVectors(tmp_path, {}, 4)
    found = again.find(["b", "c", "a"])
    hashes.unlink()

    assert [0, 2] == sorted(found)
    assert [[0, 1, 0, 0], 4, True] == [found[0][name].tolist() for name in ("vector", "tokens", "cut")]
    assert {} == KeptVectors(tmp_path, {}, 4).find(["a", "b"])

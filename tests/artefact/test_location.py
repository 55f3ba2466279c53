"""What may be named as the model, and what to do about what may not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ov_minilm.artefact.location import find_model
from ov_minilm.artefact.manifest import SHIPPED
from ov_minilm.errors import ManifestInvalid


@pytest.mark.parametrize(
    "model",
    [
        None,
        "all-MiniLM-L6-v2",
        "sentence-transformers/all-MiniLM-L6-v2",
        "Sentence-Transformers/all-minilm-l6-v2",
        SHIPPED,
        str(SHIPPED),
    ],
)
def test_the_model_in_the_package_has_its_usual_names(model: str | Path | None) -> None:
    """None, its names in any case, and its folder are the same."""
    assert SHIPPED == find_model(model)


def test_a_folder_of_the_same_name_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A str that is the name means the package's model, a path means the folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(SHIPPED, tmp_path / "all-MiniLM-L6-v2")

    assert SHIPPED == find_model("all-MiniLM-L6-v2")
    for folder in ("./all-MiniLM-L6-v2", Path("all-MiniLM-L6-v2")):
        assert Path("all-MiniLM-L6-v2") == find_model(folder)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (None, "x: no such folder; the model in the package is all-MiniLM-L6-v2, others .* convert x -o OUT"),
        ("notes.txt", "x/manifest.json: not found; is this a folder written by `ov-minilm convert`"),
        ("int8/manifest.json", "x/manifest.json: not found; did you mean x/int8"),
        ("config.json", "x/manifest.json: not found; this is a checkpoint: ov-minilm convert x -o OUT, "),
    ],
)  # fmt: skip
def test_what_is_no_artefact_is_refused_with_the_way_to_one(
    file: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing folder, one of something else, one above artefacts, and a checkpoint each have their own."""
    monkeypatch.chdir(tmp_path)
    if file:
        (tmp_path / "x" / file).parent.mkdir(parents=True)
        (tmp_path / "x" / file).write_text("{}")

    with pytest.raises(ManifestInvalid, match=f"^{message}"):
        find_model("x")

"""What may be named as the model, and what to do about what may not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ov_minilm.artefact.location import find_model
from ov_minilm.artefact.manifest import SHIPPED
from ov_minilm.errors import ManifestInvalid

HOUSE = "all-MiniLM-L6-v2"


def test_names_mean_the_model_in_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None, its names in any case and its folder do, even beside a folder of that name; a path means that."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(SHIPPED, tmp_path / HOUSE)

    for name in (None, HOUSE, f"sentence-transformers/{HOUSE}", f"Sentence-Transformers/{HOUSE.lower()}"):
        assert SHIPPED == find_model(name)
    assert SHIPPED == find_model(SHIPPED) == find_model(str(SHIPPED))
    assert Path(HOUSE) == find_model(f"./{HOUSE}") == find_model(Path(HOUSE))


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (
            None,
            "x: no such folder; .* all-MiniLM-L6-v2; convert other models first: ov-minilm convert x -o OUT",
        ),
        ("notes.txt", "x/manifest.json: not found; is this a folder written by `ov-minilm convert`"),
        ("int8/manifest.json", "x/manifest.json: not found; did you mean x/int8"),
        ("config.json", "x/manifest.json: not found; this is a checkpoint: run ov-minilm convert x -o OUT, "),
    ],
)
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

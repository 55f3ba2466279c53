"""Which names and paths open a model, and what the errors suggest for all others."""

import shutil
from pathlib import Path

import pytest

from ov_minilm.artefact.location import find_model
from ov_minilm.artefact.manifest import SHIPPED
from ov_minilm.errors import ManifestInvalid

NAME = "all-MiniLM-L6-v2"


def test_names_and_paths_find_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None and the names of the shipped model, in any case, open it; `./` makes a name a path."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(SHIPPED, tmp_path / NAME)

    for name in (None, NAME, f"sentence-transformers/{NAME}", f"Sentence-Transformers/{NAME.lower()}"):
        assert SHIPPED == find_model(name)
    assert SHIPPED == find_model(SHIPPED) == find_model(str(SHIPPED))
    assert Path(NAME) == find_model(f"./{NAME}") == find_model(Path(NAME))


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (None, "x: no such folder; .*; convert other models first: ov-minilm convert x -o OUT"),
        ("notes.txt", "x/manifest.json: not found; is this a folder written by `ov-minilm convert`"),
        ("int8/manifest.json", "x/manifest.json: not found; did you mean x/int8"),
        ("config.json", "x/manifest.json: not found; this is a checkpoint: run ov-minilm convert x -o OUT, "),
    ],
)
def test_a_folder_without_an_artefact_is_refused(
    file: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message depends on the folder: missing, unknown, above artefacts, or a checkpoint to convert."""
    monkeypatch.chdir(tmp_path)
    if file:
        (tmp_path / "x" / file).parent.mkdir(parents=True)
        (tmp_path / "x" / file).write_text("{}")

    with pytest.raises(ManifestInvalid, match=f"^{message}"):
        find_model("x")

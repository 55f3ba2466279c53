"""Locate a model: a folder, or the model in the package by its name."""

from __future__ import annotations

import os
from pathlib import Path

from ov_minilm.artefact.manifest import NAME, SHIPPED
from ov_minilm.errors import ManifestInvalid
from ov_minilm.spec import MINILM

# names of the model in the package, accepted in upper and lower case
NAMES = (MINILM.name, MINILM.name.partition("/")[2])


def find_model(model: str | os.PathLike[str] | None) -> Path:
    """Return the folder of an artefact; None and the names in NAMES mean the model in the package.

    For a folder that has such a name, write "./all-MiniLM-L6-v2" or pass a Path.

    Raises:
        ManifestInvalid: the folder is not an artefact; the message says how to make one.
        ValueError: the name is empty, which Path reads as ".".
    """
    if model == "":
        raise ValueError("model='' is empty; name a folder, or pass None for the model in the package")
    if model is None or (isinstance(model, str) and model.lower() in map(str.lower, NAMES)):
        return SHIPPED
    folder = Path(model)
    if (folder / NAME).is_file():
        return folder
    if (folder / "int8" / NAME).is_file():
        raise ManifestInvalid(folder / NAME, f"not found; did you mean {folder / 'int8'}?")
    if (folder / "config.json").is_file():
        advice = f"this is a checkpoint: run ov-minilm convert {folder} -o OUT, then pass OUT/int8"
        raise ManifestInvalid(folder / NAME, f"not found; {advice}")
    if folder.is_dir():
        raise ManifestInvalid(folder / NAME, "not found; is this a folder written by `ov-minilm convert`?")
    raise ManifestInvalid(
        folder,
        f"no such folder; the model in the package is {NAMES[1]}; convert other models first: "
        f"ov-minilm convert {model} -o OUT, then pass OUT/int8",
    )

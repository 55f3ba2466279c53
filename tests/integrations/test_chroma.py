"""The Chroma adapter in a collection on disk, opened again, with the same artefact and another."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.processes import python

from ov_minilm import Embedder
from ov_minilm.artefact.manifest import SHIPPED, TOKENIZER, Manifest, file_facts, fingerprint

pytest.importorskip("chromadb", reason="pip install -e '.[chroma]'")

import chromadb
from chromadb.config import Settings

from ov_minilm.integrations.chroma import MiniLMEmbeddingFunction

TEXTS = ["A cat sleeps on the sofa.", "Interest rates stay where they are."]
QUERY = """
import warnings; warnings.simplefilter('ignore')
import chromadb, ov_minilm.integrations.chroma
settings = chromadb.Settings(anonymized_telemetry=False)
for folder in folders:
    collection = chromadb.PersistentClient(folder, settings=settings).get_collection('texts')
    print(collection.query(query_texts=['a pet indoors'], n_results=1)['ids'])
"""


def fill(folder: Path, model: str | None = None) -> chromadb.Collection:
    """Make a collection of TEXTS on disk."""
    client = chromadb.PersistentClient(str(folder), settings=Settings(anonymized_telemetry=False))
    function: Any = MiniLMEmbeddingFunction(model)
    collection = client.create_collection("texts", embedding_function=function)
    collection.add(ids=["0", "1"], documents=TEXTS)
    return collection


def test_a_stored_collection_finds_its_function_again(tmp_path: Path, shipped: Embedder) -> None:
    """A new process that imports the adapter names no function; another artefact in its place is refused."""
    collection, folder = fill(tmp_path / "kept"), tmp_path / "model"
    shutil.copytree(SHIPPED, folder)
    fill(tmp_path / "replaced", str(folder))
    manifest = Manifest.read(folder)
    with (folder / TOKENIZER).open("a") as file:
        file.write("\n")
    files = manifest.files | {TOKENIZER: file_facts(folder / TOKENIZER)}
    replace(manifest, files=files, fingerprint=fingerprint(manifest.spec, files)).write(folder)

    done = python(f"folders = {[str(tmp_path / 'kept'), str(tmp_path / 'replaced')]}\n{QUERY}")

    stored = collection.get(include=["embeddings"])["embeddings"]  # Chroma brings lengths to 1 once more
    np.testing.assert_allclose(np.array(stored, np.float32), shipped.encode(TEXTS), rtol=1e-6, atol=0)
    assert "cosine" == collection.configuration_json["hnsw"]["space"]
    assert (1, "[['0']]\n") == (done.returncode, done.stdout), done.stderr
    assert f"made with artefact {manifest.fingerprint}, but this is" in done.stderr.splitlines()[-1]


def test_another_artefact_is_refused() -> None:
    """A collection made with another artefact does not take this one's vectors; both are named."""
    function = MiniLMEmbeddingFunction()
    foreign = function.get_config() | {"fingerprint": "0123456789abcdef"}

    with pytest.raises(ValueError, match=r"artefact 0123456789abcdef, but this is \w{16}: embed its texts"):
        MiniLMEmbeddingFunction.build_from_config(foreign)
    with pytest.raises(ValueError, match="embed its texts again"):
        function.validate_config_update(foreign, function.get_config())

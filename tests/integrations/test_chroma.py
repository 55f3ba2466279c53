"""The Chroma adapter in a collection on disk, opened again with the same artefact and with another."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.processes import python

from ov_minilm import Embedder
from ov_minilm.artefact.manifest import SHIPPED, TOKENIZER, Manifest, file_facts, fingerprint

TEXTS = ["A cat sleeps on the sofa.", "Interest rates stay where they are."]
QUERY = """
import warnings; warnings.simplefilter('ignore')
import chromadb, ov_minilm.integrations.chroma
settings = chromadb.Settings(anonymized_telemetry=False)
for folder in folders:
    collection = chromadb.PersistentClient(folder, settings=settings).get_collection('texts')
    print(collection.query(query_texts=['a pet indoors'], n_results=1)['ids'])
"""


def fill(folder: Path, model: str | None = None) -> Any:
    """Return a new collection of TEXTS on disk."""
    chromadb = pytest.importorskip("chromadb", reason="pip install -e '.[chroma]'")
    from ov_minilm.integrations.chroma import MiniLMEmbeddingFunction

    client = chromadb.PersistentClient(str(folder), chromadb.Settings(anonymized_telemetry=False))
    collection = client.create_collection("texts", embedding_function=MiniLMEmbeddingFunction(model))
    collection.add(ids=["0", "1"], documents=TEXTS)
    return collection


def test_a_stored_collection_opens_with_its_own_artefact_only(tmp_path: Path, shipped: Embedder) -> None:
    """With the adapter imported, no function need be passed; with another artefact, opening fails."""
    collection, folder = fill(tmp_path / "kept"), tmp_path / "model"
    shutil.copytree(SHIPPED, folder)
    fill(tmp_path / "replaced", str(folder))
    manifest = Manifest.read(folder)
    with (folder / TOKENIZER).open("a") as file:
        file.write("\n")
    files = manifest.files | {TOKENIZER: file_facts(folder / TOKENIZER)}
    other = fingerprint(manifest.spec, files)
    replace(manifest, files=files, fingerprint=other).write(folder)

    result = python(f"folders = {[str(tmp_path / 'kept'), str(tmp_path / 'replaced')]}\n{QUERY}")

    stored = collection.get(include=["embeddings"])["embeddings"]  # Chroma normalizes the vectors again
    np.testing.assert_allclose(np.array(stored, np.float32), shipped.encode(TEXTS), rtol=1e-6, atol=0)
    assert "cosine" == collection.configuration_json["hnsw"]["space"]
    assert (1, "[['0']]\n") == (result.returncode, result.stdout), result.stderr
    message = f"made with artefact {manifest.fingerprint}, but this is {other}: embed its texts again"
    assert message in result.stderr.splitlines()[-1]

"""Vectors of earlier jobs, kept in a folder (`--reuse`): a later job computes only new texts.

A text has the same bits in every batch, so a kept vector equals the one that would be computed, and the
output of a job has the same bytes with and without the folder. Each combination of artefact, precision,
kernel and truncation has its own subfolder, with segments. A segment consists of two files: records with the
vector, its number of tokens and whether the text was cut; and the 16-byte hashes of the texts, which are
written last. A segment is complete or does not exist, and is never changed. Several jobs may add segments to
one folder at the same time.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ov_minilm.bulk.refusals import refusal
from ov_minilm.files import atomic_write
from ov_minilm.runtime.embedder import Embedder, Info
from ov_minilm.runtime.output import Vectors
from ov_minilm.runtime.tokens import Tokenized, Truncate
from ov_minilm.spec import FloatArray

HASH_BYTES = 16
SEGMENT_TEXTS = 32_768  # number of texts in a segment, which takes 50 MB

Hashes = NDArray[np.uint64]  # [N, 2], a hash of 128 bits for each text


class KeptVectors:
    """The vectors in one folder. Only one thread may use an instance."""

    def __init__(self, folder: Path, facts: Mapping[str, object], dim: int) -> None:
        """Read the hashes of the kept texts (24 bytes of memory each); create a missing folder.

        Raises:
            OSError: the folder cannot be used.
        """
        name = hashlib.sha256(json.dumps(dict(facts), sort_keys=True).encode()).hexdigest()[:16]
        if folder.exists() and not folder.is_dir():
            raise refusal("not_a_folder", folder=folder)
        self._folder = folder / name
        self._folder.mkdir(parents=True, exist_ok=True)
        self._record = np.dtype([("vector", "<f4", (dim,)), ("tokens", "<u4"), ("cut", "?")])
        self._segments: list[NDArray[Any]] = []
        hashes = [np.empty((0, 2), np.uint64)]
        for path in sorted(self._folder.glob("*.hashes.npy")):
            hashes.append(np.load(path))
            self._segments.append(np.load(_records(path), mmap_mode="r"))
        everything = np.concatenate(hashes)
        order = np.argsort(everything[:, 0], kind="stable")
        self._hashes: Hashes = everything[order]
        lengths = [len(segment) for segment in self._segments]
        self._segment = np.repeat(np.arange(len(lengths)), lengths)[order].astype(np.int32)
        self._row = np.concatenate([np.arange(n) for n in [0, *lengths]])[order].astype(np.int32)
        self._new: dict[bytes, NDArray[Any]] = {}  # records of texts that are in no segment yet

    def find(self, texts: Sequence[str]) -> tuple[NDArray[np.bool_], NDArray[Any]]:
        """Return whether each text is kept [N], and records [N].

        The record of a text that is not kept is zero.
        """
        keys = [_hash(text) for text in texts]
        hashes = np.frombuffer(b"".join(keys), np.uint64).reshape(-1, 2)
        is_kept, records = np.zeros(len(texts), bool), np.zeros(len(texts), self._record)
        if len(self._hashes):
            at = np.searchsorted(self._hashes[:, 0], hashes[:, 0])
            at = np.minimum(at, len(self._hashes) - 1)
            is_kept = (self._hashes[at] == hashes).all(1)
            for number in np.unique(self._segment[at[is_kept]]):
                in_segment = is_kept & (self._segment[at] == number)
                records[in_segment] = self._segments[number][self._row[at[in_segment]]]
        for index, key in enumerate(keys if self._new else ()):
            if key in self._new:
                is_kept[index], records[index] = True, self._new[key]
        return is_kept, records

    def add(self, texts: Iterable[str], vectors: FloatArray, tokens: Iterable[int], cut: set[int]) -> None:
        """Add vectors [N, D]; a full segment is written at once, a partial one by `write`."""
        for index, (text, vector, count) in enumerate(zip(texts, vectors, tokens, strict=True)):
            self._new[_hash(text)] = np.array((vector, count, index in cut), self._record)
        if len(self._new) >= SEGMENT_TEXTS:
            self.write()

    def write(self) -> None:
        """Write the new vectors as a segment."""
        if not self._new:
            return
        path = self._folder / f"{uuid.uuid4().hex}.hashes.npy"
        with atomic_write(_records(path)) as file:
            _save(file, np.array(list(self._new.values()), self._record))
        try:
            with atomic_write(path) as file:  # a segment exists if it has a file of hashes
                _save(file, np.frombuffer(b"".join(self._new), np.uint64).reshape(-1, 2))
        except BaseException:  # records without hashes are useless
            _records(path).unlink()
            raise
        self._new = {}


def _save(file: IO[bytes], array: NDArray[Any]) -> None:
    """Write an array like np.save, whose error does not mention that the disk is full."""
    npy.write_array_header_1_0(file, npy.header_data_from_array_1_0(array))
    file.write(array.view(np.uint8).data)


def _records(hashes: Path) -> Path:
    return hashes.with_name(hashes.name.replace(".hashes.", ".records."))


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=HASH_BYTES).digest()


@dataclass(frozen=True, slots=True)
class PartlyKeptTexts:
    """Texts of which some have a kept vector; the others have token ids."""

    texts: Sequence[str]
    kept: NDArray[np.bool_]  # [N] whether each text has a kept vector
    records: NDArray[Any]  # [N] vector, number of tokens, and whether the text was cut
    tokenized: Tokenized  # token ids of the texts without a kept vector
    tokens: list[int]
    truncated: list[int]


@dataclass(frozen=True, slots=True)
class Pending:
    """A future of the vectors of texts, of which some are kept and some are computed."""

    texts: PartlyKeptTexts
    future: Future[FloatArray]
    vectors: KeptVectors

    def result(self) -> FloatArray:  # -> [N, D]
        """Wait for the new vectors, store them, and return all vectors in the order of the texts."""
        vectors, texts = self.future.result(), self.texts
        out: FloatArray = np.array(texts.records["vector"])
        out[~texts.kept] = vectors
        cut = set(texts.tokenized.truncated)
        self.vectors.add(compress(texts.texts, ~texts.kept), vectors, texts.tokenized.tokens, cut)
        return out

    def cancel(self) -> bool:
        """Remove the texts from the queue."""
        return self.future.cancel()


class ReusingEmbedder:
    """Replaces an Embedder in a job; computes only texts whose vectors are not stored yet."""

    def __init__(self, embedder: Embedder, folder: Path, truncate: Truncate, facts: Iterable[str]) -> None:
        """Use a folder; `facts` are the fields of `embedder.info` that determine the vectors."""
        self._embedder = embedder
        vector_facts = {name: getattr(embedder.info, name) for name in facts}
        # with truncate="error", texts that are too long become bad rows, so nothing is cut
        windows = "mean" if truncate == "mean" else "end"
        self._vectors = KeptVectors(folder, vector_facts | {"truncate": windows}, embedder.spec.dim)

    @property
    def info(self) -> Info:
        """The `info` of the Embedder."""
        return self._embedder.info

    def encode(
        self, texts: Sequence[str], *, dimensions: int | None = None, dtype: Any = "float32"
    ) -> Vectors:
        """Call `Embedder.encode`; nothing is kept."""
        return self._embedder.encode(texts, dimensions=dimensions, dtype=dtype)

    def count_tokens(self, texts: str) -> int:
        """Call `Embedder.count_tokens`."""
        return self._embedder.count_tokens(texts)

    def tokenize(self, texts: Sequence[str], *, truncate: Truncate) -> PartlyKeptTexts:
        """Tokenize the texts that are new."""
        is_kept, records = self._vectors.find(texts)
        tokenized = self._embedder.tokenize(list(compress(texts, ~is_kept)), truncate=truncate)
        records["tokens"][~is_kept] = tokenized.tokens
        records["cut"][np.flatnonzero(~is_kept)[tokenized.truncated]] = True
        tokens, truncated = records["tokens"].tolist(), np.flatnonzero(records["cut"]).tolist()
        return PartlyKeptTexts(texts, is_kept, records, tokenized, tokens, truncated)

    def submit(self, texts: PartlyKeptTexts) -> Pending:
        """Submit the new texts, as a long call even if they are few, so that fewer shapes are compiled."""
        return Pending(texts, self._embedder.submit(texts.tokenized, short=False), self._vectors)

    def close(self) -> None:
        """Write the new vectors; the Embedder stays open."""
        self._vectors.write()

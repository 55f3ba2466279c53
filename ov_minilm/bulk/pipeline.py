"""The main path of a job: rows -> token ids -> vectors -> files.

This thread reads, tokenizes and writes, while the engine computes texts that were submitted earlier. In this
way the engine never waits.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import get_args

import numpy as np

from ov_minilm.bulk.inputs import Inputs
from ov_minilm.bulk.journal import Done
from ov_minilm.bulk.reader import Reader
from ov_minilm.bulk.refusals import bad_row
from ov_minilm.bulk.reuse import PartlyKeptTexts, Pending, ReusingEmbedder
from ov_minilm.bulk.rows import Block, OnError, Position, Rows, apply_error_policy
from ov_minilm.bulk.sink import Form, Sink
from ov_minilm.errors import BadRow, check_choice, check_integers
from ov_minilm.files import atomic_write
from ov_minilm.runtime.embedder import Embedder
from ov_minilm.runtime.output import DTYPES, Dtype, Vectors, convert_vectors
from ov_minilm.runtime.tokens import Tokenized, Truncate
from ov_minilm.spec import FloatArray

Encoder = Embedder | ReusingEmbedder

SHARD_ROWS = 65_536
# Amount of work in the engine's queue: in seconds, and with bounds in tokens. With more rows, packing is
# better, but more work is lost if the process is killed.
QUEUED_S = 2.0
QUEUED_TOKENS = 1 << 14, 1 << 16  # lower and upper bound
# long texts are counted by characters, because the part that will be cut off also takes memory
CHARS_PER_TOKEN = 256

# The fields of Embedder.info that determine the vectors.
MODEL_FACTS = (
    "model",
    "weights",
    "fingerprint",
    "device",
    "precision",
    "long_precision",
    "lowering",
    "kernel",
)


@dataclass(frozen=True, slots=True)
class BulkOptions:
    """Options that affect the output, in addition to the model and the rows."""

    truncate: Truncate = "end"
    dimensions: int | None = None
    dtype: Dtype = "float32"
    on_error: OnError = "stop"
    rows_per_shard: int = SHARD_ROWS

    def __post_init__(self) -> None:
        """Raise TypeError or ValueError for an option with an invalid value."""
        check_choice("truncate", self.truncate, get_args(Truncate))
        check_choice("dtype", self.dtype, DTYPES)
        check_choice("on_error", self.on_error, get_args(OnError))
        check_integers(dimensions=self.dimensions, rows_per_shard=self.rows_per_shard)
        if self.rows_per_shard < 1:
            raise ValueError(f"rows_per_shard={self.rows_per_shard}; at least 1")


@dataclass(frozen=True, slots=True)
class Job:
    """Everything that is needed to compute any shard on any machine that can read the files."""

    inputs: Inputs
    options: BulkOptions
    sink: Sink
    folder: Path

    def part(self, shard: int) -> Path:
        """Return the path of a shard's vectors."""
        return self.folder / f"part-{shard:05}.{self.sink.form}"

    def errors(self, shard: int) -> Path:
        """Return the path of the list of a shard's bad rows (JSON lines), which exists if a row is bad."""
        return self.folder / f"_errors-{shard:05}.log"


def make_sink(embedder: Encoder, inputs: Inputs, options: BulkOptions, form: Form) -> Sink:
    """Return the sink, which has the type of the vectors, the kept columns and the metadata.

    Raises:
        ValueError: `dimensions` or `dtype` is not valid for the model.
    """
    info = embedder.info
    empty = embedder.encode([], dimensions=options.dimensions, dtype=options.dtype)
    metadata = {name: str(getattr(info, name)) for name in MODEL_FACTS}
    metadata |= {name: info.versions[name] for name in ("openvino", "tokenizers")}
    metadata |= {"truncate": options.truncate, "dtype": options.dtype}
    metadata["dimensions"] = str(embedder.encode([], dimensions=options.dimensions).shape[1])
    return Sink(form, empty, inputs.schema, metadata)


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """A block of rows with their vectors."""

    rows: Rows  # the rows as they were read
    block: Block  # the rows that are written
    tokens: int
    truncated: int  # number of texts that were cut


def _shards(inputs: Inputs, done: Mapping[int, Done]) -> Generator[tuple[int, Reader], None, None]:
    """Yield every unfinished shard and a reader at its first row.

    The caller must read or skip the rows of a shard before the next one. The last shard may have no rows.
    """
    shard, at = 0, Position()
    while True:
        while shard in done:
            at = done[shard].end
            shard += 1
        with Reader(inputs, at) as reader:
            while shard not in done:
                start = reader.at
                yield shard, reader
                if reader.at == start:
                    return
                shard += 1


def pending_rows(
    inputs: Inputs, rows_per_shard: int, done: Mapping[int, Done]
) -> Generator[Rows, None, None]:
    """Yield the rows of all unfinished shards, in order; each block belongs to one shard."""
    with closing(_shards(inputs, done)) as shards:
        for shard, reader in shards:
            yield from read_shard(reader, shard, rows_per_shard)


def read_shard(reader: Reader, shard: int, rows_per_shard: int) -> Iterator[Rows]:
    """Yield the rows of one shard, starting at the reader's position, with the digest after each block."""
    rows_left, digest = rows_per_shard, hashlib.blake2b(digest_size=16)
    while rows_left and (rows := reader.take(rows_left)) is not None:
        kept_values = rows.columns if isinstance(rows.columns, list) else [""] * len(rows.texts)
        for index, row in enumerate(zip(rows.texts, kept_values, strict=True)):
            bad = (rows.file, rows.numbers[index], rows.bad[index]) if index in rows.bad else ""
            digest.update(repr((*row, bad)).encode("utf-8", "surrogatepass"))
        yield replace(rows, shard=shard, digest=digest.hexdigest())
        rows_left -= len(rows.texts)


def unchanged(job: Job, done: Mapping[int, Done]) -> dict[int, Done]:
    """Return the finished shards whose rows are the same in the changed inputs, with new end positions."""
    policy: OnError = "skip" if job.options.on_error == "skip" else "null"
    unchanged_shards: dict[int, Done] = {}
    with Reader(job.inputs) as reader:
        for shard in range(max(done, default=-1) + 1):
            kept_json: list[str] = []
            last = None
            for last in read_shard(reader, shard, job.options.rows_per_shard):
                kept_json += _typed_as_json(apply_error_policy(last, policy))
            if last is None:
                break
            if (
                shard in done
                and done[shard].digest == last.digest
                and kept_json == _written_as_json(job, shard)
            ):
                unchanged_shards[shard] = replace(done[shard], end=last.end)
    return unchanged_shards


def _typed_as_json(rows: Rows) -> list[str]:
    """Return columns as JSON for the digest; in JSON, NaN equals NaN."""
    if rows.columns is None or isinstance(rows.columns, list):
        return []
    from ov_minilm.bulk.columns import render

    return render(rows.columns, {})


def _written_as_json(job: Job, shard: int) -> list[str]:
    if job.inputs.schema is None:
        return []
    from ov_minilm.bulk.parquet import read_kept

    return read_kept(job.part(shard), job.inputs.keep)


@dataclass(frozen=True, slots=True)
class Task:
    """A shard to compute."""

    shard: int
    start: Position
    rows: int


def plan(inputs: Inputs, rows_per_shard: int, done: Mapping[int, Done]) -> Iterator[Task]:
    """Yield a task for every unfinished shard.

    The number of rows of a Parquet file is in its metadata; lines have to be counted.
    """
    with closing(_shards(inputs, done)) as shards:
        for shard, reader in shards:
            start = reader.at
            if rows := reader.skip(rows_per_shard):
                yield Task(shard, start, rows)


def encode(
    rows: Iterable[Rows], embedder: Encoder, options: BulkOptions
) -> Generator[EncodedRows, None, None]:
    """Yield rows with their vectors, in order.

    Raises:
        BadRow: with on_error="stop".
    """
    waiting: deque[_Submitted] = deque()
    submitted = queued = 0  # number of tokens in all blocks so far, and in the blocks in `waiting`
    started = time.monotonic()
    min_tokens, max_tokens = QUEUED_TOKENS
    stop: BadRow | None = None
    try:
        for read in rows:
            checked, tokenized = _tokenize(read, embedder, options.truncate)
            try:
                kept = apply_error_policy(checked, options.on_error)
            except BadRow as error:  # raised later, after the rows before the bad one were written
                stop = error
                break
            waiting.append(_Submitted(checked, kept, tokenized, embedder.submit(tokenized)))  # type: ignore[arg-type]  # tokenized by this Encoder
            submitted += waiting[-1].queue_tokens
            queued += waiting[-1].queue_tokens
            tokens_per_s = (submitted - queued) / max(time.monotonic() - started, 1e-9)
            while queued > min(max_tokens, max(min_tokens, QUEUED_S * tokens_per_s)):
                yield waiting[0].result(options)
                queued -= waiting.popleft().queue_tokens
        while waiting:
            yield waiting[0].result(options)
            waiting.popleft()
        if stop:
            raise stop
    finally:
        for block in waiting:
            block.future.cancel()  # otherwise closing the embedder would first compute these texts


@dataclass(frozen=True)
class _Submitted:
    """A block of rows that waits for its vectors."""

    rows: Rows  # all rows, as they were read
    kept: Rows  # the rows that are written
    tokenized: Tokenized | PartlyKeptTexts
    future: Future[FloatArray] | Pending

    @cached_property
    def queue_tokens(self) -> int:
        """The size of this block, in tokens, as QUEUED_TOKENS counts it."""
        chars = sum(len(text) for text in self.kept.texts if text is not None)
        return max(sum(self.tokenized.tokens), chars // CHARS_PER_TOKEN)

    def result(self, options: BulkOptions) -> EncodedRows:
        """Wait for the vectors."""
        vectors = convert_vectors(self.future.result(), options.dimensions, options.dtype)
        block = Block(self.kept.texts, self.kept.columns, _with_zero_vectors(vectors, self.kept.texts))
        return EncodedRows(self.rows, block, sum(self.tokenized.tokens), len(self.tokenized.truncated))


def _tokenize(rows: Rows, embedder: Encoder, truncate: Truncate) -> tuple[Rows, Tokenized | PartlyKeptTexts]:
    """Tokenize the texts; with truncate="error", texts that are too long become bad rows."""
    places = [place for place, text in enumerate(rows.texts) if text is not None]
    texts = [text for text in rows.texts if text is not None]
    tokenized = embedder.tokenize(texts, truncate="mean" if truncate == "mean" else "end")
    if truncate != "error" or not tokenized.truncated:
        return rows, tokenized
    bad = dict(rows.bad)
    kept: list[str | None] = list(rows.texts)
    for index in tokenized.truncated:
        limit, tokens = tokenized.tokens[index], embedder.count_tokens(texts[index])
        bad[places[index]] = bad_row("tokens", tokens=tokens, most=limit)
        kept[places[index]] = None
    return _tokenize(replace(rows, texts=kept, bad=bad), embedder, truncate)


def _with_zero_vectors(vectors: Vectors, texts: list[str | None]) -> Vectors:
    """Insert zero vectors for rows without a text, so that vector n belongs to row n."""
    if len(vectors) == len(texts):
        return vectors
    out = np.zeros((len(texts), vectors.shape[1]), vectors.dtype)
    out[[row for row, text in enumerate(texts) if text is not None]] = vectors
    return out


def write_shard(
    job: Job,
    shard: int,
    portions: Iterable[EncodedRows],
    on_encoded: Callable[[EncodedRows], None] = lambda _: None,
) -> Done:
    """Write a shard and the list of its bad rows, each file completely or not at all."""
    errors: list[bytes] = []
    end, digest = Position(), hashlib.blake2b(digest_size=16).hexdigest()
    tokens = truncated = 0

    def blocks() -> Iterator[Block]:
        nonlocal end, digest, tokens, truncated
        for portion in portions:
            end, digest = portion.rows.end, portion.rows.digest
            tokens += portion.tokens
            truncated += portion.truncated
            for error in portion.rows.errors():
                line = {"file": error.file, error.unit: error.row, "reason": error.reason}
                errors.append(json.dumps(line, ensure_ascii=True).encode() + b"\n")
            on_encoded(portion)
            yield portion.block

    with atomic_write(job.part(shard)) as file:
        rows = job.sink.write(file, blocks())
        if errors:
            with atomic_write(job.errors(shard)) as log:
                log.writelines(errors)
    size = job.part(shard).stat().st_size
    return Done(shard, end, rows, tokens, truncated, len(errors), digest, size)

"""A job: rows in, shards out, whichever engine does it, and the same bytes however often it was interrupted.

Shards are cut by input rows, so that their borders do not depend on what happened before. Each is written
whole beside its place, renamed into it, and then noted in the journal. One file, if that is asked for, is put
together from the shards at the end.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ov_minilm.bulk.inputs import Inputs
from ov_minilm.bulk.journal import NAME, Done, Journal
from ov_minilm.bulk.meter import Meter
from ov_minilm.bulk.reader import Reader
from ov_minilm.bulk.rows import OnError, Position, Rows, settle
from ov_minilm.bulk.sink import FORMS, VECTOR, Block, Form, Sink, json_lines
from ov_minilm.embedder import Embedder, Truncate
from ov_minilm.files import check_writable, whole

SHARD = 65_536  # rows: what a kill can cost is the work on one shard
AHEAD = 8192  # texts in work, so that the engine never waits for reading or writing

UNFINISHED = (".part-*", "._errors-*")  # what a killed process was writing
WRITTEN = (*UNFINISHED, "part-*", "_errors-*.log", NAME)

# What decides the vectors, of what Embedder.info says, beside the versions of OpenVINO and tokenizers.
ABOUT = ("model", "weights", "fingerprint", "device", "precision", "long_precision", "lowering", "kernel")

Vectors = NDArray[Any]
Encode = Callable[[list[str]], "Future[Vectors]"]
Opened = Callable[[], AbstractContextManager[Embedder]]


@dataclass(frozen=True, slots=True)
class Options:
    """What decides the output, beside the model and the rows."""

    truncate: Truncate = "end"
    on_error: OnError = "stop"
    rows_per_shard: int = SHARD

    def __post_init__(self) -> None:
        if self.rows_per_shard < 1:
            raise ValueError(f"rows_per_shard={self.rows_per_shard}; at least 1")


@dataclass(frozen=True, slots=True)
class Output:
    """Where the vectors go: one file, or a folder of shards."""

    path: Path
    form: Form
    folder: bool

    @classmethod
    def parse(cls, name: str, form: Form | None = None) -> Output:
        """Take a name with a known ending as a file, one without an ending as a folder.

        Raises:
            ValueError: the ending is unknown, or another one than `form`.
        """
        path = Path(name)
        ending = path.suffix.removeprefix(".")
        if name.endswith(("/", os.sep)) or path.is_dir() or not ending:
            return cls(path, form or "parquet", folder=True)
        if ending not in FORMS or form not in (None, ending):
            known = f".{form}" if form else ", ".join(f".{one}" for one in FORMS)
            raise ValueError(
                f"{name}: a file's name must end in {known}; a folder's has no ending, or a / last"
            )
        return cls(path, ending, folder=False)

    @property
    def parts(self) -> Path:
        """The folder of shards: the output itself, or one beside the file until that is there."""
        return self.path if self.folder else self.path.with_name(f"{self.path.name}.parts")


@dataclass(frozen=True, slots=True)
class Summary:
    """What a finished job did."""

    output: Path
    rows: int
    dimensions: int
    bad: int
    errors: str | None  # where the bad rows are named


@dataclass(frozen=True, slots=True)
class Job:
    """All that is needed to work on any shard, on any machine that sees the files."""

    inputs: Inputs
    options: Options
    sink: Sink
    folder: Path

    def part(self, shard: int) -> Path:
        """Where a shard's vectors go."""
        return self.folder / f"part-{shard:05}.{self.sink.form}"

    def errors(self, shard: int) -> Path:
        """Where its bad rows are named, a JSON object a line; there is none without any."""
        return self.folder / f"_errors-{shard:05}.log"


def run(
    inputs: Inputs,
    output: Output,
    options: Options,
    opened: Opened,
    *,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda _: None,
    progress: bool | None = None,
) -> Summary:
    """Encode files into files, going on where an earlier run of the same job stopped.

    Raises:
        JobRefused: the output was begun by another job.
        BadRow: with on_error="stop".
        OSError: an input or the output cannot be used.
    """
    _prepare(inputs, output, overwrite)
    check_keep(inputs, output.form)
    with opened() as embedder, Meter(inputs.size(), progress) as meter:
        job = Job(inputs, options, make_sink(embedder, inputs, options, output.form), output.parts)
        job.folder.mkdir(exist_ok=True)
        with Journal.open(job.folder, identity(job)) as journal:
            journal.forget(lambda done: not job.part(done.shard).exists())
            _remove(job.folder, UNFINISHED)
            if journal.done:
                say(f"{job.folder}: going on after {len(journal.done)} finished shards")
            try:
                encode_locally(job, embedder, journal, meter)
                return _finish(job, output, journal)
            except BaseException:
                if inputs.resumable and journal.done:
                    say(f"{job.folder} keeps what is done; the same command goes on from there")
                else:
                    _remove(job.folder, WRITTEN)
                raise


def stream(
    inputs: Inputs,
    options: Options,
    file: IO[bytes],
    opened: Opened,
    *,
    say: Callable[[str], None],
    progress: bool | None = None,
) -> int:
    """Write JSON lines as the vectors come; return the number of bad rows, each of which was said."""
    bad = 0
    with (
        opened() as embedder,
        Meter(inputs.size(), progress) as meter,
        encoder(embedder, options) as encode,
    ):
        for rows, block in encoded(unread(inputs, options.rows_per_shard, {}), encode, options, meter):
            for error in rows.errors():
                say(f"warning: {error}")
                bad += 1
            for line in json_lines(block):
                file.write(line.encode("utf-8"))
    return bad


def check_keep(inputs: Inputs, form: Form) -> None:
    """Refuse columns that a form cannot hold."""
    if form == "npy" and inputs.keep:
        raise ValueError(".npy holds vectors alone; columns are kept in .parquet and .jsonl")
    if VECTOR in inputs.keep:
        raise ValueError(f"a column to keep is called {VECTOR!r}, as the vectors are; rename it")


def make_sink(embedder: Embedder, inputs: Inputs, options: Options, form: Form) -> Sink:
    """Say what the files hold and what they say of themselves."""
    info = embedder.info
    about = {
        name: str(getattr(info, name))
        for name in (
            "model",
            "weights",
            "fingerprint",
            "device",
            "precision",
            "long_precision",
            "lowering",
            "kernel",
        )
    }
    about |= {"openvino": info.versions["openvino"], "tokenizers": info.versions["tokenizers"]}
    about |= {"truncate": options.truncate}
    return Sink(form, embedder.encode([]), inputs.schema, about)


def identity(job: Job) -> dict[str, Any]:
    """Everything that decides the bytes of the output."""
    facts: dict[str, Any] = {"format": 1, "form": job.sink.form, **job.sink.about}
    facts |= asdict(job.options)
    facts |= {"column": job.inputs.column, "keep": list(job.inputs.keep), "kind": job.inputs.kind}
    if job.sink.form == "parquet":
        facts["pyarrow"] = version("pyarrow")  # it writes its number into the files
    for index, name in enumerate(job.inputs.files):
        path = Path(name)
        facts[f"input {index}"] = _stamp(path) if name != "-" else name
    return facts


def _stamp(path: Path) -> str:
    found = path.stat()
    return f"{path.resolve()}, {found.st_size} bytes, {found.st_mtime_ns}"


def encode_locally(job: Job, embedder: Embedder, journal: Journal, meter: Meter) -> None:
    """Do every shard that is not done, in this process."""
    rows = unread(job.inputs, job.options.rows_per_shard, journal.done)
    with closing(rows), encoder(embedder, job.options) as encode:
        blocks = encoded(rows, encode, job.options, meter)
        for shard, of_shard in groupby(blocks, key=lambda pair: pair[0].shard):
            journal.add(write_shard(job, shard, of_shard))
    if not journal.done:  # no rows at all: one empty shard says what they would have been
        journal.add(write_shard(job, 0, iter(())))


@contextmanager
def encoder(embedder: Embedder, options: Options) -> Iterator[Encode]:
    """Encode in the background, a portion after the other."""
    with ThreadPoolExecutor(1) as pool:
        yield lambda texts: pool.submit(embedder.encode, texts, progress=False, truncate=options.truncate)


def unread(inputs: Inputs, rows_per_shard: int, done: Mapping[int, Done]) -> Generator[Rows, None, None]:
    """Yield the rows of every shard that is not done, in order; none crosses a shard's border."""
    shard, at = 0, Position()
    while True:
        while shard in done:
            at = done[shard].end
            shard += 1
        with Reader(inputs, at) as reader:
            while shard not in done:
                left = rows_per_shard
                while left and (rows := reader.take(left)) is not None:
                    yield replace(rows, shard=shard)
                    left -= len(rows.texts)
                if left:
                    return
                shard += 1


def encoded(
    portions: Iterator[Rows], encode: Encode, options: Options, meter: Meter
) -> Iterator[tuple[Rows, Block]]:
    """Pair each portion of rows with its vectors, in order, with a few portions in work ahead."""
    waiting: deque[tuple[Rows, Rows, Future[Vectors]]] = deque()
    ahead = 0

    def first() -> tuple[Rows, Block]:
        rows, kept, future = waiting.popleft()
        vectors = future.result()
        meter.advance(len(vectors), 0, rows.done)
        return rows, Block(kept.texts, kept.columns, _scattered(vectors, kept.texts))

    for rows in portions:
        kept = settle(rows, options.on_error)
        waiting.append((rows, kept, encode([text for text in kept.texts if text is not None])))
        ahead += len(kept.texts)
        while ahead > AHEAD:
            ahead -= len(waiting[0][1].texts)
            yield first()
    while waiting:
        yield first()


def _scattered(vectors: Vectors, texts: list[str | None]) -> Vectors:
    """Put zeros where there is no text, so that vector n is of row n."""
    if len(vectors) == len(texts):
        return vectors
    out = np.zeros((len(texts), vectors.shape[1]), vectors.dtype)
    out[[index for index, text in enumerate(texts) if text is not None]] = vectors
    return out


def write_shard(job: Job, shard: int, blocks: Iterator[tuple[Rows, Block]]) -> Done:
    """Write a shard and what was bad in it, each whole or not at all."""
    errors: list[dict[str, Any]] = []
    end = Position()

    def seen() -> Iterator[Block]:
        nonlocal end
        for rows, block in blocks:
            end = rows.end
            errors.extend(
                {"file": error.file, error.unit: error.row, "reason": error.reason} for error in rows.errors()
            )
            yield block

    with whole(job.part(shard)) as file:
        count = job.sink.write(file, seen())
        if errors:
            with whole(job.errors(shard)) as log:
                log.writelines(json.dumps(error, ensure_ascii=False).encode() + b"\n" for error in errors)
    return Done(shard, end, count, len(errors))


def _prepare(inputs: Inputs, output: Output, overwrite: bool) -> None:
    """Find out what is wrong with the output before the work for it is done."""
    parts = output.parts
    if not output.folder:
        check_writable(output.path)
    elif not parts.exists():
        check_writable(parts)
    elif any(parts.iterdir()) and not (parts / NAME).exists():
        raise FileExistsError(f"{parts}: a folder with files in it, of no job of ours; name a new one")
    if parts.exists() and (overwrite or not inputs.resumable):
        _remove(parts, WRITTEN)


def _remove(folder: Path, patterns: Sequence[str]) -> None:
    """Remove what jobs write into a folder, and the folder if nothing else is in it."""
    for pattern in patterns:
        for path in folder.glob(pattern):
            path.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


def _finish(job: Job, output: Output, journal: Journal) -> Summary:
    shards = range(len(journal.done))
    dimensions = job.sink.empty.shape[1]
    rows, bad = (sum(getattr(journal.done[shard], name) for shard in shards) for name in ("rows", "bad"))
    if output.folder:
        return Summary(output.path, rows, dimensions, bad, str(job.folder / "_errors-*.log") if bad else None)
    errors = output.path.with_name(f"{output.path.name}.errors.jsonl")
    if bad:
        with whole(errors) as file:
            for shard in shards:
                if job.errors(shard).exists():
                    file.write(job.errors(shard).read_bytes())
    else:
        errors.unlink(missing_ok=True)
    if job.sink.form != "parquet":
        with whole(output.path.with_name(f"{output.path.name}.json")) as file:
            file.write(json.dumps(dict(job.sink.about), indent=1).encode() + b"\n")
    with whole(output.path) as file:
        job.sink.join(file, [job.part(shard) for shard in shards])
    shutil.rmtree(job.folder)
    return Summary(output.path, rows, dimensions, bad, str(errors) if bad else None)

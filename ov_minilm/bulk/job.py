"""A job: files in, files out, whichever engine does it, and the same bytes however often it was interrupted.

Shards are cut by input rows, so that their borders do not depend on what happened before. Each is written
whole beside its place, renamed into it, and then noted in the journal. One file, if that is asked for, is put
together from the shards at the end.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import IO, Any, Protocol

from ov_minilm.bulk.inputs import STDIN, Inputs
from ov_minilm.bulk.journal import NAME, Journal
from ov_minilm.bulk.meter import Meter
from ov_minilm.bulk.pipeline import Job, Options, Portion, encode, make_sink, unread, write_shard
from ov_minilm.bulk.rows import VECTOR
from ov_minilm.bulk.sink import FORMS, Form, Sink, json_lines
from ov_minilm.files import check_writable, whole
from ov_minilm.runtime.embedder import Embedder

UNFINISHED = (".part-*", "._errors-*")  # what a killed process was writing
WRITTEN = (*UNFINISHED, "part-*", "_errors-*.log")


class Engine(Protocol):
    """Who does the shards of a job."""

    def sink(self, inputs: Inputs, options: Options, form: Form) -> Sink:
        """Say what the vectors are like, and what made them."""

    def work(self, job: Job, journal: Journal, meter: Meter) -> None:
        """Do every shard that is not in the journal, and note each there."""


@dataclass(frozen=True, slots=True)
class Local:
    """This process."""

    embedder: Embedder

    def sink(self, inputs: Inputs, options: Options, form: Form) -> Sink:
        """Say what the vectors are like, and what made them."""
        return make_sink(self.embedder, inputs, options, form)

    def work(self, job: Job, journal: Journal, meter: Meter) -> None:
        """Do them in order; while one is written, the texts of the next are in work."""
        with closing(unread(job.inputs, job.options.rows_per_shard, journal.done)) as rows:
            portions = encode(rows, self.embedder, job.options)
            for shard, of_shard in groupby(portions, key=lambda portion: portion.rows.shard):
                journal.add(write_shard(job, shard, of_shard, partial(tell, meter)))


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
        for known in FORMS:
            if ending == known and form in (None, known):
                return cls(path, known, folder=False)
        endings = ", ".join(f".{one}" for one in ([form] if form else FORMS))
        raise ValueError(f"{name}: the name of a file must end in {endings}, that of a folder in /")

    @property
    def parts(self) -> Path:
        """The folder of shards: the output itself, or one beside the file until that is there."""
        return self.path if self.folder else self.beside("parts")

    def beside(self, ending: str) -> Path:
        """Name a file that belongs to the output."""
        return self.path.with_name(f"{self.path.name}.{ending}")


@dataclass(frozen=True, slots=True)
class Summary:
    """What a finished job did."""

    output: Path
    rows: int
    dimensions: int
    truncated: int = 0  # texts that lost their ends
    bad: int = 0
    errors: Path | None = None  # where the bad rows are named


def check(inputs: Inputs, output: Output, options: Options) -> None:
    """Find out what is wrong with the output before the work for it is done."""
    if output.form == "npy" and options.on_error == "null" and not options.dtype.startswith("float"):
        raise ValueError(
            f".npy of {options.dtype} has no number that is none; skip bad rows, or use .parquet"
        )
    if output.form == "npy" and inputs.keep:
        raise ValueError(".npy holds vectors alone; columns are kept in .parquet and .jsonl")
    if VECTOR in inputs.keep:
        raise ValueError(f"a column to keep is called {VECTOR!r}, as the vectors are; rename it")
    if not output.folder:
        check_writable(output.path)
    elif not output.parts.exists():
        check_writable(output.parts)
    elif any(output.parts.iterdir()) and not (output.parts / NAME).exists():
        raise FileExistsError(f"{output.parts}: a folder with files in it, of no job of ours; name a new one")


def run(
    inputs: Inputs,
    output: Output,
    options: Options,
    engine: Engine,
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
    job = Job(inputs, options, engine.sink(inputs, options, output.form), output.parts)
    with begin(job, overwrite=overwrite, say=say) as journal, Meter(inputs.size(), progress) as meter:
        engine.work(job, journal, meter)
        if not journal.done:  # no rows at all: an empty shard says what they would have been
            journal.add(write_shard(job, 0, []))
        return finish(job, output, journal)


def stream(
    inputs: Inputs,
    options: Options,
    file: IO[bytes],
    embedder: Embedder,
    *,
    say: Callable[[str], None],
    progress: bool | None = None,
) -> Summary:
    """Write JSON lines as the vectors come, and say each bad row."""
    rows = truncated = bad = 0
    with Meter(inputs.size(), progress) as meter, closing(unread(inputs, options.rows_per_shard, {})) as read:
        for portion in encode(read, embedder, options):
            for error in portion.rows.errors():
                say(f"warning: {error}")
                bad += 1
            file.writelines(line.encode("utf-8") for line in json_lines(portion.block))
            rows += len(portion.block.texts)
            truncated += portion.truncated
            tell(meter, portion)
    dimensions = embedder.encode([], dimensions=options.dimensions).shape[1]
    return Summary(Path(STDIN), rows, dimensions, truncated, bad)


def identity(job: Job) -> dict[str, Any]:
    """Everything that decides the bytes of the output."""
    facts: dict[str, Any] = {"format": 1, "form": job.sink.form, **job.sink.about, **asdict(job.options)}
    facts |= {"column": job.inputs.column, "keep": list(job.inputs.keep), "kind": job.inputs.kind}
    if job.sink.form == "parquet":
        facts["pyarrow"] = version("pyarrow")  # which writes its number into the files
    for number, name in enumerate(job.inputs.files):
        facts[f"input {number}"] = name if name == STDIN else _stamp(Path(name))
    return facts


def _stamp(path: Path) -> str:
    found = path.stat()
    return f"{path.resolve()}, {found.st_size} bytes, changed {found.st_mtime_ns}"


@contextmanager
def begin(job: Job, *, overwrite: bool, say: Callable[[str], None]) -> Iterator[Journal]:
    """Hold the journal while the job is worked on; afterwards nothing half written is left."""
    job.folder.mkdir(exist_ok=True)
    with Journal.open(job.folder) as journal:
        if not overwrite:
            journal.resume(identity(job))
        if overwrite or not job.inputs.resumable:  # what stdin gave before is gone
            journal.clear()
            _remove(job.folder, WRITTEN)
            journal.resume(identity(job))
        journal.forget(lambda done: not job.part(done.shard).exists())
        _remove(job.folder, UNFINISHED)
        if journal.done:
            say(f"{job.folder}: {len(journal.done)} shards are done")
        try:
            yield journal
        except BaseException:
            if job.inputs.resumable and journal.done:
                say(f"{job.folder} keeps what is done; the same command goes on from there")
            else:
                _remove(job.folder, (*WRITTEN, NAME))
                with suppress(OSError):  # somebody else's files are in it
                    job.folder.rmdir()
            raise


def tell(meter: Meter, portion: Portion) -> None:
    """Count a portion."""
    meter.advance(len(portion.block.texts), portion.tokens, portion.rows.done)


def finish(job: Job, output: Output, journal: Journal) -> Summary:
    """Put one file together, if that is asked for; the shards go when it is in its place."""
    done = [journal.done[shard] for shard in range(len(journal.done))]
    bad = sum(one.bad for one in done)
    if output.folder:
        errors = job.folder / "_errors-*.log"
    else:
        errors = output.beside("errors.jsonl")
        _join_errors(job, errors, bad)
        if job.sink.form != "parquet":
            with whole(output.beside("json"), locked=True) as file:
                file.write(json.dumps(dict(job.sink.about), indent=1).encode() + b"\n")
        with whole(output.path, locked=True) as file:
            job.sink.join(file, [job.part(one.shard) for one in done])
        shutil.rmtree(job.folder)
    return Summary(
        output.path,
        rows=sum(one.rows for one in done),
        dimensions=int(job.sink.about["dimensions"]),
        truncated=sum(one.truncated for one in done),
        bad=bad,
        errors=errors if bad else None,
    )


def _join_errors(job: Job, errors: Path, bad: int) -> None:
    if not bad:
        errors.unlink(missing_ok=True)  # of an earlier job
        return
    with whole(errors, locked=True) as file:
        for path in sorted(job.folder.glob("_errors-*.log")):
            file.write(path.read_bytes())


def _remove(folder: Path, patterns: Sequence[str]) -> None:
    for pattern in patterns:
        for path in folder.glob(pattern):
            path.unlink()

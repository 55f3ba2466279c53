"""A job encodes files into files, on this machine or on Ray; interruptions do not change the output.

Shards are ranges of input rows, so their boundaries do not depend on earlier interruptions. Each shard is
written to a temporary file, renamed, and then recorded in the journal. If the output is a single file, it is
joined from the shards at the end.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Protocol

from ov_minilm.bulk.inputs import STDIN, Inputs, import_arrow
from ov_minilm.bulk.journal import JOURNAL_NAME, Done, Header, Journal, compare
from ov_minilm.bulk.meter import Meter
from ov_minilm.bulk.outputs import Output, check_output, check_stream
from ov_minilm.bulk.pipeline import (
    BulkOptions,
    EncodedRows,
    Encoder,
    Job,
    encode,
    make_sink,
    pending_rows,
    unchanged,
    write_shard,
)
from ov_minilm.bulk.refusals import refusal
from ov_minilm.bulk.sink import Form, Sink, json_lines
from ov_minilm.errors import BadRow
from ov_minilm.files import atomic_write

UNFINISHED = (".part-*", "._errors-*")  # files that a killed process did not finish
JOB_FILES = (*UNFINISHED, "part-*", "_errors-*.log")


class Backend(Protocol):
    """Computes the shards of a job, in this process or on a cluster."""

    def sink(self, inputs: Inputs, options: BulkOptions, form: Form) -> Sink:
        """Return the sink, which has the type of the vectors, the kept columns and the metadata."""

    def work(self, job: Job, journal: Journal, meter: Meter) -> None:
        """Compute every shard that is not in the journal, and record it there."""


@dataclass(frozen=True, slots=True)
class Local:
    """Computes in this process."""

    embedder: Encoder

    def sink(self, inputs: Inputs, options: BulkOptions, form: Form) -> Sink:
        """Return the sink, which has the type of the vectors, the kept columns and the metadata."""
        return make_sink(self.embedder, inputs, options, form)

    def work(self, job: Job, journal: Journal, meter: Meter) -> None:
        """Compute shards in order; while a shard is written, the engine encodes texts of the next shard."""
        with (
            closing(pending_rows(job.inputs, job.options.rows_per_shard, journal.done)) as rows,
            closing(encode(rows, self.embedder, job.options)) as portions,
        ):
            for first in portions:
                blocks = _blocks_of_shard(first, portions, job.options.rows_per_shard)
                done = write_shard(job, first.rows.shard, blocks, partial(update_meter, meter))
                journal.add(done)
                meter.keep(done.rows)


def _blocks_of_shard(first: EncodedRows, portions: Iterator[EncodedRows], rows: int) -> Iterator[EncodedRows]:
    """Yield the blocks of one shard, without reading the next shard."""
    yield first
    rows_left = rows - len(first.rows.texts)
    while rows_left and (portion := next(portions, None)):
        yield portion
        rows_left -= len(portion.rows.texts)


@dataclass(frozen=True, slots=True)
class Summary:
    """The result of a finished job."""

    output: Path
    rows: int
    dimensions: int
    truncated: int = 0  # number of texts that were cut
    bad: int = 0
    nulls: int = 0  # number of rows whose vector is null
    errors: Path | None = None  # lists the bad rows


def run(
    inputs: Inputs,
    output: Output,
    options: BulkOptions,
    engine: Backend | Callable[[], Backend],
    *,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda _: None,
    progress: bool | None = None,
) -> Summary:
    """Encode files into files; resume if an earlier run of the same job was interrupted.

    `engine` may be a function that opens the backend; the function is called after the output was checked.

    Raises:
        JobRefused: the output belongs to another job.
        BadRow: a row is bad, and `on_error` is "stop".
        OSError: an input or the output cannot be used.
        ValueError: the output is among the inputs, or cannot have such vectors or columns.

    A note of the error says how many rows are kept.
    """
    check_output(inputs, output, dtype=options.dtype, on_error=options.on_error)
    backend = engine() if callable(engine) else engine
    job = Job(inputs, options, backend.sink(inputs, options, output.form), output.parts)
    with begin(job, overwrite=overwrite, say=say) as journal, Meter(inputs.size(), progress) as meter:
        backend.work(job, journal, meter)
        if not journal.done:  # without any rows, an empty shard has the columns and metadata
            journal.add(write_shard(job, 0, []))
        return finish(job, output, journal)


def stream(
    inputs: Inputs,
    options: BulkOptions,
    file: IO[bytes],
    embedder: Encoder,
    *,
    say: Callable[[str], None],
    progress: bool | None = None,
) -> Summary:
    """Write JSON lines as soon as their vectors are computed, and report each bad row.

    `file` must be unbuffered, so that a failing write raises here and not when the process exits.

    Raises:
        TypeError: the stream takes str, as sys.stdout does.
        ValueError: the file is an input, or the columns cannot be written.
    """
    if isinstance(file, io.TextIOBase):
        raise refusal("text_stream")
    check_stream(inputs, file, str(getattr(file, "name", "the stream")))
    rows = truncated = bad = 0
    with (
        Meter(inputs.size(), progress) as meter,
        closing(pending_rows(inputs, options.rows_per_shard, {})) as read,
        closing(encode(read, embedder, options)) as portions,
    ):
        for portion in portions:
            for error in portion.rows.errors():
                say(f"warning: {error}")
                bad += 1
            _write_all(file, "".join(json_lines(portion.block)).encode("utf-8"))
            rows += len(portion.block.texts)
            truncated += portion.truncated
            update_meter(meter, portion)
            meter.keep(len(portion.block.texts))
    dimensions = embedder.encode([], dimensions=options.dimensions).shape[1]
    nulls = bad if options.on_error == "null" else 0
    return Summary(Path(STDIN), rows, dimensions, truncated, bad, nulls)


def _write_all(file: IO[bytes], content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[file.write(left) :]


def identify(job: Job) -> Header:
    """Return what identifies a job: everything that determines the bytes of the output."""
    inputs = job.inputs
    job_facts: dict[str, Any] = {
        "format": 2,
        "form": job.sink.form,
        **job.sink.metadata,
        **asdict(job.options),
    }
    on_error = job_facts.pop("on_error")
    job_facts |= {
        "column": inputs.column,
        "keep": list(inputs.keep),
        "kind": inputs.kind,
        **asdict(inputs.dialect),
    }
    if job.sink.form == "parquet":
        # pyarrow writes its version into the files
        job_facts["pyarrow"] = import_arrow("Parquet").__version__
        job_facts["columns"] = [f"{field.name}: {field.type}" for field in inputs.schema or ()]
    stamps = [[_name(file, inputs), _stamp(file, inputs)] for file in inputs.files]
    return Header(json.loads(json.dumps(job_facts)), stamps, on_error)


def _name(file: str, inputs: Inputs) -> str:
    return file if file in inputs.pipes else str(Path(file).resolve())


def _stamp(file: str, inputs: Inputs) -> str:
    if file in inputs.pipes:
        return "can be read only once"
    found = Path(file).stat()
    return f"{found.st_size} bytes, changed {found.st_mtime_ns}"


@contextmanager
def begin(job: Job, *, overwrite: bool, say: Callable[[str], None]) -> Iterator[Journal]:
    """Yield the locked journal; at the end, remove incomplete files. A note of an error says what is kept."""
    current = identify(job)
    job.folder.mkdir(exist_ok=True)
    with Journal.open(job.folder) as journal:
        _resume(job, journal, current, overwrite=overwrite, say=say)
        try:
            yield journal
        except BaseException as error:
            advice = "fix the row, or pass --on-error skip: " if isinstance(error, BadRow) else ""
            if job.inputs.resumable and journal.done:
                rows = sum(done.rows for done in journal.done.values())
                kept = f"{job.folder} keeps the {rows:,} rows that are done"
                kept += f"; {advice}the same command resumes there"
            else:
                _discard(job.folder)
                too_few = f"fewer than {job.options.rows_per_shard:,} rows were done (--rows-per-shard)"
                reason = too_few if job.inputs.resumable else "a pipe cannot be read again"
                kept = f"nothing is kept: {reason}; {advice}the same command starts over"
            vars(error).setdefault("__notes__", []).append(kept)  # add_note needs Python 3.11
            raise


def _resume(
    job: Job, journal: Journal, current: Header, *, overwrite: bool, say: Callable[[str], None]
) -> None:
    """Compare the journal with the job, which `current` identifies, and with the files.

    Remove all files that do not belong to a finished shard.
    """
    recorded = journal.read()
    if recorded and not overwrite:
        compare(job.folder, recorded, current)
    if recorded is None or overwrite or not job.inputs.resumable:  # a pipe cannot be read twice
        journal.write(current, {})
    elif recorded != current:
        done = {shard: finished for shard, finished in journal.done.items() if _is_complete(job, finished)}
        if recorded.on_error != current.on_error:
            done = {shard: finished for shard, finished in done.items() if not finished.bad}
        if recorded.inputs != current.inputs:
            say(f"{job.folder}: inputs have changed; comparing {len(done)} finished shards with them")
            done = unchanged(job, done)
        journal.write(current, done)
    journal.remove_lost(lambda done: not _is_complete(job, done))
    finished = {path for shard in journal.done for path in (job.part(shard), job.errors(shard))}
    for pattern in JOB_FILES:
        for path in job.folder.glob(pattern):
            if path not in finished:
                path.unlink()
    if journal.done:
        say(f"{job.folder}: {len(journal.done)} shards are done")


def _is_complete(job: Job, done: Done) -> bool:
    """Return whether the file of a finished shard exists and still has its size."""
    part = job.part(done.shard)
    return part.is_file() and done.size in (None, part.stat().st_size)


def _discard(folder: Path) -> None:
    """Remove the files of a job, and its folder if that is empty."""
    for pattern in (*JOB_FILES, JOURNAL_NAME):
        for path in folder.glob(pattern):
            path.unlink()
    with suppress(OSError):
        folder.rmdir()


def update_meter(meter: Meter, portion: EncodedRows) -> None:
    """Add encoded rows to the progress."""
    meter.advance(len(portion.block.texts), portion.tokens, portion.rows.done)


def finish(job: Job, output: Output, journal: Journal) -> Summary:
    """If the output is a single file, join the shards into it and remove them."""
    done = [journal.done[shard] for shard in range(len(journal.done))]
    bad = sum(finished.bad for finished in done)
    errors = output.errors
    if not output.folder:
        _join_errors(job, errors, bad)
        if job.sink.form != "parquet":
            with atomic_write(output.path_beside("json"), locked=True) as file:
                file.write(json.dumps(dict(job.sink.metadata), indent=1).encode() + b"\n")
        with atomic_write(output.path, locked=True) as file:
            job.sink.join(file, [job.part(finished.shard) for finished in done])
        _discard(job.folder)
    return Summary(
        output.path,
        rows=sum(finished.rows for finished in done),
        dimensions=int(job.sink.metadata["dimensions"]),
        truncated=sum(finished.truncated for finished in done),
        bad=bad,
        nulls=bad if job.options.on_error == "null" else 0,
        errors=errors if bad else None,
    )


def _join_errors(job: Job, errors: Path, bad: int) -> None:
    if not bad:
        errors.unlink(missing_ok=True)  # files of an earlier job
        return
    with atomic_write(errors, locked=True) as file:
        for path in sorted(job.folder.glob("_errors-*.log")):
            file.write(path.read_bytes())

"""Bulk jobs: every input format into every output format, with the same bytes after any interruption."""

import gzip
import io
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fuzzing.stub import HashEmbedder, vector
from support.corpora import content, sentences, shards, vectors, write
from support.processes import python, run_inline, wait_until

from ov_minilm import Embedder
from ov_minilm.bulk.job import Summary
from ov_minilm.bulk.journal import Journal
from ov_minilm.bulk.rows import OnError
from ov_minilm.bulk.sink import Sink
from ov_minilm.errors import BadRow, JobRefused
from ov_minilm.runtime.output import DTYPES

RunJob = Callable[..., Summary]
TEXTS = sentences(1000)


def modified(folder: Path) -> dict[str, int]:
    """Return when each shard was written, in nanoseconds."""
    return {path.name: path.stat().st_mtime_ns for path in shards(folder)}


@pytest.mark.parametrize(
    ("output", "options"),
    [
        *((name, {}) for name in ("v.npy", "v.jsonl", "v.parquet", "v")),
        *((name, {"dimensions": 128, "dtype": dtype}) for name in ("v.npy", "v.parquet") for dtype in DTYPES),
    ],
)
def test_vectors_are_those_of_embedder_encode(
    tmp_path: Path, output: str, options: dict[str, Any], shipped: Embedder, run_job: RunJob
) -> None:
    """For all pairs of formats, vectors have the order of the rows; the output names the model."""
    for number, name in enumerate(["b.jsonl.zst", "a1.parquet", "a2.parquet", "c.csv.gz", "d.txt"]):
        write(tmp_path / name, TEXTS[30 * number : 30 * number + 30])
    files = [tmp_path / name for name in ("b.jsonl.zst", "a*.parquet", "c.csv.gz", "d.txt")]
    expected, dimensions = shipped.encode(TEXTS[:150], **options), options.get("dimensions", 384)

    done = run_job(*files, to=tmp_path / output, embedder=shipped, **options)

    found = vectors(tmp_path / output)
    assert Summary(tmp_path / output, rows=150, dimensions=dimensions) == done
    assert np.array_equal(expected, found)
    assert expected.dtype == found.dtype
    if output.endswith(("npy", "jsonl")):
        metadata = json.loads((tmp_path / f"{output}.json").read_text())
    else:
        stored = pq.read_schema(next(iter(shards(tmp_path / output)), tmp_path / output)).metadata
        metadata = {
            name.decode().removeprefix("ov_minilm."): value.decode() for name, value in stored.items()
        }
    facts = tuple(metadata[name] for name in ("fingerprint", "truncate", "dimensions"))
    assert (shipped.info.fingerprint, "end", str(dimensions)) == facts


def test_kept_columns_have_their_order_and_common_type(tmp_path: Path, run_job: RunJob) -> None:
    """Columns come in the order asked for; a table without rows has the same types."""
    write(tmp_path / "a.parquet", ["one", "two"])
    write(tmp_path / "b.jsonl", ["three", "four"])
    pq.write_table(pq.read_table(tmp_path / "a.parquet").slice(2), tmp_path / "empty.parquet")

    for files, ids, texts in (
        (["a.parquet", "b.jsonl"], [0, 1, 0, 1], ["one", "two", "three", "four"]),
        (["empty.parquet"], [], []),
    ):
        inputs = [tmp_path / file for file in files]
        run_job(*inputs, to=tmp_path / "v.parquet", keep=["id", "text", "id"], overwrite=True)
        table = pq.read_table(tmp_path / "v.parquet")

        assert {"id": ids, "text": texts} == table.drop_columns("embedding").to_pydict()
        assert ["id", "text", "embedding"] == table.schema.names
        assert [pa.int64(), pa.list_(pa.field("element", pa.float32()), 8)] == table.schema.types[::2]


def write_bad_files(folder: Path) -> dict[str, list[str | None]]:
    """Write files with bad rows; return the texts of each file, None for a bad row."""
    bad_lines = ['{"id": 2, "text": null}', '{"id": 3, "text"', '{"id": "4", "text": "a string for an id"}']
    lines = write(folder / "in.jsonl", TEXTS)
    lines.write_text(lines.read_text() + "\n".join(['{"id": 1, "text": "a"}', *bad_lines]))
    not_utf8 = pa.array([b"a", None, b"\xff", b"b"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": not_utf8, "id": [0, 1, 2, 3]}), folder / "null.parquet")
    damaged = write(folder / "damaged.parquet", TEXTS[:300])  # in row groups of 70
    start = pq.read_metadata(damaged).row_group(1).column(1).data_page_offset
    page = damaged.read_bytes()
    damaged.write_bytes(page[:start] + b"\xff" * 50 + page[start + 50 :])
    return {
        "in.jsonl": [*TEXTS, "a", None, None, None],
        "null.parquet": ["a", None, None, "b"],
        "damaged.parquet": [*TEXTS[:70], *[None] * 70, *TEXTS[140:300]],
    }


@pytest.mark.parametrize("on_error", ["skip", "null"])
def test_a_bad_row_is_listed_and_left_out_or_null(tmp_path: Path, on_error: OnError, run_job: RunJob) -> None:
    """The list of bad rows has file and row number; all other rows have their vectors and columns."""
    files, output = write_bad_files(tmp_path), tmp_path / "v.parquet"
    bad = [
        (str(tmp_path / name), number)
        for name, texts in files.items()
        for number, text in enumerate(texts, 1)
        if text is None
    ]
    rows = [text for texts in files.values() for text in texts if text is not None or on_error == "null"]

    done = run_job(*(tmp_path / name for name in files), to=output, keep=["id"], on_error=on_error)

    listed = tmp_path / "v.parquet.errors.jsonl"
    errors = [json.loads(line) for line in listed.read_text().splitlines()]
    nulls, table = rows.count(None), pq.read_table(output)
    assert Summary(output, len(rows), 8, bad=len(bad), nulls=nulls, errors=listed) == done
    assert bad == [(error["file"], error["line" if "jsonl" in error["file"] else "row"]) for error in errors]
    assert (
        "'id' is '4', expected int64 as in the first rows; -o NAME.jsonl keeps any type"
        == errors[2]["reason"]
    )
    assert [text is None for text in rows] == table["embedding"].is_null().to_pylist()
    assert np.array_equal([vector(text) for text in rows if text], table["embedding"].drop_null().to_pylist())
    kept_ids = [1, 2, None, None, 0, 1, 2, 3] if nulls else [1, 0, 3]
    assert kept_ids == table["id"].to_pylist()[1000 : 1000 + len(kept_ids)]


def test_a_job_stops_at_the_first_bad_row(tmp_path: Path, run_job: RunJob) -> None:
    """The error has the file, the row and the reason; there is no output."""
    write_bad_files(tmp_path)
    for name, message in (
        ("in.jsonl", "line 1002: 'text' is null, expected a string"),
        ("null.parquet", "row 2: null"),
        ("damaged.parquet", "row 71: row group 1 is damaged: "),
    ):
        with pytest.raises(BadRow, match=f"{tmp_path / name}, {message}"):
            run_job(tmp_path / name, to=tmp_path / f"{name}.npy")

    assert not list(tmp_path.glob("*.npy*[!s]"))


def test_a_truncated_gzip_file_is_one_bad_row(tmp_path: Path, run_job: RunJob) -> None:
    """Rows before the damage are encoded, one error covers the rows after it, the next file is read."""
    texts, output = sentences(3000), tmp_path / "v.npy"
    (tmp_path / "in.txt.gz").write_bytes(gzip.compress("\n".join(texts).encode())[:-3000])
    files = tmp_path / "in.txt.gz", write(tmp_path / "next.txt", ["last"])

    with pytest.raises(BadRow, match="from here on the file cannot be read: Compressed file ended"):
        run_job(*files, to=output)
    done = run_job(*files, to=output, on_error="skip")

    (error,) = (tmp_path / "v.npy.errors.jsonl").read_text().splitlines()
    assert 1 < done.rows < 3001
    assert done.rows == json.loads(error)["row"]  # and one row of next.txt
    assert np.array_equal([vector(text) for text in (*texts[: done.rows - 1], "last")], vectors(output))


def test_encode_reports_bad_rows_and_exits_with_3(tmp_path: Path, shared_model: Embedder) -> None:
    """Bad rows are reported on stderr, or listed in a file if there is an output; .npy has NaN for null."""
    output, source = tmp_path / "v.npy", tmp_path / "in.txt"
    source.write_bytes(b"a\n\xff\n" + b"word " * 300 + b"\nb\n")

    pipe = run_inline("encode", "--on-error", "skip", text=source.read_bytes())
    file = run_inline("encode", source, "-o", output, "--on-error", "null", "--truncate", "error")

    bad_line = "warning: stdin, line 2: not UTF-8 (invalid start byte); set another with --encoding\n"
    truncated = "warning: 1 text is longer than the model reads; the ends were cut\n"
    summary = f"{output}: 2 vectors of 384 components, 2 nulls\n"
    listed = tmp_path / "v.npy.errors.jsonl"
    assert (3, f"{bad_line}{truncated}warning: 1 bad row\n") == (pipe.returncode, pipe.stderr.decode())
    assert (3, f"{summary}warning: 2 bad rows, listed in {listed}\n") == (
        file.returncode,
        file.stderr.decode(),
    )
    assert '"line": 3, "reason": "302 tokens, the model reads 256' in listed.read_text()
    found = np.load(output)
    assert np.array_equal(shared_model.encode(["a", "b"]), found[[0, 3]])
    assert np.isnan(found[[1, 2]]).all()


@pytest.mark.parametrize(
    ("number", "output", "seed"),
    [
        (signal.SIGKILL, "out", None),
        (signal.SIGINT, "v.jsonl", None),
        pytest.param(signal.SIGINT, "v.npy", None, marks=pytest.mark.slow),
        *(
            pytest.param(signal.SIGKILL, output, seed, marks=pytest.mark.slow)
            for output in ("out", "v.parquet")
            for seed in (None, *range(25))
        ),
    ],
)
def test_an_interrupted_job_resumes(
    tmp_path: Path, number: signal.Signals, output: str, seed: int | None, shipped: Embedder, run_job: RunJob
) -> None:
    """Finished shards are kept, and the output has the same bytes; no other process may write meanwhile.

    Ctrl-C ends a job within 2 s, reports the rows kept, leaves no incomplete file; --reuse keeps vectors.
    """
    source = write(tmp_path / "in.parquet", TEXTS)
    reuse = ["--reuse", tmp_path / "kept"] if output == "v.jsonl" else []
    keep = [] if output == "v.npy" else ["id"]
    for name in ("whole", "interrupted"):
        (tmp_path / name).mkdir()
    target = tmp_path / "interrupted" / output
    parts = target if output == "out" else target.with_name(f"{output}.parts")
    columns = ["--keep-columns", "id"] if keep else []
    command = ["encode", source, *columns, "--rows-per-shard", "20", "-o", target, *reuse]

    with subprocess.Popen(
        [sys.executable, "-m", "ov_minilm", *map(str, command)], stderr=subprocess.PIPE
    ) as process:
        if seed is None:
            wait_until(lambda: len(shards(parts)) > 1 or process.poll() is not None, 300)
            with pytest.raises(BlockingIOError, match=f"{parts}: another process is working on it"):
                Journal.open(parts)
        else:
            # A random moment, also during the start: there is no event to wait for.
            time.sleep(random.Random(seed).uniform(0.5, 8))  # noqa: S311  # not for security
        process.send_signal(number)
        sent = time.monotonic()
        stderr = process.communicate()[1].decode()
        seconds = time.monotonic() - sent
    assert seed is not None or 1 < len(shards(parts)) < 50
    if number == signal.SIGINT:
        assert re.search(rf"{parts} keeps the [1-9]\d* rows that are done; the same command resumes", stderr)
        assert (130, True) == (process.returncode, seconds < 2)  # Ctrl-C does not wait for a running batch
        assert [] == [path for path in tmp_path.rglob("*") if path.name.startswith(".")]
        for kept in ("*/*.hashes.npy", "compiled/*/*.compiled"):
            assert not reuse or list((tmp_path / "kept").glob(kept))
    finished, seen = modified(parts), dict[str, int]()
    options: dict[str, Any] = {"keep": keep, "embedder": shipped, "rows_per_shard": 20}
    run_job(source, to=target, say=lambda _: seen.update(modified(parts)), **options)
    run_job(source, to=tmp_path / "whole" / output, **options)

    # A kill may come between a shard and its line in the journal.
    assert len(finished) - 1 <= len(seen) <= len(finished)
    assert seen.items() <= finished.items()
    assert content(tmp_path / "whole") == content(tmp_path / "interrupted")


def test_a_join_can_be_interrupted(tmp_path: Path, run_job: RunJob, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt while shards are joined leaves no output; the next run removes an incomplete one."""
    source = write(tmp_path / "in.txt", TEXTS[:20])
    (tmp_path / "out").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(Sink, "join", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run_job(source, to=tmp_path / "out/v.parquet")
    assert ["v.parquet.parts"] == [path.name for path in (tmp_path / "out").iterdir()]
    (tmp_path / "out/.v.parquet.unfinished").write_bytes(b"half")

    run_job(source, to=tmp_path / "out/v.parquet")

    assert ["v.parquet"] == list(content(tmp_path / "out"))


def test_a_full_disk_loses_no_finished_shard(tmp_path: Path, run_job: RunJob) -> None:
    """The error has the file that could not be written; the same job finishes when there is space again."""
    source = write(tmp_path / "in.txt", [*TEXTS[:200], *(text * 90 for text in TEXTS[:100])])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"File too large: .*/part-00002\.jsonl'"):
            run_job(source, to=tmp_path / "v.jsonl")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert 2 == len(shards(tmp_path / "v.jsonl.parts"))
    assert 300 == run_job(source, to=tmp_path / "v.jsonl").rows


def test_lost_and_truncated_shards_are_computed_again(tmp_path: Path, run_job: RunJob) -> None:
    """Missing shards get the same bytes, also inside a compressed file; other shards are not rewritten."""
    source = write(tmp_path / "in.txt.gz", TEXTS[:500])
    run_job(source, to=tmp_path / "out")
    content_before, times = content(tmp_path / "out"), modified(tmp_path / "out")
    lost, truncated = "part-00003.parquet", "part-00001.parquet"
    (tmp_path / "out" / lost).unlink()
    os.truncate(tmp_path / "out" / truncated, 50)

    done = run_job(source, to=tmp_path / "out")

    assert 500 == done.rows
    assert {lost, truncated} == {name for name, _ in times.items() ^ modified(tmp_path / "out").items()}
    assert content_before | {"_job.log": b""} == content(tmp_path / "out") | {"_job.log": b""}


def with_other_lowering() -> HashEmbedder:
    """Return an embedder that computes INT8 layers in another way."""
    embedder = HashEmbedder()
    embedder.info.lowering = "conv"
    return embedder


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"rows_per_shard": 99}, "rows_per_shard was 100, is 99"),
        ({"keep": ["text"]}, r"keep was \[\], is \['text'\]"),
        ({"truncate": "mean"}, "truncate was 'end', is 'mean'"),
        ({"embedder": with_other_lowering()}, "lowering was 'hash', is 'conv'"),
        ({"file": "-"}, r"input .*in\.txt is missing"),
    ],
    ids=["shards", "columns", "truncate", "lowering", "stdin"],
)
def test_another_job_is_refused(
    tmp_path: Path, change: dict[str, Any], difference: str, run_job: RunJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the differences, and no file is changed; `overwrite` starts the new job."""
    source = write(tmp_path / "in.txt", TEXTS[:300])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(source.read_bytes())))
    run_job(source, to=tmp_path / "out")
    content_before = content(tmp_path / "out")
    file, options = change.get("file", source), {key: change[key] for key in change.keys() - {"file"}}

    with pytest.raises(JobRefused, match=f"{difference}.*--overwrite"):
        run_job(file, to=tmp_path / "out", **options)

    assert content_before == content(tmp_path / "out")
    if file != "-":  # stdin has been read already
        assert 300 == run_job(file, to=tmp_path / "out", overwrite=True, **options).rows


GOOD = [json.dumps({"id": number, "text": text}) for number, text in enumerate(TEXTS[:550])]
BAD = [*GOOD[:350], '{"id": 350, "text": null}', *GOOD[351:]]


@pytest.mark.parametrize("output", ["out", "v.parquet", "v.jsonl"])
@pytest.mark.parametrize(
    ("lines", "first", "then", "kept"),
    [
        pytest.param([GOOD], "stop", "stop", [0, 1, 2], id="corrected"),
        pytest.param([GOOD, GOOD[:2]], "stop", "stop", [0, 1, 2], id="another-file"),
        pytest.param([[*GOOD[:150], GOOD[0], *GOOD[150:]]], "stop", "stop", [0], id="inserted"),
        pytest.param([GOOD[:250]], "skip", "skip", [0, 1], id="shortened"),
        pytest.param([BAD], "stop", "skip", [0, 1, 2], id="same-skip"),
        pytest.param([BAD], "skip", "null", [0, 1, 2, 4, 5], id="same-null"),
    ],
)
def test_changed_inputs_keep_their_unchanged_shards(
    tmp_path: Path,
    output: str,
    lines: list[list[str]],
    first: OnError,
    then: OnError,
    kept: list[int],
    run_job: RunJob,
) -> None:
    """A job with a bad row resumes with corrected inputs or another policy, and equals a new job."""
    for name in ("fresh", "again"):
        (tmp_path / name).mkdir()
    target = tmp_path / "again" / output
    folder = target if output == "out" else target.with_name(f"{output}.parts")
    (tmp_path / "in0.jsonl").write_text("\n".join(BAD))
    with pytest.raises(BadRow, match="line 351") if first == "stop" else nullcontext():
        run_job(tmp_path / "in*.jsonl", to=target, keep=["id"], on_error=first)
    times_before = modified(folder)
    for number, of_file in enumerate(lines if lines != [BAD] else []):
        (tmp_path / f"in{number}.jsonl").write_text("\n".join(of_file))
    options: dict[str, Any] = {"keep": ["id"], "on_error": then}
    run_job(tmp_path / "in*.jsonl", to=tmp_path / "fresh" / output, **options)
    seen: list[dict[str, int]] = []

    done = run_job(tmp_path / "in*.jsonl", to=target, say=lambda _: seen.append(modified(folder)), **options)

    if times_before:  # the shards of a finished job are joined into one file
        names = sorted(times_before)
        assert {names[shard]: times_before[names[shard]] for shard in kept} == seen[-1]
    fresh, again = content(tmp_path / "fresh"), content(tmp_path / "again")
    assert fresh.pop("_job.log", b"").splitlines()[:1] == again.pop("_job.log", b"").splitlines()[:1]
    assert fresh == again
    assert (lines == [BAD]) == bool(done.bad)


@pytest.mark.parametrize(
    ("source", "options", "texts", "message"),
    [
        ("id\ttext\n1\ta, b\n", ["--delimiter", "\\t"], ["a, b"], ""),
        (
            "text|n\n'a|\\'\xef'|1\n",
            "--delimiter | --quote ' --escape \\ --encoding latin-1",
            ["a|'\xef"],
            "",
        ),
        ("text\na\n", "--keep-columns ,", [], "--keep-columns ',' names no column"),
        ("text\na\n", "--reuse in.csv", [], "in.csv is not a folder; remove it, or name another"),
        ('{"text": "a"}', "--format jsonl --id-column Id", [None], "has a field 'Id'; it is kept as null"),
    ],
)
@pytest.mark.usefixtures("shared_model")
@pytest.mark.filterwarnings("default:none of the first")  # as when a user runs the command
def test_input_options_of_encode(
    tmp_path: Path,
    source: str,
    options: str | list[str],
    texts: list[str | None],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each option has its effect, or an error names the option."""
    monkeypatch.chdir(tmp_path)
    Path("in.csv").write_text(source, "latin-1")

    done = run_inline("encode", "in.csv", *(options.split() if isinstance(options, str) else options))

    assert (0 if texts else 2) == done.returncode, done.stderr
    assert texts == [next(iter(json.loads(line).values())) for line in done.stdout.splitlines()]
    assert message in done.stderr.decode()


@pytest.mark.parametrize(("rows", "calls"), [(1, 2), (3, 1)])
def test_a_parquet_text_of_too_many_bytes_is_not_read(
    tmp_path: Path, rows: int, calls: int, run_job: RunJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text over the limit is a bad row; in a row group of one row, the metadata tells its size."""
    monkeypatch.setattr("ov_minilm.bulk.parquet.MAX_BYTES", 200)
    reads = Mock(wraps=pq.ParquetFile.iter_batches)
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", lambda *args, **options: reads(*args, **options))
    table = pa.table({"text": ["a", "b" * 201, "c" * 3000]})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=rows, compression="none")

    run_job(tmp_path / "in.parquet", to=tmp_path / "v.jsonl", on_error="null")

    lines = (tmp_path / "v.jsonl").read_text().splitlines()
    assert ["a", None, None] == [json.loads(line)["text"] for line in lines]
    assert [False, True, True] == [json.loads(line)["embedding"] is None for line in lines]
    assert calls == reads.call_count


def test_a_job_of_stdin_starts_over(tmp_path: Path, run_job: RunJob, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stdin cannot be read again, so the same command replaces the output."""
    for texts in (TEXTS[:250], ["one", "two"]):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(texts).encode())))
        run_job("-", to=tmp_path / "out")

    assert np.array_equal([vector("one"), vector("two")], vectors(tmp_path / "out"))


def test_only_parquet_needs_pyarrow(tmp_path: Path) -> None:
    """Without pyarrow, .npy and JSON lines are written; for Parquet, the error says what to install."""
    source = write(tmp_path / "in.txt", ["a", "b"])
    done = python(
        "import sys; sys.modules['pyarrow'] = None\n"
        "from ov_minilm.cli import main\n"
        "for output in ('v.npy', 'v.jsonl', 'v.parquet'):\n"
        f"    sys.argv = ['', 'encode', {str(source)!r}, '-o', {str(tmp_path)!r} + '/' + output]\n"
        "    try:\n"
        "        main()\n"
        "    except SystemExit as end:\n"
        "        print(end.code)"
    )

    assert "0\n0\n2\n" == done.stdout, done.stderr
    assert 'pip install "ov-minilm[bulk]"' in done.stderr

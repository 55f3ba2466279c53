"""Jobs: any format in, any form out, and the same bytes however often one was stopped."""

from __future__ import annotations

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
from support.processes import here, python, until

from ov_minilm import Embedder
from ov_minilm.bulk.job import Summary
from ov_minilm.bulk.journal import Journal
from ov_minilm.bulk.rows import OnError
from ov_minilm.bulk.sink import Sink
from ov_minilm.errors import BadRow, JobRefused
from ov_minilm.runtime.output import DTYPES, Dtype

RunJob = Callable[..., Summary]


def times(folder: Path) -> dict[str, int]:
    """Return when each shard was written."""
    return {path.name: path.stat().st_mtime_ns for path in shards(folder)}


@pytest.mark.parametrize("output", ["out.npy", "out.jsonl", "out.parquet", "out"])
def test_every_format_goes_into_every_form(
    tmp_path: Path, output: str, shipped: Embedder, job: RunJob
) -> None:
    """In the order of files and rows the vectors are those of Embedder.encode; the output names the model."""
    texts = sentences(400)
    for number, name in enumerate(["b.jsonl.zst", "a1.parquet", "a2.parquet", "c.csv.gz", "d.txt"]):
        write(tmp_path / name, texts[80 * number : 80 * number + 80])
    files = [tmp_path / name for name in ("b.jsonl.zst", "a*.parquet", "c.csv.gz", "d.txt")]

    done = job(*files, to=tmp_path / output, embedder=shipped)

    assert Summary(tmp_path / output, rows=400, dimensions=384) == done
    assert np.array_equal(shipped.encode(texts), vectors(tmp_path / output))
    if output.endswith(("npy", "jsonl")):
        said = json.loads((tmp_path / f"{output}.json").read_text())
    else:
        metadata = pq.read_schema(next(iter(shards(tmp_path / output)), tmp_path / output)).metadata
        said = {name.decode().removeprefix("ov_minilm."): value.decode() for name, value in metadata.items()}
    assert (shipped.info.fingerprint, "end", "384") == tuple(
        said[name] for name in ("fingerprint", "truncate", "dimensions")
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_vectors_may_be_smaller(tmp_path: Path, dtype: Dtype, shipped: Embedder, job: RunJob) -> None:
    """Fewer components and fewer bits are those of Embedder.encode; Parquet and .npy have their type."""
    texts = sentences(30)
    source = write(tmp_path / "in.txt", texts)
    expected = shipped.encode(texts, dimensions=128, dtype=dtype)

    for output in ("v.parquet", "v.npy"):
        done = job(source, to=tmp_path / output, embedder=shipped, dimensions=128, dtype=dtype)
        found = vectors(tmp_path / output)

        assert (128, expected.dtype) == (done.dimensions, found.dtype)
        assert np.array_equal(expected, found)
    if "int" in dtype or "bin" in dtype:
        with pytest.raises(ValueError, match="has no value for a missing vector"):
            job(source, to=tmp_path / "v.npy", dtype=dtype, on_error="null")


def test_columns_are_kept(tmp_path: Path, job: RunJob) -> None:
    """In the order asked for and with one type, which a table without rows has too."""
    write(tmp_path / "a.parquet", ["one", "two"])
    write(tmp_path / "b.jsonl", ["three", "four"])
    pq.write_table(pq.read_table(tmp_path / "a.parquet").slice(2), tmp_path / "none.parquet")

    for files, ids, texts in (
        (["a.parquet", "b.jsonl"], [0, 1, 0, 1], ["one", "two", "three", "four"]),
        (["none.parquet"], [], []),
    ):
        job(
            *[tmp_path / file for file in files],
            to=tmp_path / "v.parquet",
            keep=["id", "text", "id"],
            overwrite=True,
        )
        table = pq.read_table(tmp_path / "v.parquet")

        assert {"id": ids, "text": texts} == table.drop_columns("embedding").to_pydict()
        assert ["id", "text", "embedding"] == table.schema.names
        assert [pa.int64(), pa.list_(pa.field("element", pa.float32()), 8)] == table.schema.types[::2]


def bad_json(path: Path) -> list[str | None]:
    """Write lines without a text, and one with an `id` that is none of the first thousand's."""
    texts: list[str | None] = [*sentences(1000)]
    write(path, sentences(1000))
    lines = [
        '{"id": 1, "text": "a"}',
        '{"id": 2, "text": null}',
        '{"id": 3, "text"',
        '{"id": "4", "text": "d"}',
    ]
    path.write_text(path.read_text() + "\n".join(lines))
    return [*texts, "a", None, None, None]


def bad_parquet(path: Path) -> list[str | None]:
    """Write a null, and bytes that are not UTF-8 in a column of strings."""
    texts = pa.array([b"a", None, b"\xff", b"b"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": texts, "id": [0, 1, 2, 3]}), path)
    return ["a", None, None, "b"]


def damaged_group(path: Path) -> list[str | None]:
    """Damage the second of five row groups, of 70 rows each."""
    texts: list[str | None] = [*sentences(300)]
    write(path, sentences(300))
    place = pq.read_metadata(path).row_group(1).column(1).data_page_offset
    raw = path.read_bytes()
    path.write_bytes(raw[:place] + b"\xff" * 50 + raw[place + 50 :])
    return [*texts[:70], *[None] * 70, *texts[140:]]


@pytest.mark.parametrize(
    ("name", "make", "first"),
    [
        ("in.jsonl", bad_json, "line 1002: 'text' is null, expected a string"),
        ("in.parquet", bad_parquet, "row 2: null"),
        ("in.parquet", damaged_group, "row 71: row group 1 is damaged: "),
    ],
)
@pytest.mark.parametrize("on_error", ["stop", "skip", "null"])
def test_a_bad_row_costs_only_itself(
    tmp_path: Path,
    name: str,
    make: Callable[[Path], list[str | None]],
    first: str,
    on_error: OnError,
    job: RunJob,
) -> None:
    """It stops the job, is left out, or is null; each is named, and the others are in their places."""
    source, output = tmp_path / name, tmp_path / "v.parquet"
    texts = make(source)
    bad = [number for number, text in enumerate(texts, 1) if text is None]
    if on_error == "stop":
        with pytest.raises(BadRow, match=f"{source}, {first}"):
            job(source, to=output, keep=["id"])
        assert {name} == {path.name for path in tmp_path.iterdir()} - {"v.parquet.parts"}
        return

    done = job(source, to=output, keep=["id"], on_error=on_error)

    errors = [json.loads(line) for line in (tmp_path / "v.parquet.errors.jsonl").read_text().splitlines()]
    rows = [text for text in texts if text is not None or on_error == "null"]
    lost = len(bad) if on_error == "null" else 0
    expected = Summary(output, len(rows), 8, 0, len(bad), lost, tmp_path / "v.parquet.errors.jsonl")
    table = pq.read_table(output)
    assert expected == done
    assert bad == [error[first.split()[0]] for error in errors]
    assert {str(source)} == {error["file"] for error in errors}
    assert errors[0]["reason"].startswith(first.split(": ", 1)[1])
    assert [text is None for text in rows] == table["embedding"].is_null().to_pylist()
    assert np.array_equal([vector(text) for text in rows if text], table["embedding"].drop_null().to_pylist())
    if make is bad_json:
        assert errors[2]["reason"].startswith(
            "'id' is '4', expected int64 as in the first rows; -o NAME.jsonl"
        )
        assert ([1, 2, None, None] if lost else [1]) == table["id"].to_pylist()[1000:]


def test_a_stream_cut_short_is_one_bad_row(tmp_path: Path, job: RunJob) -> None:
    """What can be read of it is encoded, one error says that the rest is lost, and the next file is read."""
    source = tmp_path / "in.txt.gz"
    source.write_bytes(gzip.compress("\n".join(sentences(3000)).encode())[:-3000])
    files = source, write(tmp_path / "next.txt", ["last"])

    with pytest.raises(BadRow, match="from here on the file cannot be read: Truncated"):
        job(*files, to=tmp_path / "v.npy")
    done = job(*files, to=tmp_path / "v.npy", on_error="skip")

    (error,) = (tmp_path / "v.npy.errors.jsonl").read_text().splitlines()
    assert 1 < done.rows < 3001
    assert done.rows == json.loads(error)["row"]  # those before it, and the one of the next file
    expected = [vector(text) for text in (*sentences(3000)[: done.rows - 1], "last")]
    assert np.array_equal(expected, vectors(tmp_path / "v.npy"))


def test_bad_rows_are_said_and_in_the_exit_code(tmp_path: Path, opened: Embedder) -> None:
    """On stderr, or in a file, with null in .npy as NaN; exit code 3 says that not every row has a vector."""
    output = tmp_path / "v.npy"
    source = tmp_path / "in.txt"
    source.write_bytes(b"a\n\xff\n" + b"word " * 300 + b"\nb\n")

    pipe = here("encode", "--on-error", "skip", text=source.read_bytes())
    file = here("encode", source, "-o", output, "--on-error", "null", "--truncate", "error")

    broken = "line 2: not UTF-8 (invalid start byte); set another with --encoding"
    cut = "warning: 1 text is longer than the model reads and lost the end\n"
    assert (3, f"warning: stdin, {broken}\n{cut}warning: 1 bad row\n") == (
        pipe.returncode,
        pipe.stderr.decode(),
    )
    said = f"2 vectors of 384 components, 2 nulls\nwarning: 2 bad rows, listed in {output}.errors.jsonl\n"
    assert (3, f"{output}: {said}") == (file.returncode, file.stderr.decode())
    assert (
        '"line": 3, "reason": "302 tokens, the model reads 256'
        in (tmp_path / "v.npy.errors.jsonl").read_text()
    )
    found = np.load(output)
    assert np.array_equal(opened.encode(["a", "b"]), found[[0, 3]])
    assert np.isnan(found[[1, 2]]).all()


@pytest.mark.parametrize(
    ("stop", "output", "seed"),
    [
        (signal.SIGKILL, "out", None),
        (signal.SIGKILL, "v.parquet", None),
        (signal.SIGINT, "v.npy", None),
        (signal.SIGINT, "v.jsonl", None),
        *(
            pytest.param(signal.SIGKILL, output, seed, marks=pytest.mark.slow)
            for output in ("out", "v.parquet")
            for seed in range(25)
        ),
    ],
)
def test_a_stopped_job_goes_on(
    tmp_path: Path, stop: signal.Signals, output: str, seed: int | None, shipped: Embedder, job: RunJob
) -> None:
    """It keeps what is done and ends with the bytes of a whole one; meanwhile no other may work there.

    Ctrl-C ends it at once, says what is kept, and leaves nothing half written; --reuse keeps its vectors.
    """
    source = write(tmp_path / "in.parquet", sentences(1000))
    reuse = ["--reuse", tmp_path / "kept"] if output == "v.jsonl" else []
    (tmp_path / "whole").mkdir()
    (tmp_path / "stopped").mkdir()
    target = tmp_path / "stopped" / output
    parts = target if output == "out" else target.with_name(f"{output}.parts")
    keep = [] if output == "v.npy" else ["id"]
    columns = ["--keep-columns", "id"] if keep else []
    command = ["encode", source, *columns, "--rows-per-shard", "20", "-o", target, *reuse]

    with subprocess.Popen(
        [sys.executable, "-m", "ov_minilm", *map(str, command)], stderr=subprocess.PIPE
    ) as process:
        if seed is None:
            until(lambda: len(shards(parts)) > 1 or process.poll() is not None, 300)
            with pytest.raises(BlockingIOError, match=f"{parts}: another process is working on it"):
                Journal.open(parts)
        else:
            # The stop comes at a random moment, start-up included: there is no event to wait for.
            time.sleep(random.Random(seed).uniform(0.5, 8))  # noqa: S311  # no secrets
        process.send_signal(stop)
        sent = time.monotonic()
        _, said = process.communicate()
        took = time.monotonic() - sent
    assert seed is not None or 1 < len(shards(parts)) < 50
    if stop == signal.SIGINT:
        keeps = rf"{parts} keeps the [1-9][0-9,]* rows that are done; the same command resumes there\n"
        assert re.search(keeps, said.decode())
        assert (130, True) == (process.returncode, took < 2)  # seconds: no running batch is waited for
        assert [] == [path for path in tmp_path.rglob("*") if path.name.startswith(".")]
        assert (stop, output) == (signal.SIGINT, "v.npy") or list((tmp_path / "kept").glob("*/*.hashes.npy"))
    kept, seen = times(parts), dict[str, int]()
    options: dict[str, Any] = {"keep": keep, "embedder": shipped, "rows_per_shard": 20}
    job(source, to=target, say=lambda _: seen.update(times(parts)), **options)
    job(source, to=tmp_path / "whole" / output, **options)

    assert len(seen) in (
        len(kept),
        len(kept) - 1,
    )  # a kill comes between the shard and its line in the journal
    assert seen.items() <= kept.items()
    assert content(tmp_path / "whole") == content(tmp_path / "stopped")


def test_stopped_while_one_file_is_put_together(
    tmp_path: Path, job: RunJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The half of it that a kill leaves is not there beside the whole one, which comes with the next run."""
    source = write(tmp_path / "in.txt", sentences(20))
    (tmp_path / "out").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(Sink, "join", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            job(source, to=tmp_path / "out/v.parquet")
    assert ["v.parquet.parts"] == [path.name for path in (tmp_path / "out").iterdir()]
    (tmp_path / "out/.v.parquet.unfinished").write_bytes(b"half")

    job(source, to=tmp_path / "out/v.parquet")

    assert ["v.parquet"] == sorted(content(tmp_path / "out"))


def test_a_full_disk_is_named_and_loses_nothing(tmp_path: Path, job: RunJob) -> None:
    """What was written stays, and with room again the same job ends as it would have."""
    source = write(tmp_path / "in.txt", [*sentences(200), *(text * 90 for text in sentences(100))])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        with pytest.raises(OSError, match=r"File too large: .*/part-00002\.jsonl'"):
            job(source, to=tmp_path / "v.jsonl")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert 2 == len(shards(tmp_path / "v.jsonl.parts"))
    assert 300 == job(source, to=tmp_path / "v.jsonl").rows


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: os.truncate(path, 50)])
def test_a_shard_that_is_gone_is_made_again(
    tmp_path: Path, spoil: Callable[[Path], None], job: RunJob
) -> None:
    """Or cut short; with the same bytes, from the middle of a compressed file; the others are not touched."""
    source = write(tmp_path / "in.txt.gz", sentences(500))
    job(source, to=tmp_path / "out")
    whole, written = content(tmp_path / "out"), times(tmp_path / "out")
    spoil(tmp_path / "out/part-00003.parquet")

    done = job(source, to=tmp_path / "out")

    assert 500 == done.rows
    assert {"part-00003.parquet"} == {name for name, _ in written.items() ^ times(tmp_path / "out").items()}
    for name in whole.keys() - {"_job.log"}:
        assert whole[name] == (tmp_path / "out" / name).read_bytes()


def other_lowering() -> HashEmbedder:
    """Return an embedder that runs INT8 layers in another way."""
    embedder = HashEmbedder()
    embedder.info.lowering = "conv"
    return embedder


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rows_per_shard": 99}, "rows_per_shard was 100, is 99"),
        ({"keep": ["text"]}, r"keep was \[\], is \['text'\]"),
        ({"truncate": "mean"}, "truncate was 'end', is 'mean'"),
        ({"embedder": other_lowering()}, "lowering was 'hash', is 'conv'"),
        ({"files": "b.txt"}, r"input .*in\.txt is missing"),
        ({"files": "-"}, r"input .*in\.txt is missing"),
    ],
)
def test_another_job_is_refused(
    tmp_path: Path, change: dict[str, Any], said: str, job: RunJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What decides the vectors, or a missing file, is named; nothing is touched; --overwrite works."""
    source = write(tmp_path / "in.txt", sentences(300))
    write(tmp_path / "b.txt", sentences(300))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(source.read_bytes())))
    monkeypatch.chdir(tmp_path)
    job(source, to=tmp_path / "out")
    before = content(tmp_path / "out")
    options = dict(change)
    files = options.pop("files", source)

    with pytest.raises(JobRefused, match=f"{said}.*--overwrite"):
        job(files, to=tmp_path / "out", **options)

    assert before == content(tmp_path / "out")
    if files != "-":
        assert 300 == job(files, to=tmp_path / "out", overwrite=True, **options).rows


@pytest.mark.parametrize(
    ("output", "name"), [("out", "out/part-00000.parquet"), ("v.npy", "v.npy.parts/mine")]
)
def test_a_folder_of_others_is_left_alone(tmp_path: Path, output: str, name: str, job: RunJob) -> None:
    """Files that no job wrote are not mixed with shards, and overwrite does not remove them."""
    source = write(tmp_path / "in.txt", ["a"])
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_bytes(b"precious")

    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match="not of an ov-minilm job"):
            job(source, to=tmp_path / output, overwrite=overwrite)

    assert {"in.txt": b"a\n", Path(name).name: b"precious"} == content(tmp_path)


def mend(path: Path) -> None:
    """Put a text where line 351 has none."""
    path.write_text(path.read_text().replace('"text": null', '"text": "mended"'))


def add(path: Path) -> None:
    """Mend it, and lay a file beside it that is read after it."""
    mend(path)
    write(path.with_name("in2.jsonl"), ["one", "two"])


def insert(path: Path) -> None:
    """Mend it, and put a row between others: those after it move on."""
    mend(path)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:150], '{"text": "new", "id": -1}\n', *lines[150:]]))


def shorten(path: Path) -> None:
    """Leave the first 250 rows."""
    write(path, sentences(250))


def nothing(path: Path) -> None:
    """Leave it as it is."""


@pytest.mark.parametrize("output", ["out", "v.parquet", "v.jsonl"])
@pytest.mark.parametrize(
    ("change", "first", "then", "kept"),
    [
        (mend, "stop", "stop", [0, 1, 2]),
        (add, "stop", "stop", [0, 1, 2]),
        (insert, "stop", "stop", [0]),
        (shorten, "skip", "skip", [0, 1]),
        (nothing, "stop", "skip", [0, 1, 2]),
        (nothing, "skip", "null", [0, 1, 2, 4, 5]),
    ],
)
def test_a_mended_input_goes_on(
    tmp_path: Path,
    output: str,
    change: Callable[[Path], None],
    first: OnError,
    then: OnError,
    kept: list[int],
    job: RunJob,
) -> None:
    """Shards whose rows are the same are kept, and all ends as if done at once."""
    texts = sentences(550)
    source = write(tmp_path / "in.jsonl", texts)
    source.write_text(source.read_text().replace(json.dumps(texts[350]), "null"))
    files = str(tmp_path / "in*.jsonl")
    (tmp_path / "fresh").mkdir()
    (tmp_path / "again").mkdir()
    target = tmp_path / "again" / output
    folder = target if output == "out" else target.with_name(f"{output}.parts")
    with pytest.raises(BadRow, match="line 351") if first == "stop" else nullcontext():
        job(files, to=target, keep=["id"], on_error=first)
    before = times(folder)
    change(source)
    job(files, to=tmp_path / "fresh" / output, keep=["id"], on_error=then)
    seen: list[dict[str, int]] = []

    done = job(files, to=target, keep=["id"], on_error=then, say=lambda _: seen.append(times(folder)))

    if before:  # a job that is done has joined its shards to one file
        names = sorted(before)
        assert {names[shard]: before[names[shard]] for shard in kept} == seen[-1]
    fresh, again = content(tmp_path / "fresh"), content(tmp_path / "again")
    assert fresh.pop("_job.log", b"").splitlines()[:1] == again.pop("_job.log", b"").splitlines()[:1]
    assert fresh == again
    assert (then != "stop" and change is nothing) == bool(done.bad)


@pytest.mark.parametrize(
    ("content", "options", "texts", "said"),
    [
        ("id\ttext\n1\ta, b\n", ["--delimiter", "\\t"], ["a, b"], ""),
        ("id|text\n1|'a|b'\n", ["--delimiter", "|", "--quote", "'"], ["a|b"], ""),
        ('id,text\n1,"a \\"b\\""\n', ["--escape", "\\"], ['a "b"'], ""),
        ("id,text\n1,na\xefve\n", ["--encoding", "latin-1"], ["na\xefve"], ""),
        ("id,text\n1,a\n", ["--keep-columns", ","], [], "--keep-columns ',' names no column"),
        ("id,text\n1,a\n", ["--reuse", "in.csv"], [], "in.csv is not a folder; remove it, or name another"),
        (
            "id,text\n1,a\n",
            ["--format", "text", "--quote", "'"],
            [],
            "--quote has no effect on text; it is for",
        ),
        (
            '{"text": "a"}',
            ["--format", "jsonl", "--id-column", "Id"],
            [None],
            "has a field 'Id'; it is kept as nu",
        ),
    ],
)
@pytest.mark.usefixtures("opened")
@pytest.mark.filterwarnings("default:none of the first")  # as from the command line
def test_options_of_the_input(
    tmp_path: Path,
    content: str,
    options: list[str],
    texts: list[str | None],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each has its effect from the command line, or is refused by its name."""
    monkeypatch.chdir(tmp_path)
    Path("in.csv").write_text(content, "latin-1")

    done = here("encode", "in.csv", *options)

    assert (0 if texts else 2) == done.returncode, done.stderr
    assert texts == [next(iter(json.loads(line).values())) for line in done.stdout.splitlines()]
    assert said in done.stderr.decode()


def test_a_parquet_row_of_too_many_bytes_is_not_read(
    tmp_path: Path, job: RunJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The size of a row group of one row is in the metadata; it and longer groups give a bad row each."""
    monkeypatch.setattr("ov_minilm.bulk.parquet.MAX_BYTES", 200)
    reads = Mock(wraps=pq.ParquetFile.iter_batches)
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", lambda *args, **options: reads(*args, **options))
    for rows, calls in ((1, 2), (3, 1)):
        table = pa.table({"text": ["a", "b" * 201, "c" * 3000]})
        pq.write_table(table, tmp_path / "in.parquet", row_group_size=rows, compression="none")
        reads.reset_mock()

        job(tmp_path / "in.parquet", to=tmp_path / "v.jsonl", on_error="null")

        found = [json.loads(line)["text"] for line in (tmp_path / "v.jsonl").read_text().splitlines()]
        assert ["a", None, None] == found
        assert calls == reads.call_count


def test_what_a_pipe_gave_is_replaced(tmp_path: Path, job: RunJob, monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot be read again, so the same command starts over."""
    for texts in (sentences(250), ["one", "two"]):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(texts).encode())))
        job("-", to=tmp_path / "out")

    assert np.array_equal([vector("one"), vector("two")], vectors(tmp_path / "out"))


def test_text_needs_no_extra(tmp_path: Path) -> None:
    """Without pyarrow, text and JSON lines go into .npy and JSON lines; Parquet says what to install."""
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

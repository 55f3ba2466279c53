"""Jobs: any format in, any form out, and the same bytes however often one was killed."""

from __future__ import annotations

import io
import json
import random
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.corpora import content, sentences, shards, vectors, write
from support.processes import python, run, until

from ov_minilm import Embedder
from ov_minilm.bulk import job as jobs
from ov_minilm.bulk.job import Summary
from ov_minilm.bulk.outputs import Output, check_output
from ov_minilm.bulk.pipeline import BulkOptions
from ov_minilm.bulk.reader import find
from ov_minilm.bulk.rows import OnError
from ov_minilm.errors import BadRow, JobRefused
from ov_minilm.runtime.output import DTYPES, Dtype


@pytest.fixture
def job(shipped: Embedder) -> Callable[..., Summary]:
    """Run a job in this process, with the model that is open."""

    def run_job(
        *files: Path | str,
        to: Path,
        keep: Sequence[str] = (),
        on_error: OnError = "stop",
        embedder: Embedder = shipped,
        rows: int = 100,
        overwrite: bool = False,
        dimensions: int | None = None,
        dtype: Dtype = "float32",
        say: Callable[[str], None] = lambda _: None,
    ) -> Summary:
        options = BulkOptions(dimensions=dimensions, dtype=dtype, on_error=on_error, rows_per_shard=rows)
        output = Output.parse(str(to))
        typed = output.form == "parquet"
        inputs = find([str(file) for file in files], keep=keep, typed=typed, on_error=on_error)
        check_output(inputs, output, dtype=dtype, on_error=on_error)
        return jobs.run(inputs, output, options, jobs.Local(embedder), overwrite=overwrite, say=say)

    return run_job


@pytest.mark.parametrize("name", ["in.txt", "in.jsonl.zst", "in.csv.gz", "in.parquet"])
@pytest.mark.parametrize("output", ["out.npy", "out.jsonl", "out.parquet", "out"])
def test_every_format_goes_into_every_form(
    tmp_path: Path, name: str, output: str, shipped: Embedder, job: Callable[..., Summary]
) -> None:
    """The vectors are those of Embedder.encode, bit for bit, in the order of the rows."""
    texts = sentences(300)
    write(tmp_path / name, texts)

    done = job(tmp_path / name, to=tmp_path / output)

    assert Summary(tmp_path / output, rows=300, dimensions=384) == done
    assert np.array_equal(shipped.encode(texts), vectors(tmp_path / output))


@pytest.mark.parametrize("dtype", DTYPES)
def test_vectors_may_be_smaller(
    tmp_path: Path, dtype: Dtype, shipped: Embedder, job: Callable[..., Summary]
) -> None:
    """Fewer components and fewer bits are those of Embedder.encode; Parquet and .npy have their type."""
    texts = sentences(150)
    source = write(tmp_path / "in.txt", texts)

    for output in ("v.parquet", "v.npy"):
        done = job(source, to=tmp_path / output, dimensions=128, dtype=dtype)

    expected = shipped.encode(texts, dimensions=128, dtype=dtype)
    assert 128 == done.dimensions
    for output in ("v.parquet", "v.npy"):
        found = vectors(tmp_path / output)
        assert expected.dtype == found.dtype
        assert np.array_equal(expected, found)


def test_a_null_needs_a_number_that_is_none(tmp_path: Path, job: Callable[..., Summary]) -> None:
    """Integers in .npy have none, which is said before the work begins."""
    with pytest.raises(ValueError, match="has no value for a missing vector"):
        job(write(tmp_path / "in.txt", ["a"]), to=tmp_path / "v.npy", dtype="int8", on_error="null")


def test_patterns_and_many_files(tmp_path: Path, shipped: Embedder, job: Callable[..., Summary]) -> None:
    """A pattern is expanded in sorted order, files stay in the order given, formats may be mixed."""
    texts = sentences(40)
    write(tmp_path / "b.jsonl", texts[:10])
    write(tmp_path / "a2.parquet", texts[20:30])
    write(tmp_path / "a1.parquet", texts[10:20])
    write(tmp_path / "c.txt", texts[30:])

    job(tmp_path / "b.jsonl", tmp_path / "a*.parquet", tmp_path / "c.txt", to=tmp_path / "v.npy")

    assert np.array_equal(shipped.encode(texts), np.load(tmp_path / "v.npy"))


def test_columns_are_kept(tmp_path: Path, job: Callable[..., Summary]) -> None:
    """In the order asked for; a file of another format gives the same types."""
    write(tmp_path / "a.parquet", ["one", "two"])
    write(tmp_path / "b.jsonl", ["three", "four"])

    job(tmp_path / "a.parquet", tmp_path / "b.jsonl", to=tmp_path / "v.parquet", keep=["id", "text", "id"])

    table = pq.read_table(tmp_path / "v.parquet")
    kept = table.drop_columns("embedding")
    assert ["id", "text", "embedding"] == table.schema.names
    assert pa.int64() == table.schema.field("id").type
    assert {"id": [0, 1, 0, 1], "text": ["one", "two", "three", "four"]} == kept.to_pydict()


def test_the_output_says_which_model(tmp_path: Path, shipped: Embedder, job: Callable[..., Summary]) -> None:
    """Parquet in its schema, other forms in a file beside them."""
    write(tmp_path / "in.txt", ["one"])

    for output in ("v.parquet", "v.npy"):
        job(tmp_path / "in.txt", to=tmp_path / output)

    beside = json.loads((tmp_path / "v.npy.json").read_text())
    assert shipped.info.fingerprint == beside["fingerprint"]
    assert beside == {
        name.decode().removeprefix("ov_minilm."): value.decode()
        for name, value in pq.read_schema(tmp_path / "v.parquet").metadata.items()
        if name.startswith(b"ov_minilm.")
    }


def test_empty_input_is_an_empty_output(tmp_path: Path, job: Callable[..., Summary]) -> None:
    """No rows are a table of no rows, whose columns have their types."""
    pq.write_table(
        pa.table({"id": pa.array([], pa.int8()), "text": pa.array([], pa.string())}), tmp_path / "a.parquet"
    )

    job(tmp_path / "a.parquet", to=tmp_path / "out", keep=["id"])

    table = pq.read_table(tmp_path / "out")
    assert (0, pa.int8()) == (table.num_rows, table.schema.field("id").type)
    assert pa.list_(pa.field("element", pa.float32()), 384) == table.schema.field("embedding").type


BAD = [
    b'{"id": 1, "text": "a"}',
    b'{"id": 2, "text": null}',
    b'{"id": 3, "text": "c',
    b'{"id": "4", "text": "d"}',
    b'{"id": 5, "text": "e"}',
]


def test_a_bad_row_stops_the_job(tmp_path: Path, job: Callable[..., Summary]) -> None:
    """By default: file, line and reason, and nothing left."""
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(BAD))

    with pytest.raises(BadRow, match=r"in\.jsonl, line 2: 'text' is null, expected a string$"):
        job(tmp_path / "in.jsonl", to=tmp_path / "v.npy")

    assert {"in.jsonl"} == content(tmp_path).keys()


@pytest.mark.parametrize(
    ("policy", "ids", "lost"),
    [("skip", [1, 5], [False, False]), ("null", [1, 2, None, None, 5], [False, True, True, True, False])],
)
def test_bad_rows_are_named(
    tmp_path: Path, policy: OnError, ids: list[int | None], lost: list[bool], job: Callable[..., Summary]
) -> None:
    """Skipped or null, each is in the errors file and counted; what is readable of it is kept."""
    source = write(tmp_path / "in.jsonl", sentences(1000))
    source.write_bytes(source.read_bytes() + b"\n".join(BAD))

    done = job(source, to=tmp_path / "v.parquet", keep=["id"], on_error=policy)

    errors = [json.loads(line) for line in (tmp_path / "v.parquet.errors.jsonl").read_text().splitlines()]
    table = pq.read_table(tmp_path / "v.parquet").slice(1000)
    assert (3, tmp_path / "v.parquet.errors.jsonl") == (done.bad, done.errors)
    assert [1002, 1003, 1004] == [error["line"] for error in errors]
    assert {str(source)} == {error["file"] for error in errors}
    assert errors[2]["reason"].startswith("'id' is '4', expected int64 as in the first rows; -o NAME.jsonl")
    assert (ids, lost) == (table["id"].to_pylist(), table["embedding"].is_null().to_pylist())


def test_nulls_and_broken_bytes_in_parquet_are_bad_rows(
    tmp_path: Path, shipped: Embedder, job: Callable[..., Summary]
) -> None:
    """Neither stops at an error of Arrow, and the rows around them keep their places."""
    texts = pa.array([b"a", None, b"\xff", b"b"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": texts}), tmp_path / "in.parquet")

    done = job(tmp_path / "in.parquet", to=tmp_path / "v.npy", on_error="null")

    errors = [json.loads(line) for line in (tmp_path / "v.npy.errors.jsonl").read_text().splitlines()]
    found = np.load(tmp_path / "v.npy")
    assert (4, 2) == (done.rows, done.bad)
    broken = "not UTF-8 (invalid start byte); --encoding names another"
    assert [(2, "null"), (3, broken)] == [(e["row"], e["reason"]) for e in errors]
    assert np.array_equal(shipped.encode(["a", "b"]), found[[0, 3]])
    assert np.isnan(found[[1, 2]]).all()


def test_a_stream_cut_short_is_one_bad_row(tmp_path: Path, job: Callable[..., Summary]) -> None:
    """What can be read of it is encoded, one error says that the rest is lost, and the next file is read."""
    source = write(tmp_path / "in.txt.gz", sentences(3000))
    source.write_bytes(source.read_bytes()[:-3000])
    files = source, write(tmp_path / "next.txt", ["last"])

    with pytest.raises(BadRow, match="from here on the file cannot be read: Truncated"):
        job(*files, to=tmp_path / "v.npy")
    done = job(*files, to=tmp_path / "v.npy", on_error="skip", overwrite=True)

    errors = [json.loads(line) for line in (tmp_path / "v.npy.errors.jsonl").read_text().splitlines()]
    assert 1 < done.rows < 3001
    assert [done.rows] == [error["row"] for error in errors]  # those before it, and the one of the next file


def test_a_damaged_row_group_costs_only_itself(
    tmp_path: Path, shipped: Embedder, job: Callable[..., Summary]
) -> None:
    """Each of its rows is bad and named; those before and after it have their vectors, in their places."""
    texts = sentences(300)
    source = write(tmp_path / "in.parquet", texts)
    place = pq.read_metadata(source).row_group(1).column(1).data_page_offset
    content = source.read_bytes()
    source.write_bytes(content[:place] + b"\xff" * 50 + content[place + 50 :])

    done = job(source, to=tmp_path / "v.npy", on_error="null")

    errors = [json.loads(line) for line in (tmp_path / "v.npy.errors.jsonl").read_text().splitlines()]
    found = np.load(tmp_path / "v.npy")
    assert (300, 70) == (done.rows, done.bad)
    assert list(range(71, 141)) == [error["row"] for error in errors]
    assert "row group 1 is damaged" in errors[0]["reason"]
    assert np.isnan(found[70:140]).all()
    assert np.array_equal(shipped.encode(texts[:70] + texts[140:]), np.delete(found, range(70, 140), 0))


def test_a_text_too_long_is_a_bad_row(tmp_path: Path) -> None:
    """With --truncate error it is named with both numbers; otherwise the texts that are cut are counted."""
    (tmp_path / "in.txt").write_text("short\n" + "word " * 300 + "\n")

    stopped = run("encode", tmp_path / "in.txt", "-o", tmp_path / "v.npy", "--truncate", "error")
    cut = run("encode", tmp_path / "in.txt", "-o", tmp_path / "v.npy")

    assert 2 == stopped.returncode
    assert f"{tmp_path / 'in.txt'}, line 2: 302 tokens, the model reads 256" in stopped.stderr.decode()
    assert 0 == cut.returncode
    assert b"warning: 1 text is longer than the model reads; the end was cut off" in cut.stderr


def start(*arguments: str | Path) -> subprocess.Popen[bytes]:
    """Start `ov-minilm encode`."""
    command = [sys.executable, "-m", "ov_minilm", "encode", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def kill_and_resume(arguments: list[str | Path], seconds: float) -> bool:
    """Kill the command after a while; if it was not done yet, give it again. Tell whether it was killed."""
    with start(*arguments) as process:
        time.sleep(seconds)
        process.kill()
    if process.returncode == 0:
        return False
    assert -signal.SIGKILL == process.returncode
    done = run("encode", *arguments)
    assert 0 == done.returncode, done.stderr
    return True


@pytest.mark.parametrize(
    ("kills", "output"),
    [
        (1, "out"),
        (1, "out.parquet"),
        pytest.param(25, "out", marks=pytest.mark.slow),
        pytest.param(25, "out.parquet", marks=pytest.mark.slow),
    ],
)
def test_killed_at_any_moment_it_goes_on(tmp_path: Path, kills: int, output: str) -> None:
    """After kill -9 the same command ends with the same bytes, in a folder or in one file."""
    source = write(tmp_path / "in.parquet", sentences(600 if kills == 1 else 1500))
    options: list[str | Path] = [source, "--rows-per-shard", "50", "--id-column", "id"]
    (tmp_path / "whole").mkdir()
    started = time.monotonic()
    assert 0 == run("encode", *options, "-o", tmp_path / "whole" / output).returncode
    takes = time.monotonic() - started
    moments = random.Random(kills)  # noqa: S311  # no secrets

    killed, numbers = 0, count()
    while killed < kills:
        folder = tmp_path / str(next(numbers))  # a new one, also after a run that was done before its kill
        folder.mkdir()
        killed += kill_and_resume([*options, "-o", folder / output], moments.uniform(0.2 * takes, takes))
        assert content(tmp_path / "whole") == content(folder)


def test_killed_while_one_file_is_put_together(tmp_path: Path) -> None:
    """The half of it is not left beside the whole one, which comes with the next run."""
    source = write(tmp_path / "in.parquet", sentences(20))
    folder = tmp_path / "out"
    folder.mkdir()
    command = ["encode", str(source), "--id-column", "id", "-o", str(folder / "v.parquet")]
    killed = python(
        "import os, signal, sys\n"
        "from ov_minilm.bulk.sink import Sink\n"
        "from ov_minilm.cli import main\n"
        "def join(sink, file, parts):\n"
        "    file.write(b'half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
        "Sink.join = join\n"
        f"sys.argv[1:] = {command!r}\n"
        "main()"
    )
    assert -signal.SIGKILL == killed.returncode, killed.stderr
    assert b"half" in content(folder).values()

    assert 0 == run(*command).returncode

    assert ["v.parquet"] == sorted(content(folder))


def test_resuming_does_not_begin_anew(tmp_path: Path, job: Callable[..., Summary]) -> None:
    """Finished shards are not touched again; one whose file is gone is made again, with the same bytes."""
    source = write(tmp_path / "in.txt.gz", sentences(500))
    job(source, to=tmp_path / "out")
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in shards(tmp_path / "out")}
    (tmp_path / "out/part-00003.parquet").unlink()

    done = job(source, to=tmp_path / "out")

    after = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in shards(tmp_path / "out")}
    assert 500 == done.rows
    assert ["part-00003.parquet"] == [name for name in before if before[name][1] != after[name][1]]
    assert [before[name][0] for name in before] == [after[name][0] for name in before]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rows": 99}, "rows_per_shard was 100, is 99"),
        ({"keep": ["text"]}, r"keep was \[\], is \['text'\]"),
    ],
)
def test_other_options_are_refused(
    tmp_path: Path, change: dict[str, Any], said: str, job: Callable[..., Summary]
) -> None:
    """What differs is said, nothing is touched, and the way out works."""
    source = write(tmp_path / "in.txt", sentences(300))
    job(source, to=tmp_path / "out")
    before = content(tmp_path / "out")

    with pytest.raises(JobRefused, match=f"{said}.*--overwrite"):
        job(source, to=tmp_path / "out", **change)

    assert before == content(tmp_path / "out")
    assert 300 == job(source, to=tmp_path / "out", overwrite=True, **change).rows


def mend(path: Path) -> None:
    """Put a text where line 351 has none."""
    path.write_text(path.read_text().replace("null", '"mended"'))


def add(path: Path) -> None:
    """Lay a file beside it that is read after it."""
    mend(path)
    write(path.with_name("in2.jsonl"), ["one", "two"])


def insert(path: Path) -> None:
    """Put a row between others: those after it move on."""
    mend(path)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:150], '{"text": "new", "id": -1}\n', *lines[150:]]))


@pytest.mark.parametrize("output", ["out", "v.parquet", "v.jsonl"])
@pytest.mark.parametrize(("change", "kept"), [(mend, 3), (add, 3), (insert, 1)])
def test_a_mended_input_goes_on(
    tmp_path: Path, output: str, change: Callable[[Path], None], kept: int, job: Callable[..., Summary]
) -> None:
    """What a bad row stopped goes on with all shards whose rows are the same, and ends as if done at once."""
    texts = sentences(550)
    source = write(tmp_path / "in.jsonl", texts)
    source.write_text(source.read_text().replace(json.dumps(texts[350]), "null"))
    with pytest.raises(BadRow, match="line 351"):
        job(str(tmp_path / "in*.jsonl"), to=tmp_path / output, keep=["id"])
    folder = tmp_path / output if output == "out" else tmp_path / f"{output}.parts"
    before = {path.name: path.stat().st_mtime_ns for path in shards(folder)}
    change(source)
    (tmp_path / "fresh").mkdir()
    job(str(tmp_path / "in*.jsonl"), to=tmp_path / "fresh" / output, keep=["id"])
    seen: dict[str, int] = {}

    def look(line: str) -> None:
        if "are done" in line:
            seen.update({path.name: path.stat().st_mtime_ns for path in shards(folder)})

    job(str(tmp_path / "in*.jsonl"), to=tmp_path / output, keep=["id"], say=look)

    assert 3 == len(before)
    assert {name: before[name] for name in list(before)[:kept]} == seen
    if output == "out":
        assert [path.read_bytes() for path in shards(tmp_path / "fresh/out")] == [
            path.read_bytes() for path in shards(folder)
        ]
    else:
        assert (tmp_path / "fresh" / output).read_bytes() == (tmp_path / output).read_bytes()


def test_a_shorter_input_leaves_no_shard_behind(tmp_path: Path, job: Callable[..., Summary]) -> None:
    """Nor the errors of rows that are mended."""
    source = write(tmp_path / "in.jsonl", sentences(450))
    source.write_text(source.read_text() + '{"text": 1}\n')
    job(source, to=tmp_path / "out", on_error="skip")
    assert (tmp_path / "out/_errors-00004.log").exists()
    write(source, sentences(250))

    done = job(source, to=tmp_path / "out", on_error="skip")

    assert (250, 0) == (done.rows, done.bad)
    assert ["_job.log", *(f"part-0000{n}.parquet" for n in range(3))] == sorted(content(tmp_path / "out"))


def test_a_bad_row_may_be_skipped_the_second_time(tmp_path: Path, job: Callable[..., Summary]) -> None:
    """Shards without bad rows are the same whatever becomes of bad rows."""
    source = write(tmp_path / "in.jsonl", sentences(250))
    source.write_text(source.read_text() + '{"text": 1}\n')
    with pytest.raises(BadRow, match="line 251"):
        job(source, to=tmp_path / "out")
    before = {path.name: path.stat().st_mtime_ns for path in shards(tmp_path / "out")}

    done = job(source, to=tmp_path / "out", on_error="skip")

    after = {path.name: path.stat().st_mtime_ns for path in shards(tmp_path / "out")}
    assert (250, 1) == (done.rows, done.bad)
    assert 2 == len(before)
    assert before == {name: after[name] for name in before}
    assert 251 == job(source, to=tmp_path / "out", on_error="null").rows


def test_other_inputs_are_refused(tmp_path: Path, job: Callable[..., Summary]) -> None:
    """Without a file that it had, a job would lose that file's rows from the output."""
    source = write(tmp_path / "in.txt", sentences(300))
    job(source, to=tmp_path / "out")
    before = content(tmp_path / "out")

    with pytest.raises(JobRefused, match=r"input .*in\.txt is missing"):
        job(write(tmp_path / "b.txt", ["more"]), to=tmp_path / "out")

    assert before == content(tmp_path / "out")


def test_files_of_others_stay(tmp_path: Path, job: Callable[..., Summary]) -> None:
    """A folder that has the name of the shards is not taken, and what others put there is not removed."""
    source = write(tmp_path / "in.txt", ["a"])
    (tmp_path / "v.npy.parts").mkdir()
    (tmp_path / "v.npy.parts/mine").write_text("precious")

    with pytest.raises(FileExistsError, match=r"v\.npy\.parts has files that are not of an ov-minilm job"):
        job(source, to=tmp_path / "v.npy")

    assert "precious" == (tmp_path / "v.npy.parts/mine").read_text()


def test_another_model_is_refused(tmp_path: Path, job: Callable[..., Summary]) -> None:
    """Whatever decides the vectors is part of the job: here how INT8 layers run."""
    source = write(tmp_path / "in.txt", ["a"])
    with Embedder.open(lowering="native") as native, Embedder.open(lowering="conv") as conv:
        job(source, to=tmp_path / "out", embedder=native)

        with pytest.raises(JobRefused, match="lowering was 'native', is 'conv'"):
            job(source, to=tmp_path / "out", embedder=conv)


def test_stdin_begins_anew(
    tmp_path: Path, shipped: Embedder, monkeypatch: pytest.MonkeyPatch, job: Callable[..., Summary]
) -> None:
    """What it gave before is gone, so the same command replaces it; the work of a job on files is safe."""
    source = write(tmp_path / "in.txt", sentences(150))
    job(source, to=tmp_path / "files")

    for texts in (sentences(250), ["one", "two"]):
        content = "\n".join(texts).encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        job("-", to=tmp_path / "out")
    with pytest.raises(JobRefused, match=r"input .*in\.txt is missing"):
        job("-", to=tmp_path / "files")

    assert np.array_equal(shipped.encode(["one", "two"]), vectors(tmp_path / "out"))
    assert 2 == len(shards(tmp_path / "files"))


def test_a_folder_of_others_is_left_alone(tmp_path: Path, job: Callable[..., Summary]) -> None:
    """Files that no job wrote are not mixed with shards, and overwrite does not remove them."""
    source = write(tmp_path / "in.txt", ["a"])
    (tmp_path / "out").mkdir()
    (tmp_path / "out/part-00000.parquet").write_bytes(b"precious")

    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match="not of an ov-minilm job"):
            job(source, to=tmp_path / "out", overwrite=overwrite)

    assert {"part-00000.parquet": b"precious"} == content(tmp_path / "out")


def test_bad_rows_are_said_and_in_the_exit_code(tmp_path: Path) -> None:
    """In a file or, of a pipe, on stderr; exit code 3 says that not every row has a vector."""
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(BAD[:2]))

    file = run("encode", tmp_path / "in.jsonl", "-o", tmp_path / "v.npy", "--on-error", "skip")
    pipe = run("encode", "--on-error", "skip", text=b"a\n\xff\n")

    output = tmp_path / "v.npy"
    said = f"{output}: 1 vector of 384 components\nwarning: 1 bad row, listed in {output}.errors.jsonl\n"
    assert (3, said) == (file.returncode, file.stderr.decode())
    reason = "not UTF-8 (invalid start byte); --encoding names another"
    said = f"warning: stdin, line 2: {reason}\nwarning: 1 bad row\n"
    assert (3, said, 1) == (pipe.returncode, pipe.stderr.decode(), len(pipe.stdout.splitlines()))


def test_two_processes_do_not_share_an_output(tmp_path: Path) -> None:
    """The second is refused while the first works."""
    source = write(tmp_path / "in.txt", sentences(8000))
    with start(source, "-o", tmp_path / "out", "--progress", "--rows-per-shard", "100") as first:
        assert first.stderr is not None
        first.stderr.read(1)  # it is encoding now

        second = run("encode", source, "-o", tmp_path / "out")

        first.kill()
        first.stderr.read()
    assert (2, f"error: {tmp_path / 'out'}: another process is working on it\n") == (
        second.returncode,
        second.stderr.decode(),
    )


def test_ctrl_c_keeps_what_is_done(tmp_path: Path) -> None:
    """At once, and it says how to go on; what was half written is gone."""
    source = write(tmp_path / "in.txt", sentences(4000))
    arguments: list[str | Path] = [source, "-o", tmp_path / "v.npy", "--rows-per-shard", "100", "--progress"]
    with start(*arguments) as process:
        until((tmp_path / "v.npy.parts/part-00001.npy").exists, 120)
        process.send_signal(signal.SIGINT)
        sent = time.monotonic()
        _, said = process.communicate()
        took = time.monotonic() - sent

    assert 130 == process.returncode
    assert took < 2  # seconds: no batch that is running is waited for
    assert re.search(
        rb"v.npy.parts keeps the [1-9][0-9,]* rows that are done; the same command resumes there\n", said
    )
    assert [] == list((tmp_path / "v.npy.parts").glob(".*"))


def test_a_full_disk_is_one_line_and_no_loss(tmp_path: Path) -> None:
    """What was written stays, and with room again the same command ends as it would have."""
    source = write(tmp_path / "in.txt", sentences(300))
    arguments: list[str | Path] = ["encode", source, "-o", tmp_path / "out", "--rows-per-shard", "100"]

    done = subprocess.run(
        [sys.executable, "-m", "ov_minilm", *map(str, arguments)],
        capture_output=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )
    again = run(*arguments)

    assert 2 == done.returncode, done.stderr
    assert b"File too large" in done.stderr
    assert b"Traceback" not in done.stderr
    assert 0 == again.returncode, again.stderr
    assert 300 == pq.read_table(tmp_path / "out").num_rows


def test_text_needs_no_extra(tmp_path: Path) -> None:
    """Without pyarrow, text and JSON lines go into .npy and JSON lines; Parquet says what to install."""
    source = write(tmp_path / "in.txt", ["a", "b"])

    def without_pyarrow(output: str) -> tuple[int, str]:
        done = python(
            "import sys; sys.modules['pyarrow'] = None\n"
            f"sys.argv = ['ov-minilm', 'encode', {str(source)!r}, '-o', {str(tmp_path / output)!r}]\n"
            "from ov_minilm.cli import main; main()"
        )
        return done.returncode, done.stderr

    assert 0 == without_pyarrow("v.npy")[0]
    assert 0 == without_pyarrow("v.jsonl")[0]
    code, said = without_pyarrow("v.parquet")
    assert 2 == code
    assert 'pip install "ov-minilm[bulk]"' in said

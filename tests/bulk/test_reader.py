"""Arguments in Python mean the same as options of the command; errors name the wrong argument."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fuzzing.stub import HashEmbedder
from support.corpora import content

from ov_minilm.bulk import job, reader
from ov_minilm.bulk.inputs import Dialect
from ov_minilm.bulk.outputs import Output
from ov_minilm.bulk.pipeline import BulkOptions
from ov_minilm.errors import BadRow

find: Any = reader.find  # so that mypy accepts wrong arguments
options: Any = BulkOptions
parse: Any = Output.parse
LOCAL = job.Local(HashEmbedder())  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make one file of each format of lines, and a folder that no job has written."""
    monkeypatch.chdir(tmp_path)
    Path("foreign").mkdir()
    Path("foreign/part-00000.parquet").touch()
    Path("in.csv").write_text("id,text\n1,a\n")
    Path("in.jsonl").write_text('{"id": 1, "text": "a"}\n')
    Path("in.txt").write_text("a\n")
    Path("plain.csv.gz").write_text("text\na\n")
    Path("lfs.parquet").write_text("version https://git-lfs.github.com/spec/v1\n")
    tensor = pa.FixedShapeTensorArray.from_numpy_ndarray(np.zeros((1, 2)))
    pq.write_table(pa.table({"text": ["a"], "x": tensor}), "tensor.parquet")


def stream(inputs: Any, file: Any) -> job.Summary:
    """Write JSON lines into an open file."""
    return job.stream(inputs, BulkOptions(), file, LOCAL.embedder, say=lambda _: None)


def append(name: str) -> job.Summary:
    """Append JSON lines to their own input."""
    with Path(name).open("ab", 0) as file:
        return stream(find([name]), file)


def run(inputs: Any, output: str, overwrite: bool = False, **more: Any) -> job.Summary:
    """Run a job."""
    return job.run(inputs, Output.parse(output), BulkOptions(**more), LOCAL, overwrite=overwrite)


CSV, JSONL, TXT, ID = ["in.csv"], ["in.jsonl"], ["in.txt"], ["id"]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: find("in.csv"), TypeError, r"patterns is 'in.csv', one name; pass a list: \['in.csv'\]"),
        (lambda: find(Path("in.csv")), TypeError, "patterns is 'in.csv', one name"),
        (lambda: find(CSV, keep="id"), TypeError, "keep is 'id', one name"),
        (lambda: find([3]), TypeError, "expected str, bytes or os.PathLike object, not int"),
        (lambda: find({"in.csv"}), TypeError, "not set, which has no order"),
        (lambda: find(CSV, column=["text"]), TypeError, "expected str, .* not list"),
        (lambda: find([]), ValueError, "no input files; pass at least one name"),
        (lambda: find(CSV, kind="CSV"), ValueError, "kind='CSV'; choose one of text, jsonl, csv"),
        (lambda: find(CSV, on_error="ignore"), ValueError, "on_error='ignore'; choose one of stop"),
        (lambda: find(JSONL, dialect=Dialect(",")), ValueError, "--delimiter has no effect on jsonl"),
        (lambda: find(TXT, dialect=Dialect(quote="'")), ValueError, "--quote has no effect on text"),
        (lambda: find(TXT, column="body"), ValueError, "plain text has only lines, no column 'body'"),
        (lambda: find(TXT, keep=ID), ValueError, "plain text has only lines, no column 'id'"),
        (lambda: find(["lfs.parquet"]), ValueError, "a Git LFS pointer, not like parquet; fetch the file"),
        (
            lambda: find(["plain.csv.gz"]),
            BadRow,
            "not begin like gzip; if it is not compressed, remove .gz from its name",
        ),
        (lambda: find(["tensor.parquet"], keep=["x"]), ValueError, "tensor.*, which Parquet cannot hold"),
        (lambda: options(truncate="left"), ValueError, "truncate='left'; choose one of end, error, mean"),
        (lambda: options(dtype="float64"), ValueError, "dtype='float64'; choose one of float32"),
        (lambda: options(on_error="ignore"), ValueError, "on_error='ignore'; choose one of stop, skip, null"),
        (lambda: options(rows_per_shard="9"), TypeError, "rows_per_shard='9' is str; pass an integer"),
        (lambda: options(rows_per_shard=0), ValueError, "rows_per_shard=0; at least 1"),
        (lambda: parse("out/", "csv"), ValueError, "form='csv'; choose one of parquet, npy, jsonl"),
        (lambda: run(find(JSONL), "in.jsonl"), ValueError, "in.jsonl is an input, and the output"),
        (lambda: run(find(CSV), "-"), ValueError, "- is stdout; call job.stream"),
        (lambda: run(find(CSV, keep=ID), "v.npy"), ValueError, r"\.npy has no columns beside"),
        (lambda: run(find(CSV, keep=ID), "v.jsonl"), ValueError, "pass typed=False to find"),
        (lambda: run(find(CSV, keep=ID, typed=False), "v.parquet"), ValueError, "pass typed=True"),
        (lambda: run(find(CSV), "v.npy", dtype="int8", on_error="null"), ValueError, "no value for a"),
        (lambda: run(find(CSV), "foreign", overwrite=True), FileExistsError, "that no ov-minilm job wrote"),
        (lambda: stream(find(CSV, keep=ID), io.BytesIO()), ValueError, "pass typed=False to find"),
        (lambda: stream(find(CSV), io.StringIO()), TypeError, "the stream accepts only str; pass its"),
        (lambda: append("in.jsonl"), ValueError, "in.jsonl is an input, and the output in.jsonl would"),
    ],
)
def test_wrong_arguments_are_refused(
    tmp_path: Path, call: Callable[[], object], error: type[Exception], message: str
) -> None:
    """The error names the argument and says what to pass; no file is written."""
    content_before = content(tmp_path)

    with pytest.raises(error, match=message):
        call()

    assert content_before == content(tmp_path)


def test_names_may_be_paths_in_any_iterable() -> None:
    """Names of inputs, columns and outputs may be odd; the output has the values of the input."""
    inputs = find((Path(name) for name in ["in.csv"]), keep=iter(["id", "id"]), typed=False)

    assert 1 == job.run(inputs, Output.parse(Path("v.jsonl")), BulkOptions(), LOCAL).rows
    assert Path("v.jsonl").read_text().startswith('{"id": "1", "embedding": [')

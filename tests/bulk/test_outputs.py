"""No output is an input, whatever either is called, and whether it is there yet or not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.corpora import content, write
from support.processes import run

from ov_minilm.bulk.outputs import Output, check_output
from ov_minilm.bulk.reader import find
from ov_minilm.bulk.refusals import REFUSALS
from ov_minilm.bulk.sink import Form

ROWS = '{"text": "a kettle", "sku": 1}\n{"text": "a parcel", "sku": 2}\n'


def check(inputs: list[str], output: str, to: Form | None = None) -> None:
    """Look at inputs and output as a job does before any work."""
    target = Output.parse(output, to)
    check_output(find(inputs), target, dtype="float32", on_error="stop")


def link(path: Path) -> None:
    """Give a.jsonl a second name by a link to it."""
    path.symlink_to("a.jsonl")


def hard_link(path: Path) -> None:
    """Give a.jsonl a second name of the same rank."""
    os.link(path.with_name("a.jsonl"), path)


def linked_folder(path: Path) -> None:
    """Give the folder a second name."""
    path.symlink_to(".")


def nothing(path: Path) -> None:
    """Leave it as it is."""


@pytest.mark.parametrize(
    ("make", "inputs", "output"),
    [
        (nothing, ["a.jsonl"], "a.jsonl"),
        (nothing, ["a.jsonl"], "./a.jsonl"),
        (nothing, ["a.jsonl"], "x/../a.jsonl"),
        (nothing, ["*.jsonl"], "a.jsonl"),
        (nothing, ["*.jsonl"], "out.jsonl"),
        (nothing, ["./*.jsonl"], "out.jsonl"),
        (nothing, ["**/*.jsonl"], "out.jsonl"),
        (nothing, ["**/*.jsonl"], "x/out.jsonl"),
        (nothing, ["**/*.jsonl"], "x/vec/"),
        (nothing, ["[a-p]*.jsonl"], "out.jsonl"),
        (nothing, ["**/*"], "x/vec/"),
        (link, ["a.jsonl"], "link.jsonl"),
        (link, ["link.jsonl"], "a.jsonl"),
        (hard_link, ["link.jsonl"], "a.jsonl"),
        (linked_folder, ["a.jsonl"], "link.jsonl/a.jsonl"),
        (linked_folder, ["link.jsonl/*.jsonl"], "out.jsonl"),
        (linked_folder, ["*.jsonl"], "link.jsonl/out.jsonl"),
    ],
)
def test_an_output_among_the_inputs_is_refused(
    tmp_path: Path,
    make: Callable[[Path], None],
    inputs: list[str],
    output: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By its name, by links, and by a pattern that finds it once it is there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jsonl").write_text(ROWS)
    (tmp_path / "x").mkdir()
    make(tmp_path / "link.jsonl")
    before = content(tmp_path)
    keep_form: Form | None = "jsonl" if output.endswith("/") else None

    with pytest.raises(ValueError, match=r"would replace it|would read the output .* too"):
        check(inputs, output, keep_form)

    assert before == content(tmp_path)


@pytest.mark.parametrize(
    ("inputs", "output"),
    [
        (["*.jsonl"], "out.parquet"),
        (["*.jsonl"], "x/out.jsonl"),
        (["x/../*.jsonl"], "x/out.jsonl"),
        (["**/a*.jsonl"], "out.jsonl"),
        (["x/**/*.jsonl", "a.jsonl"], "vec/"),
        (["**/*.jsonl"], ".hidden/vec/"),
    ],
)
def test_an_output_beside_the_inputs_is_none_of_them(
    tmp_path: Path, inputs: list[str], output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What no pattern finds is not refused."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.jsonl", "x/a.jsonl", ".hidden/b.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(ROWS)

    check(inputs, output, "jsonl" if output.endswith("/") else None)


def test_a_list_of_bad_rows_is_found_by_no_pattern(tmp_path: Path) -> None:
    """A second run with the same pattern reads what the first one read."""
    (tmp_path / "a.jsonl").write_text(ROWS + '{"text": 3}\n')
    command = ("encode", f"{tmp_path}/*.jsonl", "-o", tmp_path / "v.parquet", "--on-error", "skip")

    first, second = run(*command), run(*command)

    assert (tmp_path / "v.parquet.errors.jsonl").exists()
    assert (3, first.stderr) == (second.returncode, second.stderr)
    with pytest.raises(ValueError, match=r"v\.parquet\.errors\.jsonl is an input"):
        check([f"{tmp_path}/v.parquet.errors.jsonl"], f"{tmp_path}/v.parquet")


def test_every_name_of_a_shard_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards, errors and what stands beside an output are outputs as well."""
    monkeypatch.chdir(tmp_path)
    for name in ("v.npy.json", "v.npy.errors.jsonl"):
        (tmp_path / name).write_text(ROWS)
    (tmp_path / "v.npy.parts").mkdir()
    (tmp_path / "v.npy.parts/a.jsonl").write_text(ROWS)

    for name in ("v.npy.json", "v.npy.errors.jsonl"):
        with pytest.raises(ValueError, match=f"{name} is an input"):
            check([name], "v.npy")
    with pytest.raises(ValueError, match=r"a\.jsonl is an input and lies in the output v\.npy\.parts"):
        check(["v.npy.parts/a.jsonl"], "v.npy")


@pytest.mark.parametrize("name", ["old.parquet", "old.jsonl", "vec/part-00000.jsonl"])
def test_an_output_of_before_is_not_taken_with_other_inputs(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second run over a folder would embed what the first one wrote there; alone, it is taken."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jsonl").write_text(ROWS)
    (tmp_path / "vec").mkdir()
    if name.endswith(".parquet"):
        table = pa.table({"text": ["a"]}).replace_schema_metadata({"ov_minilm.fingerprint": "f"})
        pq.write_table(table, tmp_path / name)
    else:
        (tmp_path / name).write_text(ROWS)
        (tmp_path / "old.jsonl.json").write_text('{"fingerprint": "f"}')
        (tmp_path / "vec/_job.log").write_text("")

    with pytest.raises(ValueError, match=f"{name} was written by this command, and a.jsonl was not"):
        check(["a.jsonl", name], "new.npy")
    check([name], "new.npy")


def test_stdin_and_stdout_may_be_files_too(tmp_path: Path) -> None:
    """What the shell opened for us is looked at like any other file."""
    path = tmp_path / "p.txt"
    path.write_text("a\n")
    shell = f"exec {sys.executable} -m ov_minilm encode"
    for command in (f"{shell} - -o {tmp_path}/q.npy < {path}", f"{shell} '{tmp_path}/*.txt' >> {path}"):
        (tmp_path / "q.npy").unlink(missing_ok=True)
        if "q.npy" in command:
            os.link(path, tmp_path / "q.npy")

        done = run_shell(command)

        assert 2 == done[0]
        assert "is an input, and the output" in done[1]
    assert "a\n" == path.read_text()


def run_shell(command: str) -> tuple[int, str]:
    """Run a line of the shell; return its code and what it said."""
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize("output", ["nodir/v.parquet", "nodir/vec/"])
def test_a_missing_folder_is_named(tmp_path: Path, output: str) -> None:
    """Not a temporary name in it."""
    source = write(tmp_path / "in.txt", ["a"])

    with pytest.raises(FileNotFoundError, match=f"^folder {tmp_path}/nodir does not exist; mkdir -p"):
        check([str(source)], f"{tmp_path}/{output}")


def test_the_job_itself_is_refused(tmp_path: Path) -> None:
    """From the command line: exit code 2, one line, and the input as it was."""
    path = tmp_path / "p.jsonl"
    path.write_text(ROWS)

    done = run("encode", path, "-o", path)

    assert 2 == done.returncode
    expected = REFUSALS["output_is_input"].message.format(file=path, output=path)
    assert f"error: {expected}\n" == done.stderr.decode()
    assert {"p.jsonl": ROWS.encode()} == content(tmp_path)


def test_names_of_outputs(tmp_path: Path) -> None:
    """A known ending is a file, none or a slash a folder."""
    assert Output(Path("v.npy"), "npy", folder=False) == Output.parse("v.npy")
    assert Output(Path("v"), "jsonl", folder=True) == Output.parse("v", "jsonl")
    assert Output(tmp_path, "parquet", folder=True) == Output.parse(str(tmp_path))
    with pytest.raises(ValueError, match=r"v\.csv: a file must end in \.parquet, \.npy, \.jsonl"):
        Output.parse("v.csv")

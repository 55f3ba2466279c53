"""No output is an input, whatever either is called, and whether it is there yet or not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.corpora import content
from support.processes import here

from ov_minilm.bulk.outputs import Output, check_output
from ov_minilm.bulk.reader import find
from ov_minilm.bulk.refusals import REFUSALS
from ov_minilm.bulk.sink import Form

ROWS = '{"text": "a kettle", "sku": 1}\n{"text": "a parcel", "sku": 2}\n'


def check(inputs: str, output: str, to: Form | None = None) -> None:
    """Look at inputs and output as a job does before any work."""
    target = Output.parse(output, to or ("jsonl" if output.endswith("/") else None))
    check_output(find(inputs.split()), target, dtype="float32", on_error="stop")


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files, links and folders, and what jobs wrote before: alone, and with other inputs."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "a.jsonl",
        "x/a.jsonl",
        ".hidden/b.jsonl",
        "v.npy.json",
        "v.npy.errors.jsonl",
        "v.npy.parts/a.jsonl",
    ):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(ROWS)
    Path("symbolic.jsonl").symlink_to("a.jsonl")
    os.link("a.jsonl", "hard.jsonl")
    Path("same").symlink_to(".")
    os.mkfifo("pipe.npy")
    Path("folder.npy").mkdir()
    Path("parts.npy.parts").touch()
    Path("old").mkdir()
    for name in ("old/v.jsonl", "old/vec/part-00000.jsonl"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(ROWS)
    Path("old/v.jsonl.json").write_text('{"fingerprint": "f"}')
    Path("old/vec/_job.log").touch()
    table = pa.table({"text": ["a"]}).replace_schema_metadata({"ov_minilm.fingerprint": "f"})
    pq.write_table(table, "old/v.parquet")


@pytest.mark.parametrize(
    ("inputs", "output", "message"),
    [
        *(
            (inputs, output, r"is an input, and the output \S+ would replace it; name another")
            for inputs, output in (
                ("a.jsonl", "a.jsonl"),
                ("a.jsonl", "./a.jsonl"),
                ("a.jsonl", "x/../a.jsonl"),
                ("a.jsonl", "same/a.jsonl"),
                ("a.jsonl", "symbolic.jsonl"),
                ("symbolic.jsonl", "a.jsonl"),
                ("hard.jsonl", "a.jsonl"),
                ("[a]*.jsonl", "a.jsonl"),
                ("v.npy.json", "v.npy"),
                ("v.npy.errors.jsonl", "v.npy"),
            )
        ),
        *(
            (inputs, output, r"the pattern \S+ would read the output \S+ too; name an output outside")
            for inputs, output in (
                ("x/*.jsonl", "x/out.jsonl"),
                ("./x/*.jsonl", "x/out.jsonl"),
                ("x/**/*.jsonl", "x/out.jsonl"),
                ("x/**/*.jsonl", "x/vec/"),
                ("x/**/*", "x/vec/"),
                ("x/[a-p]*.jsonl", "x/out.jsonl"),
                ("same/x/*.jsonl", "x/out.jsonl"),
                ("x/*.jsonl", "same/x/out.jsonl"),
            )
        ),
        ("v.npy.parts/a.jsonl", "v.npy", r"a\.jsonl is an input and lies in the output v\.npy\.parts"),
        ("a.jsonl old/v.parquet", "out.npy", r"v\.parquet was written by this command, and a\.jsonl was not"),
        ("a.jsonl old/v.jsonl", "out.npy", r"v\.jsonl was written by this command, and a\.jsonl was not"),
        ("a.jsonl old/vec/part-00000.jsonl", "out.npy", "was written by this command, and a.jsonl was not"),
        ("a.jsonl", "nodir/v.parquet", "^folder nodir does not exist; mkdir -p nodir"),
        ("a.jsonl", "nodir/vec/", "^folder nodir does not exist; mkdir -p nodir"),
        ("a.jsonl", "pipe.npy", r"pipe\.npy is a pipe or a device, which a file would replace; .* -o -"),
        ("a.jsonl", "/dev/null", r"/dev/null is a pipe or a device"),
        ("a.jsonl", "folder.npy", r"folder\.npy is a folder; name a file, or folder\.npy/ to write shards"),
        ("a.jsonl", "parts.npy", r"parts\.npy\.parts is not a folder; remove it, or name another"),
        ("a.jsonl", "", r"-o '': the name of an output file must end in \.parquet"),
        ("a.jsonl", ".", r"a\.jsonl is an input and lies in the output \.;"),
        ("a.jsonl", "v.csv", r"v\.csv: the name of an output file must end in \.parquet, \.npy, \.jsonl"),
    ],
)
def test_an_output_that_cannot_be_is_refused(tmp_path: Path, inputs: str, output: str, message: str) -> None:
    """An input by any name, what a pattern would find later, an output of before; nothing is touched."""
    before = content(tmp_path)

    with pytest.raises((ValueError, OSError), match=message):
        check(inputs, output)

    assert before == content(tmp_path)


@pytest.mark.parametrize(
    ("inputs", "output"),
    [
        ("*.jsonl", "out.parquet"),
        ("*.jsonl", "x/out.jsonl"),
        ("x/../a*.jsonl", "x/out.jsonl"),
        ("x/**/a*.jsonl", "x/out.jsonl"),
        ("x/**/*.jsonl a.jsonl", "vec/"),
        ("x/**/*.jsonl", "x/.hidden/"),
        ("old/v.jsonl", "out.npy"),
        ("old/v.parquet", "out.npy"),
    ],
)
def test_an_output_beside_the_inputs_is_none_of_them(inputs: str, output: str) -> None:
    """What no pattern finds is not refused, nor vectors of before where all inputs are such."""
    check(inputs, output)


def test_names_of_outputs(tmp_path: Path) -> None:
    """A known ending is a file, none or a slash a folder."""
    assert Output(Path("v.npy"), "npy", folder=False) == Output.parse("v.npy")
    assert Output(Path("v"), "jsonl", folder=True) == Output.parse("v", "jsonl")
    assert Output(tmp_path, "parquet", folder=True) == Output.parse(str(tmp_path))


@pytest.mark.usefixtures("shared_model")
def test_a_list_of_bad_rows_is_found_by_no_pattern() -> None:
    """A second run with the same pattern reads what the first one read."""
    Path("x/a.jsonl").write_text(ROWS + '{"text": 3}\n')
    command = ("encode", "x/*.jsonl", "-o", "x/v.parquet", "--on-error", "skip")

    first, second = here(*command), here(*command)

    assert Path("x/v.parquet.errors.jsonl").exists()
    assert (3, first.stderr) == (second.returncode, second.stderr)


def test_a_command_is_refused_in_one_line() -> None:
    """Exit code 2; the files that the shell opened as stdin and stdout are looked at like any other."""
    expected = REFUSALS["output_is_input"].message
    encode = f"{sys.executable} -m ov_minilm encode"

    done = here("encode", "a.jsonl", "-o", "a.jsonl")
    shell = subprocess.run(
        [
            "/bin/sh",
            "-c",
            f"{encode} - --format jsonl -o hard.jsonl < a.jsonl; {encode} 'x/*.jsonl' >> x/a.jsonl",
        ],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (2, f"error: {expected.format(file='a.jsonl', output='a.jsonl')}\n") == (
        done.returncode,
        done.stderr.decode(),
    )
    pairs = ("-", "hard.jsonl"), ("x/a.jsonl", "stdout")
    assert [
        f"error: {expected.format(file=file, output=output)}" for file, output in pairs
    ] == shell.stderr.splitlines()
    assert ROWS == Path("a.jsonl").read_text() == Path("x/a.jsonl").read_text()

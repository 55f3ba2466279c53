"""An output never replaces an input, and no pattern of inputs matches an output, now or later."""

import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.corpora import content
from support.processes import run_inline

from ov_minilm.bulk.inputs import Kind
from ov_minilm.bulk.outputs import Output, check_output
from ov_minilm.bulk.reader import find
from ov_minilm.bulk.refusals import REFUSALS

ROWS = '{"text": "a kettle", "sku": 1}\n{"text": "a parcel", "sku": 2}\n'
FILES = """
a.jsonl x/a.jsonl .hidden/b.jsonl v.npy.json v.npy.errors.jsonl v.npy.parts/a.jsonl .v.npy.unfinished
old/v.jsonl old/vec/part-00000.jsonl foreign/part-00000.parquet f.npy.parts/mine
""".split()


def check(inputs: str, output: str) -> None:
    """Check inputs and output as a job does before any work."""
    target = Output.parse(output, "jsonl" if output.endswith("/") else None)
    kind: Kind | None = "jsonl" if inputs.endswith(".unfinished") else None
    check_output(find(inputs.split(), kind=kind), target, dtype="float32", on_error="stop")


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make files, links, folders and a pipe, and in old/ outputs of earlier jobs."""
    monkeypatch.chdir(tmp_path)
    for path in map(Path, FILES):
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(ROWS)
    Path("symbolic.jsonl").symlink_to("a.jsonl")
    os.link("a.jsonl", "hard.jsonl")
    Path("same").symlink_to(".")
    os.mkfifo("pipe.npy")
    Path("folder.npy").mkdir()
    Path("parts.npy.parts").touch()
    Path("old/v.jsonl.json").write_text('{"fingerprint": "f"}')
    Path("old/vec/_job.log").touch()
    table = pa.table({"text": ["a"]}).replace_schema_metadata({"ov_minilm.fingerprint": "f"})
    pq.write_table(table, "old/v.parquet")


REPLACED = r"is an input, and the output \S+ would replace it; name another"
MATCHED = r"the pattern \S+ would read the output \S+ too; name an output outside"
INPUTS, OUTPUTS = (
    "a.jsonl symbolic.jsonl hard.jsonl [a]*.jsonl",
    "a.jsonl x/../a.jsonl same/a.jsonl symbolic.jsonl",
)
PATTERNS = "x/*.jsonl ./x/*.jsonl x/**/*.jsonl x/[a-p]*.jsonl same/x/*.jsonl"


@pytest.mark.parametrize(
    ("inputs", "output", "message"),
    [
        *((*names, REPLACED) for names in product(INPUTS.split(), OUTPUTS.split())),
        *((name, "v.npy", REPLACED) for name in "v.npy.json v.npy.errors.jsonl .v.npy.unfinished".split()),
        *((*names, MATCHED) for names in product(PATTERNS.split(), ("x/out.jsonl", "same/x/out.jsonl"))),
        ("**/*.jsonl", "x/vec/", MATCHED),
        ("v.npy.parts/a.jsonl", "v.npy", r"a\.jsonl is an input and lies in the output v\.npy\.parts"),
        ("a.jsonl", ".", r"a\.jsonl is an input and lies in the output \.;"),
        ("a.jsonl old/v.parquet", "o.npy", r"v\.parquet was written by this command, and a\.jsonl was not"),
        ("a.jsonl old/v.jsonl", "o.npy", r"v\.jsonl was written by this command, and a\.jsonl was not"),
        ("a.jsonl old/vec/part-00000.jsonl", "o.npy", "was written by this command, and a.jsonl was not"),
        ("a.jsonl", "nodir/v.parquet", "^folder nodir does not exist; mkdir -p nodir"),
        ("a.jsonl", "pipe.npy", r"pipe\.npy is a pipe or a device, which a file would replace; .* -o -"),
        ("a.jsonl", "folder.npy", r"folder\.npy is a folder; name a file, or folder\.npy/ to write shards"),
        ("a.jsonl", "parts.npy", r"parts\.npy\.parts is not a folder; remove it, or name another"),
        ("a.jsonl", "foreign", "folder foreign has files that no ov-minilm job wrote"),
        ("a.jsonl", "f.npy", r"folder f\.npy\.parts has files that no ov-minilm job wrote"),
        ("a.jsonl", "", r"-o '': the name of an output file must end in \.parquet"),
        ("a.jsonl", "v.csv", r"v\.csv: the name of an output file must end in \.parquet, \.npy, \.jsonl"),
    ],
)
def test_an_output_that_would_lose_files_is_refused(
    tmp_path: Path, inputs: str, output: str, message: str
) -> None:
    """An output that is an input by any name, or cannot be written, is refused, and nothing is changed."""
    content_before = content(tmp_path)

    with pytest.raises((ValueError, OSError), match=message):
        check(inputs, output)

    assert content_before == content(tmp_path)


@pytest.mark.parametrize(
    ("inputs", "output"),
    [
        ("*.jsonl", "out.parquet"),
        *((pattern, "x/out.jsonl") for pattern in "*.jsonl x/../a*.jsonl x/**/a*.jsonl".split()),
        ("x/**/*.jsonl a.jsonl", "vec/"),
        ("x/**/*.jsonl", "x/.hidden/"),
        ("old/v.jsonl", "out.npy"),
        ("old/v.parquet", "out.npy"),
    ],
)
def test_other_outputs_are_accepted(inputs: str, output: str) -> None:
    """Outputs that no pattern matches are accepted; inputs may be outputs of earlier jobs."""
    check(inputs, output)


def test_the_name_of_an_output_implies_its_format(tmp_path: Path) -> None:
    """A name with a known ending is a file; a name without ending, or with a final slash, is a folder."""
    assert Output(Path("v.npy"), "npy", folder=False) == Output.parse("v.npy")
    assert Output(Path("v"), "jsonl", folder=True) == Output.parse("v", "jsonl")
    assert Output(tmp_path, "parquet", folder=True) == Output.parse(str(tmp_path))


@pytest.mark.usefixtures("shared_model")
def test_no_pattern_matches_a_list_of_bad_rows() -> None:
    """A second run with the same pattern has the same inputs as the first."""
    Path("x/a.jsonl").write_text(ROWS + '{"text": 3}\n')
    command = ("encode", "x/*.jsonl", "-o", "x/v.parquet", "--on-error", "skip")

    first_run, second_run = run_inline(*command), run_inline(*command)

    assert Path("x/v.parquet.errors.jsonl").exists()
    assert (3, first_run.stderr) == (second_run.returncode, second_run.stderr)


def test_encode_refuses_an_output_in_one_line() -> None:
    """The exit code is 2; files that the shell opened as stdin and stdout are checked like named files."""
    encode = f"{sys.executable} -m ov_minilm encode"
    redirected = f"{encode} - --format jsonl -o hard.jsonl < a.jsonl; {encode} 'x/*.jsonl' >> x/a.jsonl"

    result = run_inline("encode", "a.jsonl", "-o", "a.jsonl")
    shell = subprocess.run(["/bin/sh", "-c", redirected], capture_output=True, text=True, check=False)

    expected = [
        f"error: {REFUSALS['output_is_input'].message.format(file=file, output=output)}"
        for file, output in (("a.jsonl", "a.jsonl"), ("-", "hard.jsonl"), ("x/a.jsonl", "stdout"))
    ]
    assert 2 == result.returncode
    assert expected == (result.stderr.decode() + shell.stderr).splitlines()
    assert ROWS == Path("a.jsonl").read_text() == Path("x/a.jsonl").read_text()

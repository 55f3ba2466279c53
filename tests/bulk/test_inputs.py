"""Names and patterns of inputs, and the format that a file's name implies."""

import io
from pathlib import Path

import pytest

from ov_minilm.bulk.inputs import Dialect, Inputs, Pipe, expand, open_pipes


def test_patterns_are_sorted_and_names_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """** also matches subfolders, each once if links form cycles; the name of a file is not a pattern."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deep/down").mkdir(parents=True)
    (tmp_path / "folder.csv").mkdir()
    for link, target in (("deep/loop", "."), ("deep/up", "..")):  # through both links there are 2 ** 40 paths
        (tmp_path / link).symlink_to(target)
    for name in ("b.csv", "a.csv", "deep/down/c.csv", "odd[1].csv"):
        (tmp_path / name).touch()

    assert ["a.csv", "b.csv", "odd[1].csv"] == list(expand(["*.csv"]))
    assert ["deep/down/c.csv", "b.csv", "-"] == list(expand(["deep/d**/**/*.csv", "b.csv", "-"]))
    assert ["deep/down/c.csv", "deep/up/a.csv"] == [*expand(["deep/**/[a-c].csv"])][:2]
    assert ["odd[1].csv"] == list(expand(["odd[1].csv"]))


def test_the_name_implies_the_format() -> None:
    """The ending names the format, in any case, also before .gz, .bz2 and .zst; --format has priority."""
    kinds = "a.parquet=parquet a.pq=parquet a.JSONL=jsonl a.ndjson=jsonl a.json.gz=jsonl a.tsv.bz2=tsv"
    for name, kind in (pair.split("=") for pair in kinds.split()):
        assert (kind, "text") == (Inputs((name,)).kind_of(name), Inputs((name,), kind="text").kind_of(name))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("a.log", r"^a.log: the ending '.log' is not known; pass --format text, jsonl"),
        ("a.gz", "^a.gz: the ending '.gz' is not known"),
        ("a.log.gz", "^a.log.gz: the ending '.log.gz' is not known"),
        ("a.XLSX", r"a spreadsheet \(.xlsx\) cannot be read; save it as CSV"),
        ("a.arrow", r"an Arrow file \(.arrow\) cannot be read; write it as .parquet"),
        ("a.csv.xz", r"an archive \(.xz\) cannot be read; unpack it first"),
        ("a.parquet.gz", "is read from its end, so it cannot be compressed as a whole"),
        ("*.parquet", r"^\*\.parquet matches no file$"),
        ("none.txt", "^none.txt does not exist$"),
        ("b.csv a.csv", "^b.csv does not exist; did you mean a.csv?"),
        ("s3://none/*.csv", "is a URL; only files are read: download it first"),
        (".", r"^\. is a folder; name its files: '\*\.parquet'$"),
        ("- -", "stdin is named twice, but can be read only once"),
        ("/dev/null /dev/null", "is named twice, but can be read only once"),
    ],
)
def test_files_that_cannot_be_read_are_refused(
    names: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No structured file is read as text, and a missing file is an error; the error says what to do."""
    monkeypatch.chdir(tmp_path)
    for name in names.split():
        if name.startswith("a"):
            (tmp_path / name).touch()

    with pytest.raises((ValueError, OSError), match=message):  # noqa: PT012  # one of these calls fails
        files = tuple(expand(names.split()))
        open_pipes(files)
        [Inputs(files).kind_of(file) for file in files]


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("delimiter", ",,", "--delimiter ',,' must be one character"),
        ("delimiter", "\n", "must be one character"),
        ("delimiter", '"', "must differ from the other two"),
        ("escape", '"', "--escape '\"' is also the --quote; omit it"),
        ("quote", "''", "--quote \"''\" must be one character"),
        *(
            ("encoding", name, f"--encoding '{name}' is not known")
            for name in ("utf-9", "base64", "punycode")
        ),
        ("encoding", "unicode_escape", "--encoding 'unicode_escape' is not known"),
    ],
)
def test_a_wrong_dialect_is_refused(option: str, value: str, message: str) -> None:
    """The error has the option and its allowed values."""
    with pytest.raises(ValueError, match=message):
        Dialect(**{option: value})


def test_a_pipe_gives_its_first_bytes_again() -> None:
    """After `rewind`, all bytes can be read once; closing a Pipe leaves the stream open."""
    stream = io.BytesIO(b"one\ntwo\nthree\n")
    pipe = Pipe(stream)
    with io.BufferedReader(pipe, 4) as first_look:
        assert b"one\n" == first_look.readline()
    pipe.rewind()

    with io.BufferedReader(pipe) as reader:
        assert b"one\ntwo\nthree\n" == reader.read()
    assert not stream.closed

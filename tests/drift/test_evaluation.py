"""Evaluation files are read as they are: no quoting, no guessing, errors by file and line."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.processes import run

from ov_minilm.drift.evaluation import (
    FOLDER_VARIABLE,
    HUB,
    Evaluation,
    Pairs,
    Retrieval,
    download,
    find,
    read_beir,
    read_pairs,
    read_texts,
)

ROOT = Path(__file__).parents[2]
ROWS = [
    {"split": "test", "score": 2.4, "sentence1": 'a "b"', "sentence2": "naïve\tc"},
    {"split": "test", "score": 5, "sentence1": "d", "sentence2": "e"},
]
PAIRS = Pairs([2.4, 5.0], ['a "b"', "d"], ["naïve\tc", "e"])  # what ROWS hold


def published(folder: Path, *rows: object, name: str = "test") -> Path:
    """Write a file in the layout of the hub: gzip, one JSON value a line."""
    path = folder / f"{name}.jsonl.gz"
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    return path


def beir(folder: Path, **files: str) -> Path:
    """Write a small folder in BEIR layout; files given by name replace those written."""
    content = {
        "corpus": '{"_id": "d1", "title": "Cats", "text": "sleep.", "metadata": {}}\n'
        '{"_id": "d2", "title": "", "text": "Dogs bark."}\n{"_id": "d3", "text": "Naïve"}\n',
        "queries": '{"_id": "q1", "text": "who sleeps"}\n{"_id": "q2", "text": "not judged"}\n',
        "qrels": "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\n",
    }
    content |= files
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    for name, path in (("corpus", "corpus.jsonl"), ("queries", "queries.jsonl"), ("qrels", "qrels/test.tsv")):
        (folder / path).write_text(content[name], encoding="utf-8")
    return folder


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where a test writes its file."""
    return tmp_path / "file.txt"


def test_texts_of_pairs_are_distinct_and_in_order() -> None:
    """A sentence of several pairs is encoded once."""
    assert Pairs([1.0, 2.0, 3.0], ["b", "a", "b"], ["c", "b", "a"]).texts == ["b", "a", "c"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("4.5\ta b\tnaïve\n0\tc\td", Pairs([4.5, 0.0], ["a b", "c"], ["naïve", "d"])),  # no newline last
        ("1\ta\tb\r\n2\tc\td\r\n", Pairs([1.0, 2.0], ["a", "c"], ["b", "d"])),  # as Windows ends lines
        (
            '1\t"open\tsays ""hi""\n2\t\'x\'\t"y"\n',  # quotes are letters: one opens nothing, two stay
            Pairs([1.0, 2.0], ['"open', "'x'"], ['says ""hi""', '"y"']),
        ),
    ],
)
def test_pairs_are_three_columns(file: Path, content: str, expected: Pairs) -> None:
    """Score, sentence, sentence, parted by tabs and by nothing else."""
    file.write_bytes(content.encode())

    assert expected == read_pairs(file)


@pytest.mark.parametrize("inside", ["\r", "\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1e"], ids=ascii)
def test_only_a_newline_ends_a_line(file: Path, inside: str) -> None:
    """Separators that str.splitlines would cut at are part of a text; empty lines are none."""
    file.write_bytes(f"a{inside}b\n\n c\td \n   \ne\n".encode())

    assert [f"a{inside}b", " c\td ", "e"] == read_texts(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"1\ta\tb\n2\tc\n", "line 2: 2 tab-separated fields, expected 3"),
        (b"1\ta\tb\tc\n", "line 1: 4 tab-separated fields, expected 3"),
        (b"1\ta\tb\n\n", "line 2: 1 tab-separated fields, expected 3"),
        (b"", "line 1: 1 tab-separated fields, expected 3"),
        (b"score\ta\tb\n", "line 1: score 'score' is not a number"),
        (b"1\ta\tb\n\ta\tb\n", "line 2: score '' is not a number"),
    ],
)
def test_a_line_that_is_no_pair_is_named(file: Path, content: bytes, message: str) -> None:
    """The error says which file, which line and what is wrong with it."""
    file.write_bytes(content)

    with pytest.raises(ValueError, match=f"^{re.escape(f'{file}, {message}')}$"):
        read_pairs(file)


@pytest.mark.parametrize("content", [b"", b"\n", b" \r\n\t\n"])
def test_a_file_without_texts_is_refused(file: Path, content: bytes) -> None:
    """Measuring nothing would pass every gate."""
    file.write_bytes(content)

    with pytest.raises(ValueError, match=f"^{re.escape(str(file))}: has no text"):
        read_texts(file)


@pytest.mark.parametrize("read", [read_pairs, read_texts])
def test_another_encoding_is_refused(file: Path, read: Callable[[Path], object]) -> None:
    """Latin-1 is not read as something else; the error names the file and the line."""
    file.write_bytes("1\ta\tb\n1\tcafé\tb\n".encode("latin-1"))

    with pytest.raises(ValueError, match=f"^{re.escape(str(file))}, line 2: not UTF-8"):
        read(file)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Fill a folder with evaluation files, and one that is none."""
    (tmp_path / "stsb_test.tsv").write_text("1\ta\tb\n", encoding="utf-8")
    (tmp_path / "stsb_dev.tsv").write_text("2\tc\td\n", encoding="utf-8")
    (tmp_path / "passages.txt").write_text("e\n", encoding="utf-8")
    (tmp_path / "notes.tsv").write_text("not pairs\n", encoding="utf-8")
    return tmp_path


def test_find_reads_the_folder_of_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files go by their names without ending; others in the folder are left alone."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder))

    expected = Evaluation(
        {"stsb_dev": Pairs([2.0], ["c"], ["d"]), "stsb_test": Pairs([1.0], ["a"], ["b"])}, {"passages": ["e"]}
    )
    assert FOLDER_VARIABLE == "OV_MINILM_STSB"
    assert expected == find([], [])


def test_find_reads_what_is_named_and_nothing_else(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arguments win over the environment, one kind alone too."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder))
    pairs, passages = Pairs([1.0], ["a"], ["b"]), ["e"]

    assert Evaluation({"stsb_test": pairs}, {}) == find([folder / "stsb_test.tsv"], [])
    assert Evaluation({}, {"passages": passages}) == find([], [folder / "passages.txt"])
    assert Evaluation({"stsb_test": pairs}, {"passages": passages}) == find(
        [folder / "stsb_test.tsv"], [folder / "passages.txt"]
    )


@pytest.mark.parametrize("value", [None, ""])
def test_find_without_files_is_empty(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """No argument and no folder named: there is nothing to measure."""
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(FOLDER_VARIABLE, value)

    assert Evaluation({}, {}) == find([], [])


def test_a_missing_folder_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that was named but is not there is not the same as none named."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "gone"))

    with pytest.raises(
        ValueError, match=f"^{FOLDER_VARIABLE}={re.escape(str(tmp_path / 'gone'))}: no such folder$"
    ):
        find([], [])


def test_two_things_of_one_name_are_refused(tmp_path: Path) -> None:
    """Neither files of one name nor data of two kinds with one name may hide each other."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "dev.tsv").write_text("1\tx\ty\n")

    with pytest.raises(ValueError, match="files of the same name"):
        find([tmp_path / "a/dev.tsv", tmp_path / "b/dev.tsv"], [])
    with pytest.raises(ValueError, match="files of the same name"):
        find([], [], hub=["sts12", "sts12"])
    with pytest.raises(ValueError, match="dev: data of two kinds under the same name"):
        Evaluation({"dev": Pairs([1.0], ["x"], ["y"])}, {"dev": ["z"]})


def test_a_folder_without_evaluation_files_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measuring nothing would pass every gate."""
    monkeypatch.setenv("OV_MINILM_STSB", str(tmp_path))

    with pytest.raises(ValueError, match=r"neither stsb_\*\.tsv nor passages\.txt"):
        find([], [])


def test_files_of_the_hub_are_read_as_they_are(tmp_path: Path) -> None:
    """A .jsonl.gz holds objects; a tab inside a sentence stays, and the name is that before the ending."""
    path = published(tmp_path, *ROWS, name="sts12")

    assert PAIRS == read_pairs(path)
    assert Evaluation({"sts12": PAIRS}) == find([path], [])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([], "line 2: not a JSON object"),
        ({"score": 1, "sentence1": "a"}, "line 2: no field 'sentence2'"),
        (
            {"score": 1, "sentence1": "a", "sentence2": None},
            "line 2: 'sentence2' is NoneType, expected a string",
        ),
        ({"score": True, "sentence1": "a", "sentence2": "b"}, "line 2: score True is not a number"),
        ({"score": 10**400, "sentence1": "a", "sentence2": "b"}, f"line 2: score {10**400} is not a number"),
        ({"sentence1": "a", "sentence2": "b"}, "line 2: score None is not a number"),
    ],
)
def test_a_bad_line_of_a_hub_file_is_named(tmp_path: Path, row: object, message: str) -> None:
    """The error says which file, which line and what is wrong with it."""
    path = published(tmp_path, ROWS[0], row)

    with pytest.raises(ValueError, match=f"^{re.escape(f'{path}, {message}')}$"):
        read_pairs(path)


@pytest.mark.parametrize(
    "spoil", [lambda raw: raw[:-9], lambda _: b"1\ta\tb\n", lambda raw: raw[:15] + raw[16:]]
)
def test_a_file_that_is_not_whole_gzip_is_refused(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    """Cut short, not compressed at all, or with a byte lost: one error that names the file."""
    path = published(tmp_path, *ROWS)
    path.write_bytes(spoil(path.read_bytes()))

    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: not a whole gzip file"):
        read_pairs(path)


def test_a_hub_name_fetches_the_published_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub is asked for the dataset, the file and the revision of the table; what it returns is read."""
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub comes with the convert extra")
    asked = []

    def hf_hub_download(repository: str, file: str, *, revision: str, repo_type: str) -> str:
        asked.append((repository, file, revision, repo_type))
        return str(published(tmp_path, *ROWS))

    monkeypatch.setattr(hub, "hf_hub_download", hf_hub_download)

    assert Evaluation({"stsb_dev": PAIRS, "sickr": PAIRS}) == find([], [], hub=["stsb_dev", "sickr"])
    assert [
        ("mteb/stsbenchmark-sts", "validation.jsonl.gz", HUB["stsb_dev"].revision, "dataset"),
        ("mteb/sickr-sts", "test.jsonl.gz", HUB["sickr"].revision, "dataset"),
    ] == asked
    assert all(re.fullmatch("[0-9a-f]{40}", source.revision) for source in HUB.values())


def test_without_the_hub_client_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """What to install, or what to get elsewhere and where to pass it."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)

    with pytest.raises(
        OSError,
        match=re.escape(
            'sts12 could not be downloaded (that needs pip install "ov-minilm[convert]"); download '
            "test.jsonl.gz of the dataset mteb/sts12-sts by hand, save it as sts12.jsonl.gz, "
            "and pass --sts sts12.jsonl.gz"
        ),
    ):
        download("sts12")


def test_offline_the_way_out_is_one_line(tmp_path: Path) -> None:
    """In a real process whose hub is switched off: exit code 2, one line, nothing in the cache."""
    pytest.importorskip("huggingface_hub", reason="huggingface_hub comes with the convert extra")

    done = run(
        "drift",
        *("--reference", tmp_path, "--hub", "sts12"),
        environment={"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")},
    )

    said = done.stderr.decode().splitlines()
    assert (2, 1) == (done.returncode, len(said)), done.stderr
    assert said[0].startswith(
        "error: sts12 could not be downloaded (LocalEntryNotFoundError); download test.jsonl.gz of"
    )
    assert [] == list(tmp_path.rglob("*.jsonl.gz"))


def test_a_beir_folder_is_a_search(tmp_path: Path) -> None:
    """Title and text are one document; queries without a judgement are left out; a 0 is a judgement."""
    expected = Retrieval(
        {"d1": "Cats sleep.", "d2": "Dogs bark.", "d3": "Naïve"},
        {"q1": "who sleeps"},
        {"q1": {"d1": 2, "d2": 0}},
    )

    assert expected == read_beir(beir(tmp_path / "pets"))
    assert ["Cats sleep.", "Dogs bark.", "Naïve", "who sleeps"] == expected.texts
    assert Evaluation(retrieval={"pets": expected}) == find([], [], beir=[tmp_path / "pets/qrels/.."])


HEADER = "query-id\tcorpus-id\tscore\n"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"corpus": "{}\n"}, "corpus.jsonl, line 1: no field '_id'"),
        ({"corpus": "d1\tCats\n"}, "corpus.jsonl, line 1: not a JSON object"),
        ({"corpus": '{"_id": "d1", "text": 1}'}, "corpus.jsonl, line 1: 'text' is int, expected a string"),
        (
            {"corpus": '{"_id": "d1", "text": "a", "title": null}'},
            "corpus.jsonl, line 1: 'title' is NoneType, expected a string",
        ),
        ({"corpus": '{"_id": "d1", "text": "a"}\n' * 2}, "corpus.jsonl, line 2: id 'd1' is there twice"),
        ({"queries": '{"_id": "q1"}\n'}, "queries.jsonl, line 1: no field 'text'"),
        (
            {"qrels": "q1\td1\t1\n"},
            r"qrels/test.tsv, line 1: 'q1\td1\t1', expected the header 'query-id\tcorpus-id\tscore'",
        ),
        ({"qrels": HEADER + "q1 d1 1\n"}, "qrels/test.tsv, line 2: 1 tab-separated fields, expected 3"),
        ({"qrels": HEADER + "q9\td1\t1\n"}, "qrels/test.tsv, line 2: no id 'q9' in queries.jsonl"),
        ({"qrels": HEADER + "q1\td9\t1\n"}, "qrels/test.tsv, line 2: no id 'd9' in corpus.jsonl"),
        ({"qrels": HEADER + "q1\td1\t0.5\n"}, "qrels/test.tsv, line 2: score '0.5' is not a whole number"),
        (
            {"qrels": HEADER + "q1\td1\t1\n" * 2},
            "qrels/test.tsv, line 3: query 'q1' and document 'd1' are judged twice",
        ),
        ({"qrels": HEADER}, "qrels/test.tsv: no judgement above 0, so there is nothing to find"),
        (
            {"qrels": HEADER + "q1\td1\t0\n"},
            "qrels/test.tsv: no judgement above 0, so there is nothing to find",
        ),
    ],
)
def test_a_bad_beir_folder_is_named(tmp_path: Path, files: dict[str, str], message: str) -> None:
    """The error says which file, which line and what is wrong with it."""
    beir(tmp_path, **files)

    with pytest.raises(ValueError, match=f"^{re.escape(f'{tmp_path}/{message}')}$"):
        read_beir(tmp_path)


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl", "qrels/test.tsv"])
def test_a_beir_folder_without_a_file_says_what_it_needs(tmp_path: Path, name: str) -> None:
    """The file that is missing is named, and so are all three."""
    (beir(tmp_path) / name).unlink()

    with pytest.raises(
        ValueError, match=f"has no {name}; .* has corpus.jsonl, queries.jsonl, qrels/test.tsv$"
    ):
        read_beir(tmp_path)


def one_liners() -> list[str]:
    """Read the shell lines of the section on drift: SemEval's layout, SICK, STS-B."""
    section = (
        (ROOT / "bench/README.md").read_text(encoding="utf-8").split("\n## Drift\n")[1].split("\n## ")[0]
    )
    return [block.strip() for block in re.findall(r"```sh\n(.*?)```", section, re.DOTALL)]


@pytest.mark.parametrize(
    ("number", "files", "written", "expected"),
    [
        (
            0,
            {
                "STS.input.MSRvid.txt": 'a b\tsays "c"\r\nnobody\tjudged\r\n'
                "back\\slash\tnaïve\tsource\tsource\r\n",
                "STS.gs.MSRvid.txt": "4.500\r\n\r\n0\r\n",
                "STS.input.headlines.txt": "d\te\n",
                "STS.gs.headlines.txt": "3\n",
                "STS.gs.ALL.txt": "4.500\n\n0\n3\n",
            },
            "../sts.tsv",
            Pairs([4.5, 0.0, 3.0], ["a b", "back\\slash", "d"], ['says "c"', "naïve", "e"]),
        ),
        (
            1,
            {
                "SICK_test_annotated.txt": "pair_ID\tsentence_A\tsentence_B\t"
                "relatedness_score\tentailment_judgment\n"
                "6\tThere is no boy\tA boy is there\t3.3\tNEUTRAL\n7\tx\ty\t\tNEUTRAL\n"
            },
            "sick.tsv",
            Pairs([3.3], ["There is no boy"], ["A boy is there"]),
        ),
        (
            2,
            {
                "sts-test.csv": 'main-captions\tMSRvid\t2012test\t0024\t2.500\tA girl\tA "boy"\n'
                "main-news\theadlines\t2016\t1\t5\tc\td\tlicence\tlicence\n"
            },
            "stsb_test.tsv",
            Pairs([2.5, 5.0], ["A girl", "c"], ['A "boy"', "d"]),
        ),
    ],
    ids=["semeval", "sick", "stsb"],
)
def test_the_documented_one_liners_work(
    tmp_path: Path, number: int, files: dict[str, str], written: str, expected: Pairs
) -> None:
    """Each turns its layout into pairs, skips what nobody scored, and keeps quotes and backslashes."""
    inside = tmp_path / "folder"
    inside.mkdir()
    for name, content in files.items():
        (inside / name).write_bytes(content.encode())

    subprocess.run(["/bin/sh", "-c", one_liners()[number]], cwd=inside, check=True)

    assert expected == read_pairs(inside / written)

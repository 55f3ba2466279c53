"""Evaluation files are read as they are: no quoting, no guessing, errors by file and line."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

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

GOOD = {"split": "test", "score": 2.4, "sentence1": 'a "b"', "sentence2": "naïve\tc"}
PAIR = Pairs([2.4], ['a "b"'], ["naïve\tc"])  # what GOOD holds
QRELS, HEADER = "qrels/test.tsv", "query-id\tcorpus-id\tscore\n"
PETS = {  # a small folder in BEIR layout
    "corpus.jsonl": '{"_id": "d1", "title": "Cats", "text": "sleep.", "metadata": {}}\n'
    '{"_id": "d2", "title": "", "text": "Dogs bark."}\n{"_id": "d3", "text": "Naïve"}\n',
    "queries.jsonl": '{"_id": "q1", "text": "who sleeps"}\n{"_id": "q2", "text": "not judged"}\n',
    QRELS: f"{HEADER}q1\td1\t2\nq1\td2\t0\n",
}


def fill(folder: Path, files: dict[str, str]) -> Path:
    """Write files into a folder as they are, without translating line ends, and return it."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content.encode())
    return folder


def published(*rows: object) -> bytes:
    """Return a file in the layout of the hub: gzip, one JSON value a line."""
    return gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("4.5\ta b\tnaïve\n0\tc\td", Pairs([4.5, 0.0], ["a b", "c"], ["naïve", "d"])),  # no newline last
        ("1\ta\tb\r\n2\tc\td\r\n", Pairs([1.0, 2.0], ["a", "c"], ["b", "d"])),  # as Windows ends lines
        ('1\t"a\tsays ""b""\n2\t\'c\'\t"d"\n', Pairs([1.0, 2.0], ['"a', "'c'"], ['says ""b""', '"d"'])),
    ],
)
def test_pairs_are_three_columns(tmp_path: Path, content: str, expected: Pairs) -> None:
    """Score, sentence, sentence, parted by tabs and by nothing else; a sentence of two pairs is one text."""
    assert expected == read_pairs(fill(tmp_path, {"dev.tsv": content}) / "dev.tsv")
    assert ["b", "a", "c"] == Pairs([1.0, 2.0, 3.0], ["b", "a", "b"], ["c", "b", "a"]).texts


@pytest.mark.parametrize("inside", ["\r", "\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1e"], ids=ascii)
def test_only_a_newline_ends_a_line(tmp_path: Path, inside: str) -> None:
    """Separators that str.splitlines would cut at are part of a text; empty lines are none."""
    fill(tmp_path, {"texts.txt": f"a{inside}b\n\n c\td \n   \ne\n"})

    assert [f"a{inside}b", " c\td ", "e"] == read_texts(tmp_path / "texts.txt")


@pytest.mark.parametrize(
    ("read", "content", "message"),
    [
        (read_pairs, b"1\ta\tb\n2\tc\n", ", line 2: 2 tab-separated fields, expected 3"),
        (read_pairs, b"1\ta\tb\tc\n", ", line 1: 4 tab-separated fields, expected 3"),
        (read_pairs, b"1\ta\tb\n\n", ", line 2: 1 tab-separated fields, expected 3"),
        (read_pairs, b"", ", line 1: 1 tab-separated fields, expected 3"),
        (read_pairs, b"score\ta\tb\n", ", line 1: score 'score' is not a number"),
        (read_pairs, b"1\ta\tb\n\ta\tb\n", ", line 2: score '' is not a number"),
        (read_pairs, b"1\ta\tb\n1\tcaf\xe9\tb\n", ", line 2: not UTF-8 (invalid continuation byte)"),
        (read_texts, b"1\ta\tb\n1\tcaf\xe9\tb\n", ", line 2: not UTF-8 (invalid continuation byte)"),
        *(
            (read_texts, blank, ": has no text; expected one on each line")
            for blank in (b"", b"\n", b" \r\n\t")
        ),
    ],
)
def test_a_bad_file_is_named_with_its_line(
    tmp_path: Path, read: Callable[[Path], object], content: bytes, message: str
) -> None:
    """The error says which file, which line and what is wrong; no text at all would pass every gate."""
    (tmp_path / "file").write_bytes(content)

    with pytest.raises(ValueError, match=f"^{re.escape(f'{tmp_path}/file{message}')}$"):
        read(tmp_path / "file")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([], "not a JSON object"),
        ({"score": 1, "sentence1": "a"}, "no field 'sentence2'"),
        ({"score": 1, "sentence1": "a", "sentence2": None}, "'sentence2' is NoneType, expected a string"),
        ({"score": True, "sentence1": "a", "sentence2": "b"}, "score True is not a number"),
        ({"score": 10**400, "sentence1": "a", "sentence2": "b"}, f"score {10**400} is not a number"),
        ({"sentence1": "a", "sentence2": "b"}, "score None is not a number"),
    ],
)
def test_files_of_the_hub_are_read_as_they_are(tmp_path: Path, row: object, message: str) -> None:
    """A .jsonl.gz holds objects, with tabs in their sentences; a bad line is named, and so is a bad file."""
    path = tmp_path / "sts12.jsonl.gz"
    path.write_bytes(published(GOOD))
    assert Evaluation({"sts12": PAIR}) == find([path], [])

    whole = published(GOOD, row)
    path.write_bytes(whole)
    with pytest.raises(ValueError, match=f"^{re.escape(f'{path}, line 2: {message}')}$"):
        read_pairs(path)
    for spoilt in (whole[:-9], b"1\ta\tb\n", whole[:15] + whole[16:]):  # cut, not compressed, a byte lost
        path.write_bytes(spoilt)
        with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: not a complete gzip file"):
            read_pairs(path)


def test_find_reads_what_is_named_else_the_folder_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arguments win, one kind alone too; other files in the folder are left alone; no folder is nothing."""
    fill(tmp_path, {"stsb_test.tsv": "1\ta\tb\n", "stsb_dev.tsv": "2\tc\td\n", "passages.txt": "e\n"})
    fill(tmp_path, {"notes.tsv": "not pairs\n"})
    sts, texts = tmp_path / "stsb_test.tsv", tmp_path / "passages.txt"
    test, dev, passages = Pairs([1.0], ["a"], ["b"]), Pairs([2.0], ["c"], ["d"]), {"passages": ["e"]}
    assert FOLDER_VARIABLE == "OV_MINILM_STSB"

    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    assert Evaluation({"stsb_dev": dev, "stsb_test": test}, passages) == find([], [])
    assert Evaluation({"stsb_test": test}) == find([sts], [])
    assert Evaluation({}, passages) == find([], [texts])
    assert Evaluation({"stsb_test": test}, passages) == find([sts], [texts])
    monkeypatch.setenv(FOLDER_VARIABLE, "")
    assert Evaluation() == find([], [])
    monkeypatch.delenv(FOLDER_VARIABLE)
    assert Evaluation() == find([], [])


@pytest.mark.parametrize(
    ("folder", "arguments", "message"),
    [
        ("gone", {}, f"^{FOLDER_VARIABLE}=gone: no such folder$"),
        ("other", {}, rf"^{FOLDER_VARIABLE}=other: neither stsb_\*\.tsv nor passages\.txt in it$"),
        ("", {"sts": [Path("a/dev.tsv"), Path("other/dev.tsv")]}, "same name: a/dev.tsv, other/dev.tsv"),
        ("", {"hub": ["sts12", "sts12"]}, "files of the same name: sts12, sts12"),
        ("", {"sts": [Path("a/dev.tsv")], "beir": [Path("dev")]}, "files of the same name: a/dev.tsv, dev"),
    ],
)
def test_what_find_cannot_tell_apart_or_find_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, arguments: dict[str, Any], message: str
) -> None:
    """A folder that is named must be there and hold something; nothing may hide another of its name."""
    monkeypatch.chdir(fill(tmp_path, {"a/dev.tsv": "1\tx\ty\n", "other/dev.tsv": "1\tx\ty\n"}))
    monkeypatch.setenv(FOLDER_VARIABLE, folder)

    with pytest.raises(ValueError, match=message):
        find(**{"sts": [], "texts": []} | arguments)
    with pytest.raises(ValueError, match="dev: data of two kinds under the same name"):
        Evaluation({"dev": Pairs([1.0], ["x"], ["y"])}, {"dev": ["z"]})


def test_a_hub_name_fetches_the_published_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub is asked for the dataset, the file and the revision of the table; what it returns is read."""
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub comes with the convert extra")
    asked = []
    (tmp_path / "test.jsonl.gz").write_bytes(published(GOOD))

    def hf_hub_download(repository: str, file: str, *, revision: str, repo_type: str) -> str:
        asked.append((repository, file, revision, repo_type))
        return str(tmp_path / "test.jsonl.gz")

    monkeypatch.setattr(hub, "hf_hub_download", hf_hub_download)

    assert Evaluation({"stsb_dev": PAIR, "sickr": PAIR}) == find([], [], hub=["stsb_dev", "sickr"])
    assert [
        ("mteb/stsbenchmark-sts", "validation.jsonl.gz", HUB["stsb_dev"].revision, "dataset"),
        ("mteb/sickr-sts", "test.jsonl.gz", HUB["sickr"].revision, "dataset"),
    ] == asked
    assert all(re.fullmatch("[0-9a-f]{40}", source.revision) for source in HUB.values())


def test_without_the_hub_the_way_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline: exit code 2 and one line; without the client also what to install, and where to pass it."""
    pytest.importorskip("huggingface_hub", reason="huggingface_hub comes with the convert extra")
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}

    done = run("drift", "--reference", tmp_path, "--hub", "sts12", environment=offline)

    said = done.stderr.decode()
    assert (2, 1, []) == (done.returncode, said.count("\n"), list(tmp_path.rglob("*.jsonl.gz"))), said
    by_hand = (
        "download test.jsonl.gz of the dataset mteb/sts12-sts by hand, save it as sts12.jsonl.gz, "
        "and pass --sts sts12.jsonl.gz"
    )
    assert f"error: sts12 could not be downloaded (LocalEntryNotFoundError); {by_hand}\n" == said
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(OSError, match=re.escape(f'(that needs pip install "ov-minilm[convert]"); {by_hand}')):
        download("sts12")


def test_a_beir_folder_is_a_search(tmp_path: Path) -> None:
    """Title and text are one document; queries without a judgement are left out; a 0 is a judgement."""
    documents = {"d1": "Cats sleep.", "d2": "Dogs bark.", "d3": "Naïve"}
    expected = Retrieval(documents, {"q1": "who sleeps"}, {"q1": {"d1": 2, "d2": 0}})

    assert expected == read_beir(fill(tmp_path / "pets", PETS))
    assert [*documents.values(), "who sleeps"] == expected.texts
    assert Evaluation(retrieval={"pets": expected}) == find([], [], beir=[tmp_path / "pets/qrels/.."])


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("corpus.jsonl", "{}\n", ", line 1: no field '_id'"),
        ("corpus.jsonl", "d1\tCats\n", ", line 1: not a JSON object"),
        ("corpus.jsonl", '{"_id": "d1", "text": 1}', ", line 1: 'text' is int, expected a string"),
        ("corpus.jsonl", '{"_id": "d", "title": null}', ", line 1: 'title' is NoneType, expected a string"),
        ("corpus.jsonl", '{"_id": "d1", "text": "a"}\n' * 2, ", line 2: id 'd1' occurs twice"),
        ("queries.jsonl", '{"_id": "q1"}\n', ", line 1: no field 'text'"),
        (QRELS, "q1\td1\t1\n", rf", line 1: 'q1\td1\t1', expected the header {HEADER[:-1]!r}"),
        (QRELS, f"{HEADER}q1 d1 1\n", ", line 2: 1 tab-separated fields, expected 3"),
        (QRELS, f"{HEADER}q9\td1\t1\n", ", line 2: no id 'q9' in queries.jsonl"),
        (QRELS, f"{HEADER}q1\td9\t1\n", ", line 2: no id 'd9' in corpus.jsonl"),
        (QRELS, f"{HEADER}q1\td1\t0.5\n", ", line 2: score '0.5' is not an integer"),
        (QRELS, HEADER + "q1\td1\t1\n" * 2, ", line 3: query 'q1' and document 'd1' are judged twice"),
        (QRELS, HEADER, ": no judgement above 0, so there is nothing to find"),
        (QRELS, f"{HEADER}q1\td1\t0\n", ": no judgement above 0, so there is nothing to find"),
    ],
)
def test_a_bad_beir_folder_is_named(tmp_path: Path, file: str, content: str, message: str) -> None:
    """The error says which file, which line and what is wrong; without the file, what a folder holds."""
    fill(tmp_path, {**PETS, file: content})

    with pytest.raises(ValueError, match=f"^{re.escape(f'{tmp_path}/{file}{message}')}$"):
        read_beir(tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(ValueError, match=f"has no {file}; .* has {', '.join(PETS)}$"):
        read_beir(tmp_path)


@pytest.mark.parametrize(
    ("number", "files", "written", "expected"),
    [
        (
            0,
            {
                "STS.input.a.txt": 'a\tsays "c"\r\nnobody\tjudged\r\nback\\slash\tnaïve\tsource\tsource\r\n',
                "STS.gs.a.txt": "4.500\r\n\r\n0\r\n",
                "STS.input.b.txt": "d\te\n",
                "STS.gs.b.txt": "3\n",
                "STS.gs.ALL.txt": "4.500\n\n0\n3\n",
            },
            "../sts.tsv",
            Pairs([4.5, 0.0, 3.0], ["a", "back\\slash", "d"], ['says "c"', "naïve", "e"]),
        ),
        (
            1,
            {"SICK_test_annotated.txt": "pair_ID\tA\tB\tscore\tjudgment\n6\tx\ty\t3.3\tNO\n7\tx\ty\t\tNO\n"},
            "sick.tsv",
            Pairs([3.3], ["x"], ["y"]),
        ),
        (
            2,
            {"sts-test.csv": 'main\tvid\t2012\t24\t2.500\tA\tB "c"\nmain\tnews\t2016\t1\t5\td\te\tNC\n'},
            "stsb_test.tsv",
            Pairs([2.5, 5.0], ["A", "d"], ['B "c"', "e"]),
        ),
    ],
    ids=["semeval", "sick", "stsb"],
)
def test_the_documented_one_liners_work(
    tmp_path: Path, number: int, files: dict[str, str], written: str, expected: Pairs
) -> None:
    """Each turns its layout into pairs, skips what nobody scored, and keeps quotes and backslashes."""
    page = (Path(__file__).parents[2] / "bench/README.md").read_text(encoding="utf-8")
    section = page.split("\n## Drift\n")[1].split("\n## ")[0]
    line = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)[number].strip()
    folder = fill(tmp_path / "folder", files)

    subprocess.run(["/bin/sh", "-c", line], cwd=folder, check=True)

    assert expected == read_pairs(folder / written)

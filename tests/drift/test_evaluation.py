"""Evaluation files are read exactly as they are; errors name the file and the line."""

import gzip
import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
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

SCORED = {"split": "test", "score": 2.4, "sentence1": 'a "b"', "sentence2": "naïve\tc"}
SCORED_PAIR = Pairs([2.4], ['a "b"'], ["naïve\tc"])
SEPARATORS = "\r\u2028\u2029\x85\x0b\x0c\x1e"  # str.splitlines also splits at these characters
HUB_FILE, CORPUS, QUERIES, QRELS = "sts12.jsonl.gz", "corpus.jsonl", "queries.jsonl", "qrels/test.tsv"
HEADER = "query-id\tcorpus-id\tscore\n"
BEIR_FILES: dict[str, str | bytes] = {
    CORPUS: '{"_id": "d1", "title": "Cats", "text": "sleep.", "metadata": {}}\n'
    '{"_id": "d2", "title": "", "text": "Dogs bark."}\n{"_id": "d3", "text": "Naïve"}\n',
    QUERIES: '{"_id": "q1", "text": "who sleeps"}\n{"_id": "q2", "text": "not judged"}\n',
    QRELS: f"{HEADER}q1\td1\t2\nq1\td2\t0\n",
}
BEIR_SEARCH = Retrieval(
    {"d1": "Cats sleep.", "d2": "Dogs bark.", "d3": "Naïve"}, {"q1": "who sleeps"}, {"q1": {"d1": 2, "d2": 0}}
)


def write_files(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    """Write files into a folder, without translating line ends, and return it."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def compressed(*rows: object) -> bytes:
    """Return rows as the hub stores them: gzip, with one JSON value per line."""
    return gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode(), mtime=0)


def read_search(file: Path) -> Retrieval:
    """Read the folder in BEIR layout to which a file belongs."""
    return read_beir(file.parents[file.parent.name == "qrels"])


@pytest.mark.parametrize(
    ("read", "file", "content", "expected"),
    [
        (read_pairs, "a.tsv", "4.5\ta b\tnaïve\n0\tc\td", Pairs([4.5, 0.0], ["a b", "c"], ["naïve", "d"])),
        (read_pairs, "a.tsv", "1\ta\tb\r\n2\tc\td\r\n", Pairs([1.0, 2.0], ["a", "c"], ["b", "d"])),
        (
            read_pairs,
            "a.tsv",
            '1\t"a\tsays ""b""\n2\t\'c\'\t"d"\n',
            Pairs([1.0, 2.0], ['"a', "'c'"], ['says ""b""', '"d"']),
        ),
        (read_pairs, HUB_FILE, compressed(SCORED), SCORED_PAIR),
        (read_texts, "a.txt", f"a{SEPARATORS}b\n\n c\td \n   \ne\n", [f"a{SEPARATORS}b", " c\td ", "e"]),
        (read_search, QRELS, BEIR_FILES[QRELS], BEIR_SEARCH),
    ],
    ids=["no last newline", "Windows", "quotes", "hub", "texts", "BEIR"],
)
def test_files_are_read_without_quoting_or_guessing(
    tmp_path: Path, read: Callable[[Path], object], file: str, content: str | bytes, expected: object
) -> None:
    """Only tabs and newlines separate texts; repeated texts and unjudged queries are left out."""
    assert expected == read(write_files(tmp_path, BEIR_FILES | {file: content}) / file)
    assert ["b", "a", "c"] == Pairs([1.0, 2.0, 3.0], ["b", "a", "b"], ["c", "b", "a"]).texts
    assert ["Cats sleep.", "Dogs bark.", "Naïve", "who sleeps"] == BEIR_SEARCH.texts


WHOLE = compressed(SCORED, SCORED)
NOT_GZIP = ": not a complete gzip file"


@pytest.mark.parametrize(
    ("read", "file", "content", "message"),
    [
        (read_pairs, "a.tsv", "1\ta\tb\n2\tc\n", ", line 2: 2 tab-separated fields, expected 3"),
        (read_pairs, "a.tsv", "1\ta\tb\tc\n", ", line 1: 4 tab-separated fields, expected 3"),
        (read_pairs, "a.tsv", "1\ta\tb\n\n", ", line 2: 1 tab-separated fields, expected 3"),
        (read_pairs, "a.tsv", "score\ta\tb\n", ", line 1: score 'score' is not a number"),
        (read_pairs, "a.tsv", b"1\ta\tb\n1\tcaf\xe9\tb\n", ", line 2: not UTF-8 (invalid continuation byte)"),
        (read_texts, "a.txt", b"a\ncaf\xe9\tb\n", ", line 2: not UTF-8 (invalid continuation byte)"),
        (read_texts, "a.txt", "", ": has no text; expected one on each line"),
        (read_pairs, HUB_FILE, compressed(SCORED, []), ", line 2: not a JSON object"),
        (read_pairs, HUB_FILE, compressed({"score": 1, "sentence1": "a"}), ", line 1: no field 'sentence2'"),
        (
            read_pairs,
            HUB_FILE,
            compressed(SCORED | {"sentence2": None}),
            ", line 1: 'sentence2' is NoneType, expected a string",
        ),
        (read_pairs, HUB_FILE, compressed(SCORED | {"score": True}), ", line 1: score True is not a number"),
        (read_pairs, HUB_FILE, compressed(SCORED | {"score": 10**400}), ", line 1: score 1000"),
        (read_pairs, HUB_FILE, WHOLE[:-9], NOT_GZIP),
        (read_pairs, HUB_FILE, b"1\ta\tb\n", NOT_GZIP),
        (read_pairs, HUB_FILE, WHOLE[:15] + WHOLE[16:], NOT_GZIP),
        (read_search, CORPUS, "{}\n", ", line 1: no field '_id'"),
        (read_search, CORPUS, '{"_id": "d1", "text": "a"}\n' * 2, ", line 2: id 'd1' occurs twice"),
        (read_search, QUERIES, '{"_id": "q1"}\n', ", line 1: no field 'text'"),
        (read_search, QRELS, "q1\td1\t1\n", rf", line 1: 'q1\td1\t1', expected the header {HEADER[:-1]!r}"),
        (read_search, QRELS, f"{HEADER}q1 d1 1\n", ", line 2: 1 tab-separated fields, expected 3"),
        (read_search, QRELS, f"{HEADER}q9\td1\t1\n", ", line 2: no id 'q9' in queries.jsonl"),
        (read_search, QRELS, f"{HEADER}q1\td9\t1\n", ", line 2: no id 'd9' in corpus.jsonl"),
        (read_search, QRELS, f"{HEADER}q1\td1\t0.5\n", ", line 2: score '0.5' is not an integer"),
        (read_search, QRELS, HEADER + "q1\td1\t1\n" * 2, ", line 3: query 'q1' and document 'd1' are judged"),
        (read_search, QRELS, f"{HEADER}q1\td1\t0\n", ": no judgement above 0, so there is nothing to find"),
    ],
)
def test_a_bad_file_is_named_with_its_line(
    tmp_path: Path, read: Callable[[Path], object], file: str, content: str | bytes, message: str
) -> None:
    """The error says which file, which line and what is wrong; a file without texts is an error too."""
    write_files(tmp_path, BEIR_FILES | {file: content})

    with pytest.raises(ValueError, match=f"^{re.escape(f'{tmp_path}/{file}{message}')}"):
        read(tmp_path / file)


def test_a_folder_without_its_files_is_refused(tmp_path: Path) -> None:
    """A missing file of the BEIR layout is named, with the files that a folder needs."""
    for number, file in enumerate(BEIR_FILES):
        folder = write_files(tmp_path / str(number), BEIR_FILES)
        (folder / file).unlink()
        with pytest.raises(ValueError, match=f"has no {file}; .* has {', '.join(BEIR_FILES)}$"):
            read_beir(folder)


def test_find_reads_the_named_files_or_the_folder_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named files replace the folder; of the folder only stsb_*.tsv and passages.txt are read."""
    write_files(tmp_path, {"stsb_test.tsv": "1\ta\tb\n", "stsb_dev.tsv": "2\tc\td\n", "passages.txt": "e\n"})
    write_files(tmp_path / "pets", BEIR_FILES)
    write_files(tmp_path, {"notes.tsv": "not pairs\n"})
    sts, texts = tmp_path / "stsb_test.tsv", tmp_path / "passages.txt"
    test, dev, passages = Pairs([1.0], ["a"], ["b"]), Pairs([2.0], ["c"], ["d"]), {"passages": ["e"]}
    assert FOLDER_VARIABLE == "OV_MINILM_STSB"

    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    assert Evaluation({"stsb_dev": dev, "stsb_test": test}, passages) == find([], [])
    assert Evaluation({"stsb_test": test}) == find([sts], [])
    assert Evaluation({}, passages) == find([], [texts])
    assert Evaluation({"stsb_test": test}, passages) == find([sts], [texts])
    assert Evaluation(retrieval={"pets": BEIR_SEARCH}) == find([], [], beir=[tmp_path / "pets/qrels/.."])
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
def test_find_refuses_missing_folders_and_equal_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, arguments: dict[str, Any], message: str
) -> None:
    """A named folder must exist and hold evaluation files; two data sets may not have one name."""
    monkeypatch.chdir(write_files(tmp_path, {"a/dev.tsv": "1\tx\ty\n", "other/dev.tsv": "1\tx\ty\n"}))
    monkeypatch.setenv(FOLDER_VARIABLE, folder)

    with pytest.raises(ValueError, match=message):
        find(**{"sts": [], "texts": []} | arguments)
    with pytest.raises(ValueError, match="dev: data of two kinds under the same name"):
        Evaluation({"dev": Pairs([1.0], ["x"], ["y"])}, {"dev": ["z"]})


def test_a_hub_name_downloads_the_pinned_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub is asked for the data set and revision in HUB; the downloaded file is read."""
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub comes with the convert extra")
    requests = []
    write_files(tmp_path, {"test.jsonl.gz": compressed(SCORED)})

    def hf_hub_download(repository: str, file: str, *, revision: str, repo_type: str) -> str:
        requests.append((repository, file, revision, repo_type))
        return str(tmp_path / "test.jsonl.gz")

    monkeypatch.setattr(hub, "hf_hub_download", hf_hub_download)

    expected = Evaluation({"stsb_dev": SCORED_PAIR, "sickr": SCORED_PAIR})
    assert expected == find([], [], hub=["stsb_dev", "sickr"])
    assert [
        ("mteb/stsbenchmark-sts", "validation.jsonl.gz", HUB["stsb_dev"].revision, "dataset"),
        ("mteb/sickr-sts", "test.jsonl.gz", HUB["sickr"].revision, "dataset"),
    ] == requests
    assert all(re.fullmatch("[0-9a-f]{40}", published.revision) for published in HUB.values())


def test_a_failed_download_says_how_to_do_it_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline, the error is one line, with exit code 2; without huggingface_hub, it says what to install."""
    pytest.importorskip("huggingface_hub", reason="huggingface_hub comes with the convert extra")
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    by_hand = (
        "download test.jsonl.gz of the dataset mteb/sts12-sts by hand, save it as sts12.jsonl.gz, "
        "and pass --sts sts12.jsonl.gz"
    )

    result = run("drift", "--reference", tmp_path, "--hub", "sts12", environment=offline)

    expected = f"error: sts12 could not be downloaded (LocalEntryNotFoundError); {by_hand}\n"
    assert (2, expected) == (result.returncode, result.stderr.decode())
    assert [] == list(tmp_path.rglob("*.jsonl.gz"))
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(OSError, match=re.escape(f'(that needs pip install "ov-minilm[convert]"); {by_hand}')):
        download("sts12")


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
def test_the_documented_one_liners_convert_published_files(
    tmp_path: Path, number: int, files: dict[str, str], written: str, expected: Pairs
) -> None:
    """Pairs without a score are left out; quotes and backslashes are kept."""
    page = (Path(__file__).parents[2] / "bench/README.md").read_text(encoding="utf-8")
    section = page.split("\n## Drift\n")[1].split("\n## ")[0]
    command = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)[number].strip()
    folder = write_files(tmp_path / "folder", files)

    subprocess.run(["/bin/sh", "-c", command], cwd=folder, check=True)

    assert expected == read_pairs(folder / written)

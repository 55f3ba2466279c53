"""Texts to measure drift on: sentence pairs with human scores, plain collections, and search tasks.

Files are UTF-8 without header and quotes: `score<TAB>sentence<TAB>sentence`, or one text per line.
STS files of the hub (.jsonl.gz) and folders in BEIR layout are read as they are published.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER_VARIABLE = "OV_MINILM_STSB"
CORPUS, QUERIES, QRELS = "corpus.jsonl", "queries.jsonl", "qrels/test.tsv"  # files of a folder in BEIR layout
QRELS_HEADER = "query-id\tcorpus-id\tscore"
COMPRESSED = ".jsonl.gz"


@dataclass(frozen=True, slots=True)
class Published:
    """A file of a dataset on the hub: gzip, JSON lines with sentence1, sentence2 and score."""

    repository: str
    revision: str
    file: str = f"test{COMPRESSED}"


# Name of a data set in this package -> its file. The mteb benchmark pins the same revisions.
HUB = {
    "stsb_dev": Published(
        "mteb/stsbenchmark-sts", "b0fddb56ed78048fa8b90373c8a3cfc37b684831", f"validation{COMPRESSED}"
    ),
    "stsb_test": Published("mteb/stsbenchmark-sts", "b0fddb56ed78048fa8b90373c8a3cfc37b684831"),
    "sts12": Published("mteb/sts12-sts", "a0d554a64d88156834ff5ae9920b964011b16384"),
    "sts13": Published("mteb/sts13-sts", "7e90230a92c190f1bf69ae9002b8cea547a64cca"),
    "sts14": Published("mteb/sts14-sts", "6031580fec1f6af667f0bd2da0a551cf4f0b2375"),
    "sts15": Published("mteb/sts15-sts", "ae752c7c21bf194d8b67fd573edf7ae58183cbe3"),
    "sts16": Published("mteb/sts16-sts", "4d8694f8f0e0100860b497b999b3dbed754a0513"),
    "sickr": Published("mteb/sickr-sts", "20a6d6f312dd54037fe07a32d58e5e168867909d"),
}


@dataclass(frozen=True, slots=True)
class Pairs:
    """N scored sentence pairs, as three columns."""

    scores: list[float]
    left: list[str]
    right: list[str]

    @property
    def texts(self) -> list[str]:
        """Every sentence once, in order of appearance."""
        return list(dict.fromkeys(self.left + self.right))


@dataclass(frozen=True, slots=True)
class Retrieval:
    """A search task: documents, queries, and people's judgements of which documents are relevant."""

    documents: dict[str, str]  # id -> text
    queries: dict[str, str]  # id -> query; only queries with judgements
    # query id -> document id -> gain; a document that was not judged has no entry
    judgements: dict[str, dict[str, int]]

    @property
    def texts(self) -> list[str]:
        """Every document and query once, in order of appearance."""
        return list(dict.fromkeys([*self.documents.values(), *self.queries.values()]))


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The texts of a drift measurement, by name."""

    pairs: dict[str, Pairs] = field(default_factory=dict)
    collections: dict[str, list[str]] = field(default_factory=dict)
    retrieval: dict[str, Retrieval] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise ValueError if two data sets have the same name."""
        names = [*self.pairs, *self.collections, *self.retrieval]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"{', '.join(repeated)}: data of two kinds under the same name; rename one file")

    @property
    def empty(self) -> bool:
        """Whether there is nothing to measure on."""
        return not (self.pairs or self.collections or self.retrieval)


def read_pairs(path: Path) -> Pairs:
    """Read score, sentence and sentence from each line; a .jsonl.gz file is read as the hub publishes it.

    Raises:
        ValueError: a line does not have three fields or a number as score; the message names the line.
    """
    split = _json_pair if path.name.endswith(COMPRESSED) else _tab_separated_pair
    rows = [split(where, line) for where, line in _lines(path)]
    return Pairs([row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows])


def _tab_separated_pair(where: str, line: str) -> tuple[float, str, str]:
    fields = line.split("\t")
    if len(fields) != 3:
        raise ValueError(f"{where}: {len(fields)} tab-separated fields, expected 3")
    return _score(where, fields[0]), fields[1], fields[2]


def _json_pair(where: str, line: str) -> tuple[float, str, str]:
    row = _object(where, line)
    score = _score(where, row.get("score"))
    return score, _string(where, row, "sentence1"), _string(where, row, "sentence2")


def _score(where: str, value: Any) -> float:
    try:
        score = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        score = math.nan
    if not math.isfinite(score):
        raise ValueError(f"{where}: score {value!r} is not a number")
    return score


def read_texts(path: Path) -> list[str]:
    """Read one text per line; empty lines are skipped, an empty file is an error."""
    texts = [line for _, line in _lines(path) if line.strip()]
    if not texts:
        raise ValueError(f"{path}: has no text; expected one on each line")
    return texts


def read_beir(folder: Path) -> Retrieval:
    """Read corpus.jsonl (_id, text, often title), queries.jsonl (_id, text) and qrels/test.tsv of a folder.

    Title and text are joined by a space, like the SentenceBERT model of the BEIR library does. Queries
    without a judgement are left out.

    Raises:
        ValueError: a file is missing; a line is not of this layout, repeats an id, or judges a query or a
            document that does not exist. The message names the file and the line.
    """
    for name in (CORPUS, QUERIES, QRELS):
        if not (folder / name).is_file():
            raise ValueError(f"{folder}: has no {name}; a BEIR folder has {CORPUS}, {QUERIES}, {QRELS}")
    documents, queries = _by_id(folder / CORPUS), _by_id(folder / QUERIES)
    judgements: dict[str, dict[str, int]] = {}
    rows = _lines(folder / QRELS)
    where, header = next(rows)
    if header != QRELS_HEADER:
        raise ValueError(f"{where}: {header!r}, expected the header {QRELS_HEADER!r}")
    for where, line in rows:
        fields = line.split("\t")
        if len(fields) != 3:
            raise ValueError(f"{where}: {len(fields)} tab-separated fields, expected 3")
        query, document, score = fields
        if query not in queries or document not in documents:
            file, missing_id = (CORPUS, document) if query in queries else (QUERIES, query)
            raise ValueError(f"{where}: no id {missing_id!r} in {file}")
        judged = judgements.setdefault(query, {})
        if document in judged:
            raise ValueError(f"{where}: query {query!r} and document {document!r} are judged twice")
        try:
            judged[document] = int(score)
        except ValueError:
            raise ValueError(f"{where}: score {score!r} is not an integer") from None
    if not any(gain > 0 for judged in judgements.values() for gain in judged.values()):
        raise ValueError(f"{folder / QRELS}: no judgement above 0, so there is nothing to find")
    return Retrieval(documents, {query: queries[query] for query in judgements}, judgements)


def _by_id(path: Path) -> dict[str, str]:
    texts: dict[str, str] = {}
    for where, line in _lines(path):
        row = {"title": ""} | _object(where, line)
        name, title, text = (_string(where, row, field) for field in ("_id", "title", "text"))
        if name in texts:
            raise ValueError(f"{where}: id {name!r} occurs twice")
        texts[name] = f"{title} {text}".strip()
    return texts


def download(name: str) -> Path:
    """Return the path of a file of HUB in the hub's cache; download it first if it is not there.

    Raises:
        OSError: the download failed; the message says what to download by hand and how to pass it.
    """
    source = HUB[name]
    try:
        from huggingface_hub import hf_hub_download

        return Path(
            hf_hub_download(source.repository, source.file, revision=source.revision, repo_type="dataset")
        )
    # OSError is the base class of the hub's errors, also of the one for missing network
    except (ImportError, OSError) as error:
        missing = isinstance(error, ImportError)
        reason = 'that needs pip install "ov-minilm[convert]"' if missing else type(error).__name__
        raise OSError(
            f"{name} could not be downloaded ({reason}); download {source.file} of the dataset "
            f"{source.repository} by hand, save it as {name}{COMPRESSED}, and pass --sts {name}{COMPRESSED}"
        ) from error


def find(
    sts: Sequence[Path], texts: Sequence[Path], *, beir: Sequence[Path] = (), hub: Sequence[str] = ()
) -> Evaluation:
    """Read the given files; if none are given, stsb_*.tsv and passages.txt in the folder OV_MINILM_STSB.

    Args:
        sts: files of scored pairs.
        texts: files with one text per line.
        beir: folders in BEIR layout.
        hub: names of HUB, downloaded if they are not in the cache.

    Raises:
        ValueError: a file is invalid, two files have the same name, or the folder is missing or has no such
            files.
        OSError: a file cannot be opened or downloaded.
    """
    folder = os.environ.get(FOLDER_VARIABLE)
    if not (sts or texts or beir or hub) and folder:
        if not Path(folder).is_dir():
            raise ValueError(f"{FOLDER_VARIABLE}={folder}: no such folder")
        sts = sorted(Path(folder).glob("stsb_*.tsv"))
        texts = sorted(Path(folder).glob("passages.txt"))
        if not sts and not texts:
            raise ValueError(f"{FOLDER_VARIABLE}={folder}: neither stsb_*.tsv nor passages.txt in it")
    named = [(_name(path), str(path)) for path in (*sts, *texts, *beir)] + [(name, name) for name in hub]
    names = [name for name, _ in named]
    repeated = [path for name, path in named if names.count(name) > 1]
    if repeated:
        raise ValueError(f"files of the same name: {', '.join(sorted(repeated))}; rename one")
    return Evaluation(
        {_name(path): read_pairs(path) for path in sts} | {name: read_pairs(download(name)) for name in hub},
        {_name(path): read_texts(path) for path in texts},
        {_name(path): read_beir(path) for path in beir},
    )


def _name(path: Path) -> str:
    """Return the name of a file without its extension, or of a folder with its path resolved."""
    if path.name.endswith(COMPRESSED):
        return path.name.removesuffix(COMPRESSED)
    return path.resolve().name if path.is_dir() else path.stem


def _object(where: str, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise ValueError(f"{where}: not a JSON object")
    return row


def _string(where: str, row: dict[str, Any], name: str) -> str:
    if name not in row:
        raise ValueError(f"{where}: no field {name!r}")
    value = row[name]
    if not isinstance(value, str):
        raise ValueError(f"{where}: {name!r} is {type(value).__name__}, expected a string")
    return value


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield "FILE, line N" and the line; only a newline ends one.

    str.splitlines would also cut at U+2028 and similar characters inside a text.
    """
    raw = path.read_bytes()
    try:
        if path.suffix == ".gz":
            raw = gzip.decompress(raw)
        text = raw.decode("utf-8-sig")  # read_text would turn a single carriage return into a newline
    except UnicodeDecodeError as error:
        number = error.object.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}, line {number}: not UTF-8 ({error.reason})") from error
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: not a complete gzip file ({error})") from error
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        yield f"{path}, line {number}", line.removesuffix("\r")

"""Texts to measure drift on: sentence pairs with a human score, and plain collections.

Files are UTF-8 without a header: `score<TAB>sentence<TAB>sentence`, or one text a line. Nothing is quoted.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from pathlib import Path

FOLDER_VARIABLE = "OV_MINILM_STSB"


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
class Evaluation:
    """What a drift measurement reads, by name."""

    pairs: dict[str, Pairs] = field(default_factory=dict)
    collections: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a name that stands for two things: one figure would hide the other."""
        twice = sorted(self.pairs.keys() & self.collections.keys())
        if twice:
            raise ValueError(f"{', '.join(twice)}: pairs and texts of the same name; rename one file")


def read_pairs(path: Path) -> Pairs:
    """Read score, sentence and sentence from each line.

    Raises:
        ValueError: naming the file and the line that has other than three fields or no number first.
    """
    scores, left, right = [], [], []
    for number, line in enumerate(_lines(path), 1):
        fields = line.split("\t")
        if len(fields) != 3:
            raise ValueError(f"{path}, line {number}: {len(fields)} tab-separated fields, expected 3")
        try:
            score = float(fields[0])
        except ValueError:
            score = math.nan
        if not math.isfinite(score):
            raise ValueError(f"{path}, line {number}: score {fields[0]!r} is not a number")
        scores.append(score)
        left.append(fields[1])
        right.append(fields[2])
    return Pairs(scores, left, right)


def read_texts(path: Path) -> list[str]:
    """Read one text a line; empty lines are skipped, an empty file is an error."""
    texts = [line for line in _lines(path) if line.strip()]
    if not texts:
        raise ValueError(f"{path}: no text in it; expected one a line")
    return texts


def find(sts: list[Path], texts: list[Path]) -> Evaluation:
    """Read the files named, else those of the folder in OV_MINILM_STSB (stsb_*.tsv, passages.txt)."""
    folder = os.environ.get(FOLDER_VARIABLE)
    if not sts and not texts and folder:
        if not Path(folder).is_dir():
            raise ValueError(f"{FOLDER_VARIABLE}={folder}: no such folder")
        sts = sorted(Path(folder).glob("stsb_*.tsv"))
        texts = sorted(Path(folder).glob("passages.txt"))
        if not sts and not texts:
            raise ValueError(f"{FOLDER_VARIABLE}={folder}: neither stsb_*.tsv nor passages.txt in it")
    names = [path.stem for path in sts + texts]
    if len(names) > len(set(names)):
        raise ValueError(f"files of the same name: {', '.join(sorted(map(str, sts + texts)))}; rename one")
    return Evaluation(
        {path.stem: read_pairs(path) for path in sts}, {path.stem: read_texts(path) for path in texts}
    )


def _lines(path: Path) -> list[str]:
    """Split on newlines only: str.splitlines would also cut at U+2028 and its kin inside a text."""
    try:
        text = path.read_bytes().decode("utf-8-sig")  # read_text would turn a lone return into a newline
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 ({error})") from error
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]

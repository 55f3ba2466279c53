"""The texts that everybody encodes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

from ov_minilm.convert.calibrate import CALIBRATION
from ov_minilm.drift import evaluation

SHORT, LONG = 32, 128  # tokens: a sentence has at most, a passage more than
LENGTHS = (8, 14, 16, 32, 64, 128, 256)  # tokens of a single text; 14 is the mean of STS-B
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)  # texts a call

Count = Callable[[Sequence[str]], Sequence[int]]


@dataclass(frozen=True, slots=True)
class Workload:
    """A list of texts with a name."""

    name: str
    texts: list[str]
    tokens: list[int]  # of each text, at most 256

    def facts(self) -> dict[str, object]:
        """Say what it is, and which texts exactly by their hash."""
        return {
            "texts": len(self.texts),
            "tokens": sum(self.tokens),
            "mean_tokens": round(sum(self.tokens) / len(self.tokens), 1),
            "sha256": hashlib.sha256(json.dumps(self.texts).encode()).hexdigest()[:16],
        }


@dataclass(frozen=True, slots=True)
class Workloads:
    """Short, long and mixed texts in bulk, and single texts of exact lengths."""

    source: str
    bulk: dict[str, Workload]
    single: dict[int, str]  # by tokens


def workloads(count: Count, *, short: int, long: int) -> Workloads:
    """Take texts from the folder in OV_MINILM_STSB, else from the package's own calibration text.

    Args:
        count: gives the tokens of each text, as Embedder.count_tokens does.
        short: how many texts of at most 32 tokens.
        long: how many of more than 128; `mixed` is a quarter of both, the few spread among the many.
    """
    data = evaluation.find([], [])
    pairs = [text for name in sorted(data.pairs) for text in data.pairs[name].texts]
    passages = [text for name in sorted(data.collections) for text in data.collections[name]]
    source = f"{', '.join(sorted(data.pairs) + sorted(data.collections))} of {evaluation.FOLDER_VARIABLE}"
    if not pairs or not passages:
        pairs = passages = evaluation.read_texts(CALIBRATION)
        source = f"{CALIBRATION.name} of the package, repeated"
    sentences = _take(pairs, count, short, lambda tokens: tokens <= SHORT)
    articles = _take(passages, count, long, lambda tokens: tokens > LONG)
    lists = {
        "short": sentences,
        "long": articles,
        "mixed": _spread(articles[: -(-long // 4)], sentences[: -(-short // 4)]),
    }
    return Workloads(
        source,
        {name: Workload(name, texts, [min(n, 256) for n in count(texts)]) for name, texts in lists.items()},
        {tokens: _exactly(tokens, articles, count) for tokens in LENGTHS},
    )


def _take(texts: Sequence[str], count: Count, wanted: int, fits: Callable[[int], bool]) -> list[str]:
    """Return the first texts whose length fits, from the start again if there are too few."""
    found = [text for text, tokens in zip(texts, count(texts), strict=True) if fits(tokens)]
    if not found:
        raise ValueError("no text of a fitting length among the texts to measure with")
    return list(islice(cycle(found), wanted))


def _spread(few: Sequence[str], many: Sequence[str]) -> list[str]:
    """Merge two lists so that each keeps its order and its share everywhere."""
    places = [(i / len(texts), text) for texts in (few, many) for i, text in enumerate(texts)]
    return [text for _, text in sorted(places, key=lambda place: place[0])]


def _exactly(tokens: int, texts: Sequence[str], count: Count) -> str:
    """Build a text of exactly so many tokens, [CLS] and [SEP] included, of words that are one token each."""
    words = " ".join(texts[:50]).split()
    single = [word for word, n in zip(words, count(words), strict=True) if n == 3]
    return " ".join(islice(cycle(single), tokens - 2))


def write(texts: Sequence[str], path: Path) -> str:
    """Write a list where a contender can read it; return the path as it names it."""
    path.write_text(json.dumps(texts), encoding="utf-8")
    return str(path)

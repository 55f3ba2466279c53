"""Texts of the benchmarks: passages of English text, cut to lengths that are drawn with a fixed seed.

The passages come from the package's calibration text, so every machine has the same lists without a network.
The tokens of a text are the sum of the tokens of its words, so a text has exactly the drawn length.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import cached_property

from ov_minilm.convert.calibrate import CALIBRATION

SPECIAL_TOKENS = 2  # [CLS] and [SEP]
Count = Callable[[Sequence[str]], Sequence[int]]
Length = Callable[[random.Random], int]  # draws the number of tokens of a text


def _between(low: int, high: int) -> Length:
    return lambda rng: rng.randint(low, high)


def _lognormal(mean: float, sigma: float, low: int, high: int) -> Length:
    return lambda rng: min(high, max(low, round(rng.lognormvariate(mean, sigma))))


WORKLOAD_TEXTS: dict[str, tuple[int, Length]] = {  # workload -> number of texts, and how to draw a length
    "query": (20, _between(8, 16)),
    "sentences": (512, _lognormal(2.7, 0.35, 6, 40)),
    "chunks": (32, _between(180, 256)),
    "documents": (32, _between(257, 700)),  # the model cuts these texts at 256 tokens
    "mix": (128, _lognormal(3.4, 1.0, 4, 700)),
}


class Texts:
    """Makes the list of each workload."""

    def __init__(self, count_tokens: Count) -> None:
        self._count = count_tokens

    @cached_property
    def _words(self) -> list[str]:
        return CALIBRATION.read_text(encoding="utf-8").split()

    @cached_property
    def _tokens(self) -> dict[str, int]:
        words = list(dict.fromkeys(self._words))
        return {word: n - SPECIAL_TOKENS for word, n in zip(words, self._count(words), strict=True)}

    def tokens(self, text: str) -> int:
        """Count the tokens of a text of these words, [CLS] and [SEP] included."""
        return SPECIAL_TOKENS + sum(self._tokens[word] for word in text.split())

    def make(self, name: str, count: int | None = None) -> list[str]:
        """Return the texts of a workload, the same ones every time."""
        texts, length = WORKLOAD_TEXTS[name]
        rng = random.Random(name)  # noqa: S311  # not for security
        return [self.text(length(rng), rng) for _ in range(count or texts)]

    def text(self, tokens: int, rng: random.Random | None = None) -> str:
        """Return consecutive words from a random place, with exactly this many tokens."""
        rng = rng or random.Random(tokens)  # noqa: S311
        place, tokens_left, words = rng.randrange(len(self._words)), tokens - SPECIAL_TOKENS, []
        while tokens_left:
            word = self._words[place % len(self._words)]
            place += 1
            # a word that is too long is skipped, because a shorter one will fit
            if self._tokens[word] <= tokens_left:
                words.append(word)
                tokens_left -= self._tokens[word]
        return " ".join(words)

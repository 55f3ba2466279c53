"""Texts become ragged int32 token ids.

The tokenizer file says "cut at 128 and pad to 128"; both are wrong for this model and are overridden once,
at load, because a change for each call would raise "Already borrowed" under threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from ov_minilm.errors import ManifestInvalid
from ov_minilm.spec import IntArray, ModelSpec


def check_texts(texts: object, start: int = 0) -> list[str]:
    """Return the texts as a list; whatever is not a str is refused by its index, counted from `start`.

    Raises:
        TypeError: naming the index and the type of the first item that is not a str.
    """
    if isinstance(texts, bytes | bytearray):
        raise TypeError("expected a str or an iterable of str, not bytes; decode it first")
    if not isinstance(texts, Iterable):
        raise TypeError(f"expected a str or an iterable of str, not {type(texts).__name__}")
    items = list(texts)
    for index, text in enumerate(items, start):
        if not isinstance(text, str):
            raise TypeError(f"text {index} is {type(text).__name__} ({text!r:.60}), expected str")
    return items


def mend_surrogates(text: str) -> str:
    """Join surrogate pairs and replace lone ones by U+FFFD: the tokenizer takes only valid Unicode."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def has_surrogates(text: str) -> bool:
    """Tell whether the text holds a surrogate code point; ASCII, the common case, costs nothing."""
    return not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text)


@dataclass(frozen=True, slots=True)
class Tokenized:
    """Texts as token ids: what `Embedder.submit` takes."""

    windows: list[list[IntArray]]  # of each text, in order: one, or all of a long text
    truncated: list[int]  # which texts were cut at their end

    @property
    def flat(self) -> list[IntArray]:
        """The windows of all texts, one after the other."""
        return [ids for windows in self.windows for ids in windows]

    @property
    def tokens(self) -> list[int]:
        """Tokens of each text that the model will read."""
        return [sum(map(len, windows)) for windows in self.windows]


class Tokens:
    """The tokenizer of one artefact. Safe to share between threads."""

    def __init__(self, tokenizer: Tokenizer, spec: ModelSpec) -> None:
        tokenizer.no_padding()
        tokenizer.enable_truncation(spec.max_tokens)
        self._tokenizer = tokenizer
        self._limit = spec.max_tokens
        self._vocabulary = spec.vocab_size
        self._cls, self._sep = tokenizer.encode("").ids
        self.special: int = tokenizer.num_special_tokens_to_add(False)

    @classmethod
    def open(cls, path: Path, spec: ModelSpec) -> Tokens:
        """Read tokenizer.json; refuses one of another vocabulary size than the spec says."""
        tokenizer = Tokenizer.from_file(str(path))
        if tokenizer.get_vocab_size() != spec.vocab_size:
            raise ManifestInvalid(
                path,
                f"{tokenizer.get_vocab_size()} tokens in the vocabulary, the spec says {spec.vocab_size}",
            )
        return cls(tokenizer, spec)

    def encode(self, texts: Sequence[str]) -> tuple[list[IntArray], dict[int, list[IntArray]]]:
        """Return the ids of every text's first window, and the further windows of each that has any.

        A window is [CLS], up to max_tokens - 2 word pieces, [SEP]; windows do not overlap. Every text has
        at least two tokens, the empty one too.
        """
        valid = [mend_surrogates(text) if has_surrogates(text) else text for text in texts]
        first: list[IntArray] = []
        further: dict[int, list[IntArray]] = {}
        for index, encoding in enumerate(self._tokenizer.encode_batch_fast(valid)):
            first.append(np.array(encoding.ids, np.int32))
            if len(first[-1]) == self._limit and encoding.overflowing:
                further[index] = [np.array(window.ids, np.int32) for window in encoding.overflowing]
        return first, further

    def frame(self, texts: Sequence[Sequence[int]]) -> tuple[list[IntArray], dict[int, list[IntArray]]]:
        """Return what `encode` returns, for texts that are token ids of this vocabulary already.

        [CLS] and [SEP] are added where a text does not begin and end with them.

        Raises:
            TypeError: something is not a list of integers; its index is named.
            ValueError: an id is not in the vocabulary.
        """
        room = self._limit - self.special
        first: list[IntArray] = []
        further: dict[int, list[IntArray]] = {}
        for index, text in enumerate(texts):
            pieces = self._pieces(text, index)
            windows = [
                np.array([self._cls, *pieces[start : start + room], self._sep], np.int32)
                for start in range(0, max(len(pieces), 1), room)
            ]
            first.append(windows[0])
            if len(windows) > 1:
                further[index] = windows[1:]
        return first, further

    def _pieces(self, text: Sequence[int], index: int) -> list[int]:
        if isinstance(text, str | bytes) or not isinstance(text, Iterable):
            raise TypeError(f"text {index} is {type(text).__name__}, expected a list of token ids")
        ids = list(text)
        for place, token in enumerate(ids):
            if isinstance(token, bool) or not isinstance(token, Integral):
                raise TypeError(f"token {place} of text {index} is {type(token).__name__}, expected int")
            if not 0 <= token < self._vocabulary:
                raise ValueError(
                    f"token {place} of text {index} is {token}; the vocabulary ends at {self._vocabulary - 1}"
                )
        framed = len(ids) > 1 and (ids[0], ids[-1]) == (self._cls, self._sep)
        return ids[1:-1] if framed else ids

    def total(self, first: IntArray, further: Sequence[IntArray]) -> int:
        """Count the tokens that a text would have if it were not cut, [CLS] and [SEP] once included."""
        return len(first) + sum(len(window) - self.special for window in further)

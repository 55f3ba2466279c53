"""Texts become ragged int32 token ids, in windows of at most max_tokens.

The tokenizer file says "cut at 128 and pad to 128"; both are wrong for this model and are overridden once,
at load, because a change for each call would raise "Already borrowed" under threads.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from numbers import Integral
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tokenizers import Tokenizer

from ov_minilm.errors import ManifestInvalid, TextTooLong
from ov_minilm.runtime.texts import has_surrogates, mend_surrogates
from ov_minilm.spec import FloatArray, IntArray, ModelSpec

Truncate = Literal["end", "error", "mean"]
# Longer texts are tokenized piece by piece: a token takes some 200 bytes until it is an id.
PIECE_CHARS = 8192
CJK = (  # every ideograph is a word of its own
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df"
    "\U0002a700-\U0002b81f\U0002b920-\U0002ceaf\U0002f800-\U0002fa1f"
)


@dataclass(frozen=True, slots=True)
class Tokenized:
    """Texts as token ids: what `Embedder.submit` takes."""

    windows: list[list[IntArray]]  # of each text, in order: one, or all of a long text
    cut: dict[int, int]  # texts that lost their ends -> tokens that they have at least

    @property
    def truncated(self) -> list[int]:
        """Which texts were cut at their end."""
        return sorted(self.cut)

    @property
    def flat(self) -> list[IntArray]:
        """The windows of all texts, one after the other."""
        return [ids for windows in self.windows for ids in windows]

    @property
    def tokens(self) -> list[int]:
        """Tokens of each text that the model will read."""
        return [sum(map(len, windows)) for windows in self.windows]

    def average_windows(self, vectors: FloatArray) -> FloatArray:  # [windows, D] -> [N, D]
        """Average the vectors of each text's windows, weighted by their word pieces, at length one."""
        if len(vectors) == len(self.windows):
            return vectors
        starts = np.cumsum([0] + [len(windows) for windows in self.windows])
        out: FloatArray = vectors[starts[:-1]]
        for i, windows in enumerate(self.windows):
            if len(windows) > 1:
                weights = np.array([len(ids) - 2 for ids in windows], np.float32)  # without [CLS] and [SEP]
                mean = weights @ vectors[starts[i] : starts[i + 1]]
                out[i] = mean / np.linalg.norm(mean)
        return out


class Tokens:
    """The tokenizer of one artefact. Safe to share between threads."""

    def __init__(self, tokenizer: Tokenizer, spec: ModelSpec) -> None:
        tokenizer.no_padding()
        tokenizer.enable_truncation(spec.max_tokens)
        self._tokenizer = tokenizer
        self._limit = spec.max_tokens
        self._vocabulary = spec.vocab_size
        self._cls, self._sep = tokenizer.encode("").ids

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

    def tokenize(self, texts: Sequence[Any], start: int, truncate: Truncate) -> Tokenized:
        """Return the windows that are to be encoded; `start` is the number of the first text, for errors.

        Raises:
            TypeError, ValueError: as `frame` does for texts that are token ids.
            TextTooLong: with "error", for the first text of more than max_tokens.
        """
        given_ids = len(texts) > 0 and not isinstance(texts[0], str)
        windows = self.frame(texts) if given_ids else self.windows(texts, whole=truncate == "mean")
        if truncate == "mean":
            return Tokenized(windows, {})
        cut = {i: _total(found) for i, found in enumerate(windows) if len(found) > 1}
        if cut and truncate == "error":
            index = min(cut)
            raise TextTooLong(
                start + index, cut[index] if given_ids else self.count([texts[index]])[0], self._limit
            )
        return Tokenized([found[:1] for found in windows], cut)

    def count(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens that each text has if it is not cut, [CLS] and [SEP] once included."""
        return [_total(found) for found in self.windows(texts, whole=True)]

    def windows(self, texts: Sequence[str], *, whole: bool = False) -> list[list[IntArray]]:
        """Return the ids of every text, in windows: one, or more for a text of over max_tokens.

        A window is [CLS], up to max_tokens - 2 word pieces, [SEP]; windows do not overlap. Every text has at
        least two tokens, the empty one too. Unless the `whole` text is asked for, the end of a long one is
        not looked at: then it has at least two windows.
        """
        valid = [mend_surrogates(text) if has_surrogates(text) else text for text in texts]
        short = ["" if len(text) > PIECE_CHARS else text for text in valid]
        encodings = self._tokenizer.encode_batch_fast(short)
        return [
            self._cut(self._word_pieces(text, whole))
            if len(text) > PIECE_CHARS
            else [np.array(part.ids, np.int32) for part in (encoding, *encoding.overflowing)]
            for text, encoding in zip(valid, encodings, strict=True)
        ]

    def frame(self, texts: Sequence[Sequence[int]]) -> list[list[IntArray]]:
        """Return what `windows` returns, for texts that are token ids of this vocabulary already.

        [CLS] and [SEP] are added where a text does not begin and end with them.

        Raises:
            TypeError: something is not a list of integers; its index is named.
            ValueError: an id is not in the vocabulary.
        """
        return [self._cut(self._checked(text, i)) for i, text in enumerate(texts)]

    def _word_pieces(self, text: str, whole: bool) -> list[int]:
        """Return the word pieces of a long text, without [CLS] and [SEP]; or some more than one window."""
        found: list[int] = []
        for piece in pieces(text):
            encoding = self._tokenizer.encode(piece, add_special_tokens=False)
            for part in (encoding, *encoding.overflowing):
                found += part.ids
            if not whole and len(found) > self._limit:
                break
        return found

    def _cut(self, ids: Sequence[int]) -> list[IntArray]:
        """Put word pieces into windows."""
        room = self._limit - 2
        starts = range(0, max(len(ids), 1), room)
        return [np.array([self._cls, *ids[i : i + room], self._sep], np.int32) for i in starts]

    def _checked(self, text: Sequence[int], index: int) -> list[int]:
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


def _total(windows: Sequence[IntArray]) -> int:
    """Count the tokens of a text, [CLS] and [SEP] once."""
    return 2 + sum(len(window) - 2 for window in windows)


def pieces(text: str) -> Iterator[str]:
    """Cut a long text where no word is torn, so that its pieces have the tokens of the whole.

    Of a word longer than a piece the rest is left out: BERT's tokenizer takes any word of more than 100
    characters for one unknown token.
    """
    start = 0
    while start < len(text):
        end = after = start + PIECE_CHARS
        if end < len(text):
            space = text.rfind(" ", start, end)
            letters = 0 if space >= 0 else _letters(text[start + 1 : end][::-1])
            if space >= 0:
                end = after = space + 1
            elif letters == PIECE_CHARS - 1:
                after = end + _letters(text[end:])
            else:  # "[" begins special tokens, as [SEP]
                end = after = end - letters - (text[end - letters - 1] == "[")
        yield text[start:end]
        start = after


def _letters(text: str) -> int:
    """Count the characters before the first that ends a word for BERT's tokenizer."""
    match = _word().match(text)
    return match.end() if match else 0


@cache
def _word() -> re.Pattern[str]:
    punctuation = [chr(c) for c in range(128, sys.maxunicode) if unicodedata.category(chr(c))[0] in "PZ"]
    return re.compile(f"[^{CJK}\\t\\n\\r !-/:-@\\[-`{{-~{re.escape(''.join(punctuation))}]+")

"""Tokenization: from texts to int32 token ids, in windows of at most max_tokens.

The tokenizer file says "cut at 128 and pad to 128". Both settings are wrong for this model, and are changed
once, when the file is loaded: to change them in each call would raise "Already borrowed" in threads.

BERT's tokenizer treats every word by itself, so the word pieces of words that came before are looked up in a
dictionary. For a short text this takes 8 microseconds instead of 70.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tokenizers import Tokenizer
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from ov_minilm.errors import ManifestInvalid, TextTooLong
from ov_minilm.runtime.texts import mend_surrogates
from ov_minilm.spec import FloatArray, IntArray, ModelSpec

Truncate = Literal["end", "error", "mean"]
# Longer texts are tokenized in pieces, because the tokenizer needs about 200 bytes for each token.
PIECE_CHARS = 8192
# With more words (about 8 MB) the dictionary is emptied; words with more characters are not kept.
MAX_WORDS, MAX_WORD_CHARS = 32_768, 50

# A word of the dictionary: letters and digits of scripts with spaces, or a single punctuation mark.
_find_words = re.compile(r"[0-9A-Za-z\u0080-\u0dff]+|[!-/:-@\[-`{-~\u2010-\u2027]").findall
# A character that is neither in such a word nor white space, or the beginning of a token like "[MASK]".
_find_other = re.compile(r"[^\t\n\r -~\u0080-\u0dff\u2010-\u2027]|\[[A-Z]").search
_SPECIAL_TOKEN = re.compile(r"\[[A-Z]+\]")
_find_visible = re.compile(r"\S").search
# letters, digits and emoji, because each of these characters continues a word
_REST_OF_WORD = re.compile("[0-9A-Za-zÀ-˿\u0388-\u0482가-힣\U0001f000-\U0001faff]*")


@dataclass(frozen=True, slots=True)
class Tokenized:
    """Token ids of texts, for `Embedder.submit`."""

    windows: list[list[IntArray]]  # the windows of each text; a long text may have several
    cut: dict[int, int]  # index of a text that was cut -> number of its tokens, or a lower bound

    @property
    def truncated(self) -> list[int]:
        """Which texts were cut at their end."""
        return sorted(self.cut)

    @property
    def flat(self) -> list[IntArray]:
        """The windows of all texts, in order."""
        return [ids for windows in self.windows for ids in windows]

    @property
    def tokens(self) -> list[int]:
        """Tokens of each text that the model will read."""
        return [sum(map(len, windows)) for windows in self.windows]

    def average_windows(self, vectors: FloatArray) -> FloatArray:  # [windows, D] -> [N, D]
        """Return a unit vector for each text: the mean of its windows, weighted by word pieces."""
        if len(vectors) == len(self.windows):
            return vectors
        starts = np.cumsum([0] + [len(windows) for windows in self.windows])
        out: FloatArray = vectors[starts[:-1]]
        for i, windows in enumerate(self.windows):
            if len(windows) > 1:
                # word pieces, without [CLS] and [SEP]
                weights = np.array([len(ids) - 2 for ids in windows], np.float32)
                mean = weights @ vectors[starts[i] : starts[i + 1]]
                out[i] = mean / np.linalg.norm(mean)
        return out


class Tokens:
    """The tokenizer of one artefact. Safe to share between threads."""

    def __init__(self, tokenizer: Tokenizer, spec: ModelSpec) -> None:
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizer = tokenizer
        self._word_pieces: dict[str, bytes] = {}  # word -> int32 ids
        self._splits_words = (
            isinstance(tokenizer.normalizer, BertNormalizer)
            and isinstance(tokenizer.pre_tokenizer, BertPreTokenizer)
            and all(map(_SPECIAL_TOKEN.fullmatch, map(str, tokenizer.get_added_tokens_decoder().values())))
        )
        self._limit = spec.max_tokens
        self._last_id = spec.vocab_size - 1
        self._cls, self._sep = tokenizer.encode("").ids

    @classmethod
    def open(cls, path: Path, spec: ModelSpec) -> Tokens:
        """Read tokenizer.json; refuse it if its vocabulary size differs from the spec."""
        tokenizer = Tokenizer.from_file(str(path))
        if tokenizer.get_vocab_size() != spec.vocab_size:
            found = f"{tokenizer.get_vocab_size()} tokens in the vocabulary"
            raise ManifestInvalid(path, f"{found}, the spec says {spec.vocab_size}")
        return cls(tokenizer, spec)

    def tokenize(self, texts: Sequence[Any], start: int, truncate: Truncate) -> Tokenized:
        """Return the windows to encode; `start` is the index of the first text, for error messages.

        If texts are lists of token ids, [CLS] and [SEP] are added where they are missing.

        Raises:
            TextTooLong: a text has more than max_tokens, and `truncate` is "error".
            TypeError: a text is neither a str nor a list of integers; the message has its index.
            ValueError: an id is not in the vocabulary.
        """
        given_ids = len(texts) > 0 and not isinstance(texts[0], str)
        if given_ids:
            windows = [self._cut(self._checked_ids(ids, index)) for index, ids in enumerate(texts)]
        else:
            windows = self.windows(texts, whole=truncate == "mean")
        if truncate == "mean":
            return Tokenized(windows, {})
        cut = {i: _total(found) for i, found in enumerate(windows) if len(found) > 1}
        if cut and truncate == "error":
            index = min(cut)
            tokens = cut[index] if given_ids else self.count([texts[index]])[0]
            raise TextTooLong(start + index, tokens, self._limit)
        return Tokenized([found[:1] for found in windows], cut)

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each uncut text, [CLS] and [SEP] included."""
        return [_total(found) for found in self.windows(texts, whole=True)]

    def windows(self, texts: Sequence[str], *, whole: bool = False) -> list[list[IntArray]]:
        """Return the windows of each text: one, or several if it has more than max_tokens.

        A window is [CLS], up to max_tokens - 2 word pieces, [SEP]; windows do not overlap. Every text has at
        least two tokens, also an empty one. Without `whole`, a long text is read only far enough to find out
        that it has more than one window.
        """
        valid = [mend_surrogates(text) for text in texts]
        short = iter(self._look_up([text for text in valid if len(text) <= PIECE_CHARS]))
        return [
            self._cut(next(short) if len(text) <= PIECE_CHARS else self._read_in_pieces(text, whole))
            for text in valid
        ]

    def _look_up(self, texts: list[str]) -> list[list[int]]:
        """Return the word pieces of texts. A text that cannot be split into words counts as one word."""
        split = self._splits_words
        words = [_find_words(text) if split and not _find_other(text) else [text] for text in texts]
        if len(self._word_pieces) > MAX_WORDS:
            self._word_pieces = {}
        known = self._word_pieces  # other threads may replace the attribute
        new = list({word for of_text in words for word in of_text}.difference(known))
        if len(texts) == 1:  # without the threads of encode_batch, which wait for a CPU under load
            encodings = [self._tokenizer.encode(word, add_special_tokens=False) for word in new]
        else:
            encodings = self._tokenizer.encode_batch_fast(new, add_special_tokens=False)
        found = {w: np.array(e.ids, np.int32).tobytes() for w, e in zip(new, encodings, strict=True)}
        known.update((word, ids) for word, ids in found.items() if len(word) <= MAX_WORD_CHARS)
        joined = (b"".join([found[w] if w in found else known[w] for w in of_text]) for of_text in words)
        return [np.frombuffer(ids, np.int32).tolist() for ids in joined]

    def _read_in_pieces(self, text: str, whole: bool) -> list[int]:
        """Return the word pieces of a long text; without `whole`, only the first ones, over one window.

        The last two words of a piece may continue in the next piece, like "[SE", so they are read again with
        it. A word that is longer than a piece is skipped up to its last half piece, because BERT's tokenizer
        turns any word of more than 100 characters into one unknown token.
        """
        found: list[int] = []
        start = 0
        while (begin := _find_visible(text, start)) and (whole or len(found) <= self._limit):
            start = begin.start()
            piece = text[start : start + PIECE_CHARS]
            encoding = self._tokenizer.encode(piece, add_special_tokens=False)
            ids, word_of, span_of = encoding.ids, encoding.token_to_word, encoding.token_to_chars
            start += PIECE_CHARS
            if start < len(text) and ids:
                tokens, last = range(len(ids)), word_of(len(ids) - 1)
                kept = bisect_left(tokens, last - 1, key=word_of) or bisect_left(tokens, last, key=word_of)
                if kept or span_of(0)[0]:
                    del ids[kept:]
                    start += span_of(kept)[0] - PIECE_CHARS
                elif not any(map(str.isspace, piece[span_of(0)[1] :])):
                    ids.clear()
                    start = next(_REST_OF_WORD.finditer(text, start)).end() - PIECE_CHARS // 2
            found += ids
        return found

    def _cut(self, ids: Sequence[int]) -> list[IntArray]:
        """Split word pieces into windows."""
        room = self._limit - 2
        starts = range(0, max(len(ids), 1), room)
        return [np.array([self._cls, *ids[i : i + room], self._sep], np.int32) for i in starts]

    def _checked_ids(self, text: Sequence[int], index: int) -> list[int]:
        if isinstance(text, str | bytes) or not isinstance(text, Iterable):
            raise TypeError(f"text {index} is {type(text).__name__}, expected a list of token ids")
        ids = list(text)
        for place, token in enumerate(ids):
            if isinstance(token, bool) or not isinstance(token, Integral):
                raise TypeError(f"token {place} of text {index} is {type(token).__name__}, expected int")
            if not 0 <= token <= self._last_id:
                raise ValueError(f"token {place} of text {index} is {token}; ids end at {self._last_id}")
        return ids[1:-1] if len(ids) > 1 and (ids[0], ids[-1]) == (self._cls, self._sep) else ids


def _total(windows: Sequence[IntArray]) -> int:
    """Return the number of tokens in the windows of a text, counting [CLS] and [SEP] once."""
    return 2 + sum(len(window) - 2 for window in windows)

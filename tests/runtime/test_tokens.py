"""Texts to token ids with the shipped tokenizer: truncation, windows, and ids given by the caller."""

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from tokenizers import Tokenizer

from ov_minilm.artefact.manifest import SHIPPED, TOKENIZER
from ov_minilm.errors import ManifestInvalid, TextTooLong
from ov_minilm.runtime import tokens
from ov_minilm.runtime.tokens import Tokenized, Tokens
from ov_minilm.spec import MINILM

CLS, SEP, WORD = 101, 102, 2773  # WORD: the id of "word"
TOKENS = Tokens.open(SHIPPED / TOKENIZER, MINILM)
UNLIMITED_TOKENIZER = Tokenizer.from_file(str(SHIPPED / TOKENIZER))
UNLIMITED_TOKENIZER.no_padding()
UNLIMITED_TOKENIZER.no_truncation()
PIECES = [
    *["a", "b ", "hello ", "x" * 30, "。", "你", "好", "😉", "…", "—", "-", "[SEP]", "[CLS]", "[", "]", "\\"],
    *["é", "e\u0301", " ", "\n", "\t", "\0", "\u3000", "##ing", "İ", "안녕", "\u0627\u0644", " [MASK] "],
]

# characters of dictionary words (see tokens.py), and special tokens
WORDS = [
    *map(chr, [*range(0x20, 0x7F), *range(0x80, 0xE00), *range(0x2010, 0x2028)]),
    *"aeinst ,.-" * 500,
    "[MASK]",
]


def ids_of(texts: list[str]) -> list[list[int]]:
    """Return the ids of each text's first window."""
    return [first.tolist() for first, *_ in TOKENS.windows(texts)]


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("", [CLS, SEP]),
        (" \n\t", [CLS, SEP]),
        ("word " * 200, [CLS, *[WORD] * 200, SEP]),  # no padding, although tokenizer.json sets it
        ("word " * 600, [CLS, *[WORD] * 254, SEP]),  # nor its limit of 128
        ("xé가😉" * 2_000_000 + ".word", [CLS, 100, 1012, WORD, SEP]),  # the rest is not tokenized
        ("word" + " " * 20_000 + "word", [CLS, WORD, WORD, SEP]),  # longer than one piece
        ("a\ud83d\ude09 x", ids_of(["a😉 x"])[0]),  # a surrogate pair, as from JavaScript
        ("\ud800 x", ids_of(["\ufffd x"])[0]),
    ],
    ids=len,
)
def test_ids_of_known_texts(text: str, ids: list[int]) -> None:
    """Ids are int32, unpadded, at most 256 with [CLS] and [SEP]; surrogates are repaired."""
    fresh = Tokens.open(SHIPPED / TOKENIZER, MINILM)  # here, so that mutmut mutates it
    (word,), (actual, *_) = fresh.windows(["word", text])

    assert ([CLS, WORD, SEP], ids) == (word.tolist(), actual.tolist())
    assert np.int32 == actual.dtype == word.dtype
    assert [] == fresh.tokenize([], 0, "end").windows


@pytest.mark.parametrize("words", [0, 1, 253, 254, 255, 508, 509, 1000, 2000])
def test_a_long_text_has_several_windows(words: int) -> None:
    """Every window has [CLS] and [SEP], counted once per text; lists of ids have the same windows."""
    ids, text = [WORD] * words, "word " * words
    windows = [2 + min(254, words - start) for start in range(0, max(1, words), 254)]
    for given_text in (text, ids, [CLS, *ids, SEP]):
        whole, cut = (TOKENS.tokenize([given_text], 0, truncate) for truncate in ("mean", "end"))

        assert (windows, windows[:1]) == ([*map(len, whole.flat)], [*map(len, cut.flat)])
        assert {(CLS, SEP)} == {(window[0], window[-1]) for window in whole.flat}
        assert ([sum(windows)], windows[:1], []) == (whole.tokens, cut.tokens, whole.truncated)
        assert [0] * (words > 254) == cut.truncated
        if words > 254:
            with pytest.raises(TextTooLong, match=f"text 8 has {words + 2} tokens, the model reads 256"):
                TOKENS.tokenize([given_text[:0], given_text], 7, "error")
    assert [words + 2] == TOKENS.count([text])


@pytest.mark.parametrize(
    ("chars", "vocabulary", "max_pieces"), [(400, PIECES, 800), (8192, WORDS, 300)], ids=["pieces", "words"]
)
def test_windows_have_the_tokens_of_the_whole_text(
    monkeypatch: pytest.MonkeyPatch, chars: int, vocabulary: list[str], max_pieces: int
) -> None:
    """Ids are those of the tokenizer, for texts read in pieces and for words of the dictionary."""
    monkeypatch.setattr(tokens, "PIECE_CHARS", chars)
    monkeypatch.setattr(tokens, "MAX_WORDS", 500)
    rng = random.Random(0)  # noqa: S311  # not for security
    for _ in range(200):
        text = "".join(rng.choices(vocabulary, k=rng.randint(0, max_pieces)))
        whole, cut = (TOKENS.tokenize([text], 0, truncate) for truncate in ("mean", "end"))

        expected = UNLIMITED_TOKENIZER.encode(text).ids
        assert expected == [CLS, *(piece for window in whole.flat for piece in window[1:-1].tolist()), SEP]
        assert [len(expected)] == TOKENS.count([text, text])[1:]
        assert whole.flat[0].tolist() == cut.flat[0].tolist()
        assert (len(expected) > 256) == (cut.truncated == [0])


def test_ids_outside_the_vocabulary_are_refused() -> None:
    """The error has the indices of text and token; [CLS] without [SEP] is an ordinary token."""
    fresh = Tokens.open(SHIPPED / TOKENIZER, MINILM)
    actual = fresh.tokenize([[0], [30521], [CLS], []], 0, "end").flat
    assert [[CLS, 0, SEP], [CLS, 30521, SEP], [CLS, CLS, SEP], [CLS, SEP]] == [ids.tolist() for ids in actual]
    for bad, message in (
        ([5, 30522], "token 1 of text 1 is 30522; ids end at 30521"),
        ([5, -1], "token 1 of text 1 is -1; ids end at 30521"),
        ([1.5], "token 0 of text 1 is float, expected int"),
        ([True], "token 0 of text 1 is bool, expected int"),
        ("a", "text 1 is str, expected a list of token ids"),
        (None, "text 1 is NoneType, expected a list of token ids"),
    ):
        with pytest.raises((TypeError, ValueError), match=f"^{message}$"):
            fresh.tokenize([[5], bad], 0, "end")


def test_windows_are_averaged_by_their_tokens() -> None:
    """The mean is weighted by word pieces and has length 1; a single window keeps its vector."""
    empty, three, five = (np.zeros(n, np.int32) for n in (2, 5, 7))
    vectors = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32)

    actual = Tokenized([[empty], [three, five], [empty]], {}).average_windows(vectors)

    np.testing.assert_allclose([[1, 0], np.array([3, 5]) / 34**0.5, [0, 1]], actual, rtol=1e-6)
    assert vectors is Tokenized([[empty]] * 4, {}).average_windows(vectors)


def test_threads_share_a_tokenizer() -> None:
    """16 threads get the same ids, also of truncated texts."""
    texts = [f"text {n} " + "word " * (n * 7 % 400) for n in range(50)]

    with ThreadPoolExecutor(16) as pool:
        assert [ids_of(texts)] * 32 == list(pool.map(ids_of, [texts] * 32))


def test_a_tokenizer_of_another_size_is_refused() -> None:
    """A tokenizer must have the vocabulary size of the spec; the error names both sizes."""
    with pytest.raises(ManifestInvalid, match=r"30522 tokens .* the spec says 30000") as caught:
        Tokens.open(SHIPPED / TOKENIZER, replace(MINILM, vocab_size=30000))
    assert SHIPPED / TOKENIZER == caught.value.path

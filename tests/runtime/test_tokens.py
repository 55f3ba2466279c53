"""Texts to ids with the tokenizer that ships: where it cuts, what it refuses, what no text can break."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

import ov_minilm
from ov_minilm.errors import ManifestInvalid
from ov_minilm.runtime import tokens as module
from ov_minilm.runtime.tokens import Tokens
from ov_minilm.spec import MINILM

PATH = Path(ov_minilm.__file__).parent / "model" / "tokenizer.json"
CLS, SEP, WORD = 101, 102, 2773  # WORD: "word", one piece
TOKENS = Tokens.open(PATH, MINILM)

any_text = st.text(alphabet=st.characters())  # every code point, surrogates too


def uncut() -> Tokenizer:
    """Open the tokenizer without any limit."""
    tokenizer = Tokenizer.from_file(str(PATH))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def ids_of(text: str) -> list[int]:
    """Return the ids of a text's first window."""
    ids: list[int] = TOKENS.windows([text])[0][0].tolist()
    return ids


def test_a_text_is_cut_at_256_tokens() -> None:
    """The file's own limit of 128 does not hold; the model's 256 does, [CLS] and [SEP] included."""
    assert [CLS, *[WORD] * 254, SEP] == ids_of("word " * 600)
    assert [CLS, *[WORD] * 200, SEP] == ids_of("word " * 200)


def test_nothing_is_padded() -> None:
    """Texts of one call keep their own lengths, as int32."""
    ((one,), (three,)) = TOKENS.windows(["word", "word word word"])

    assert [[CLS, WORD, SEP], [CLS, WORD, WORD, WORD, SEP]] == [one.tolist(), three.tolist()]
    assert {np.dtype(np.int32)} == {one.dtype, three.dtype}


def test_an_empty_text_has_two_tokens() -> None:
    """[CLS] and [SEP] are always there."""
    assert ids_of("") == [CLS, SEP]
    assert ids_of(" \n\t") == [CLS, SEP]


def test_no_texts_give_no_ids() -> None:
    """An empty list is legal."""
    assert [] == TOKENS.windows([])


@pytest.mark.parametrize(
    ("words", "windows"),
    [(254, [256]), (255, [256, 3]), (508, [256, 256]), (509, [256, 256, 3]), (1000, [256, 256, 256, 240])],
)
def test_a_long_text_goes_on_in_further_windows(words: int, windows: list[int]) -> None:
    """Windows follow each other without overlap, each with its own [CLS] and [SEP]."""
    (_, found) = TOKENS.windows(["short", "word " * words], whole=True)

    assert windows == [len(window) for window in found]
    assert {(CLS, SEP)} == {(window[0], window[-1]) for window in found}


def test_windows_together_are_the_uncut_text() -> None:
    """The word pieces of all windows, in order, are those of the text without any cut."""
    text = " ".join(f"number {n}, naïve" for n in range(300))

    (windows,) = TOKENS.windows([text])

    pieces = [piece for window in windows for piece in window[1:-1].tolist()]
    assert uncut().encode(text).ids == [CLS, *pieces, SEP]


@pytest.mark.parametrize("words", [0, 1, 253, 254, 255, 508, 509, 2000])
def test_total_is_the_uncut_count(words: int) -> None:
    """Counting over windows counts [CLS] and [SEP] once."""
    text = "word " * words

    assert [len(uncut().encode(text).ids)] == TOKENS.count([text])


PIECES = [
    *["a", "b ", "hello ", "x" * 30, "。", "你", "好", "😉", "…", "—", "-", "[SEP]", "[CLS]", "[", "]"],
    *[
        "é",
        "e\u0301",
        " ",
        "\n",
        "\t",
        "\0",
        "\u3000",
        "##ing",
        "İ",
        "안녕",
        "\u0627\u0644",
        " [MASK] ",
        "\\",
    ],
]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(PIECES), min_size=50, max_size=800).map("".join))
def test_pieces_of_a_long_text_have_its_tokens(text: str) -> None:
    """Cut into pieces of 400 characters, no word, special token or ideograph is torn."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PIECE_CHARS", 400)
        whole = TOKENS.tokenize([text], 0, "mean")
        (count,) = TOKENS.count([text])
        cut = TOKENS.tokenize([text], 0, "end")

    expected = uncut().encode(text).ids
    assert expected[1:-1] == [piece for window in whole.windows[0] for piece in window[1:-1].tolist()]
    assert len(expected) == count
    assert whole.windows[0][0].tolist() == cut.windows[0][0].tolist()
    assert (len(expected) > 256) == (cut.truncated == [0])


def test_of_a_giant_word_the_rest_is_left_out() -> None:
    """A word of a million letters is one unknown token, and what follows it is read."""
    assert [CLS, 100, WORD, SEP] == ids_of("x" * 1_000_000 + " word")


@pytest.mark.parametrize(("text", "mended"), [("a\ud83d\ude09", "a😉"), ("\ud800 x", "\ufffd x")], ids=ascii)
def test_surrogates_are_mended_first(text: str, mended: str) -> None:
    """What JavaScript leaves of a character is read as the character, what no encoding can hold as U+FFFD."""
    assert ids_of(mended) == ids_of(text)


@settings(max_examples=300, deadline=None)
@given(st.lists(any_text, max_size=5))
def test_every_string_has_ids(texts: list[str]) -> None:
    """Whatever the text, ids are from the vocabulary, between [CLS] and [SEP], and at most 256."""
    windows = TOKENS.windows(texts)

    assert len(texts) == len(windows)
    for ids, *_ in windows:
        assert 2 <= len(ids) <= MINILM.max_tokens
        assert (ids[0], ids[-1]) == (CLS, SEP)
        assert ((ids >= 0) & (ids < MINILM.vocab_size)).all()


@settings(max_examples=100, deadline=None)
@given(st.lists(any_text, min_size=2, max_size=5))
def test_ids_do_not_depend_on_the_neighbours(texts: list[str]) -> None:
    """A text has the same ids in a batch as alone."""
    assert [ids_of(text) for text in texts] == [ids.tolist() for ids, *_ in TOKENS.windows(texts)]


def test_threads_tokenize_at_once() -> None:
    """One tokenizer shared by 16 threads gives every one the same ids, cut texts included."""
    texts = [f"text {n} " + "word " * (n * 7 % 400) for n in range(100)]
    expected = [ids.tolist() for ids, *_ in TOKENS.windows(texts)]

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda _: [ids.tolist() for ids, *_ in TOKENS.windows(texts)], range(48)))

    assert [expected] * 48 == found


def test_another_vocabulary_is_refused() -> None:
    """A tokenizer of another size than the spec says is not this model's; both sizes are named."""
    other = dataclasses.replace(MINILM, vocab_size=30000)

    with pytest.raises(
        ManifestInvalid, match="30522 tokens in the vocabulary, the spec says 30000"
    ) as caught:
        Tokens.open(PATH, other)

    assert caught.value.path == PATH

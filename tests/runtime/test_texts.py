"""What stands for texts and what does not: the containers of the libraries that people keep texts in."""

from __future__ import annotations

import collections
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ov_minilm.runtime.texts import check_texts, has_surrogates, iterate, mend_surrogates

StringDType: Any = getattr(np.dtypes, "StringDType", lambda **_: object)  # new in numpy 2
TEXTS = ["a kettle", "", "naïve 😉", "a kettle"]
HOLED = ["a", "b", None]
FRAME = pd.DataFrame({"text": TEXTS, "more": TEXTS})


def kind(texts: Any) -> str:
    """Name a case by the type that it tests."""
    return f"{type(texts).__module__}.{type(texts).__name__} {getattr(texts, 'dtype', '')}"


def stream() -> Iterator[str]:
    """Yield the texts one by one, without end."""
    while True:
        yield from TEXTS


@pytest.mark.parametrize(
    "texts",
    [
        *[TEXTS, tuple(TEXTS), collections.deque(TEXTS), islice(stream(), 4)],
        *[dict(enumerate(TEXTS)).values(), np.array(TEXTS), np.array(TEXTS, object)],
        *[np.array(TEXTS, StringDType()), np.ma.masked_array(TEXTS)],
        *[FRAME["text"].astype(dtype) for dtype in ("str", object, "string", "category")],
        *[FRAME["text"].astype(pd.ArrowDtype(pa.string())), FRAME["text"].array, pd.Index(TEXTS)],
        *[pl.Series(TEXTS), pl.Series(TEXTS, dtype=pl.Categorical), pa.table({"text": TEXTS})["text"]],
        *[pa.array(TEXTS), pa.array(TEXTS, pa.large_string()), pa.array(TEXTS, pa.string_view())],
        *[pa.array(TEXTS).dictionary_encode(), pa.chunked_array([TEXTS[:1], [], TEXTS[1:]])],
        pa.chunked_array([pa.array(TEXTS).dictionary_encode()]),
    ],
    ids=kind,
)
def test_whatever_holds_texts_in_order_is_taken(texts: Any) -> None:
    """Lists, generators, series and arrays of every kind become the list of their texts; empty ones too."""
    assert TEXTS == check_texts(texts)
    nones: list[Any] = [[], (), np.array([]), pd.Series([]), pl.Series([]), pa.array([])]  # of any type
    for none in nones:
        assert [] == check_texts(none)


@pytest.mark.parametrize(
    "texts",
    [
        *[HOLED, iter(HOLED), ["a", "b", float("nan")], np.array(HOLED, object), pd.Series(HOLED)],
        np.array(HOLED, StringDType(na_object=None)),
        np.array(["a", "b", np.nan], StringDType(na_object=np.nan)),
        np.ma.masked_array(["a", "b", "c"], [False, False, True]),
        *[pd.Series(HOLED, dtype=dtype) for dtype in (object, "string", "category")],
        *[pd.Series(["a", "b", pd.NaT], dtype=object), pl.Series(HOLED), pa.array(HOLED)],
        *[pa.array(HOLED, pa.string_view()), pa.array(HOLED).dictionary_encode()],
        pa.chunked_array([["a"], ["b", None]]),
    ],
    ids=kind,
)
def test_a_missing_text_is_refused_by_its_index(texts: Any) -> None:
    """None, NaN, NA and masked items are no texts; the message says which, and what to do."""
    with pytest.raises(TypeError, match=r"^text 2 is .*; leave it out, or pass '' in its place$"):
        check_texts(texts)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (b"a", "bytes (b'a'), expected str; decode it first"),
        (b"x" * 10_000, f"bytes (b'{'x' * 58}), expected str; decode it first"),
        *[(3, "int (3), expected str"), (1.5, "float (1.5), expected str")],
        *[(["a"], "list (['a']), expected str"), ({"k": "a"}, "dict ({'k': 'a'}), expected str")],
        (np.ones(3), "ndarray (array([1., 1., 1.])), expected str"),
        (np.int64(0), f"int64 ({np.int64(0)!r}), expected str"),
    ],
    ids=kind,
)
def test_what_is_no_text_is_refused_by_its_index(item: object, message: str) -> None:
    """The error counts from `start`, and shows the type and the beginning of the value."""
    with pytest.raises(TypeError, match=f"^text 7 is {re.escape(message)}$"):
        check_texts(["a", "b", item, None], start=5)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        *[("abc", "not str; pass a list of texts"), (np.str_("abc"), "not str_; pass a list of texts")],
        *[(b"abc", "not bytes; decode it first"), (bytearray(b"abc"), "not bytearray; decode it first")],
        *[(memoryview(b"abc"), "not memoryview; decode it first"), (None, "not NoneType"), (7, "not int")],
        ({"k-1": "a"}, "not dict; pass list(texts.values()), or list(texts) for its keys"),
        (collections.ChainMap({"k-1": "a"}), "not ChainMap; pass list(texts.values())"),
        ({"a"}, "not set, which has no order; pass sorted(texts)"),
        (frozenset("a"), "not frozenset, which has no order; pass sorted(texts)"),
        (FRAME, "not DataFrame; pass one column, as texts['text']"),
        (pl.from_pandas(FRAME), "not DataFrame; pass one column, as texts['text']"),
        (pl.from_pandas(FRAME).lazy(), "not LazyFrame; pass one column, as texts['text']"),
        (pa.table({"text": TEXTS}), "not Table; pass one column, as texts['text']"),
        (pa.record_batch({"text": TEXTS}), "not RecordBatch; pass one column, as texts['text']"),
        (FRAME[["text"]].to_numpy(), "not ndarray of 2 dimensions; pass texts[:, 0]"),
        (np.array("abc"), "not ndarray of 0 dimensions; pass [texts.item()]"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_list_of_texts_is_refused(texts: Any, message: str) -> None:
    """One text, a mapping, a set, a frame: the message says what to pass instead."""
    for take in (check_texts, iterate):
        with pytest.raises(TypeError, match=f"^expected an iterable of str, {re.escape(message)}"):
            take(texts)


def test_iterating_reads_no_further_than_asked() -> None:
    """Streams, and columns of Arrow, are not read whole."""
    assert TEXTS + TEXTS == list(islice(iterate(stream()), 8))
    assert ["a kettle"] == list(islice(iterate(pa.array(TEXTS)), 1))


@settings(max_examples=300, deadline=None)
@example("\ud800", "\ufffd").via("an unpaired half, as JavaScript leaves it, is U+FFFD")
@example("a\udc00b", "a\ufffdb")
@example("\udc00\ud83d", "\ufffd\ufffd")
@example("\ud83d\ude09", "😉").via("the halves of a pair are one character")
@example("a\ud83d\ude09\ud83d", "a😉\ufffd")
@given(st.text(st.characters()), st.none())
def test_mending_touches_surrogates_only(text: str, expected: str | None) -> None:
    """A text without surrogates stays as it is; with them, the result has none and encodes as UTF-8."""
    mended = mend_surrogates(text)

    assert expected in (None, mended)
    assert has_surrogates(text) == (text != mended)
    assert mended == mended.encode("utf-8").decode("utf-8")

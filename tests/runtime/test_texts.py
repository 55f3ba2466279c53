"""Texts may be in any container of Python, numpy, pandas, polars and Arrow."""

import collections
import re
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from ov_minilm.runtime.texts import check_texts, has_surrogates, iterate, mend_surrogates

TEXTS = ["a kettle", "", "naïve 😉", "a kettle"]
FRAME = pd.DataFrame({"text": TEXTS, "more": TEXTS})
CONTAINERS: dict[str, Callable[[list[Any]], Any]] = {
    "list": list,
    "tuple": tuple,
    "iterator": iter,
    "deque": collections.deque,
    "values of a dict": lambda texts: dict(enumerate(texts)).values(),
    "numpy": partial(np.array, dtype=object),
    "pandas": partial(pd.Series, dtype=object),
    "pandas string": partial(pd.Series, dtype="string"),
    "pandas category": partial(pd.Series, dtype="category"),
    "pandas of Arrow": partial(pd.Series, dtype=pd.ArrowDtype(pa.string())),
    "pandas array": lambda texts: pd.Series(texts, dtype="string").array,
    "pandas index": partial(pd.Index, dtype=object),
    "polars": partial(pl.Series, dtype=pl.String),
    "polars category": partial(pl.Series, dtype=pl.Categorical),
    "Arrow": partial(pa.array, type=pa.string()),
    "Arrow large": partial(pa.array, type=pa.large_string()),
    "Arrow view": partial(pa.array, type=pa.string_view()),
    "Arrow dictionary": lambda texts: pa.array(texts, pa.string()).dictionary_encode(),
    "Arrow chunks": lambda texts: pa.chunked_array([texts[:1], [], texts[1:]], pa.string()),
}
if hasattr(np.dtypes, "StringDType"):  # new in numpy 2
    CONTAINERS["numpy strings"] = partial(np.array, dtype=np.dtypes.StringDType(na_object=None))


@pytest.mark.parametrize("make", CONTAINERS.values(), ids=CONTAINERS)
def test_texts_of_any_container_are_read_in_order(make: Callable[[list[Any]], Any]) -> None:
    """Any container becomes a list of str; a missing text is named by its index."""
    assert (TEXTS, []) == (check_texts(make(TEXTS)), check_texts(make([])))
    with pytest.raises(TypeError, match=r"^text 2 is .*; leave it out, or pass '' in its place$"):
        check_texts(make(["a", "b", None]))


@pytest.mark.parametrize("item", [float("nan"), pd.NA, pd.NaT, np.ma.masked], ids=repr)
def test_every_missing_value_is_refused(item: object) -> None:
    """NaN, NA, NaT and masked items are refused; arrays without missing items are accepted."""
    assert TEXTS == check_texts(np.array(TEXTS)) == check_texts(np.ma.masked_array(TEXTS))
    with pytest.raises(TypeError, match=r"^text 0 is .*; leave it out, or pass '' in its place$"):
        check_texts([item])


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("abc", "str; pass a list of texts"),
        (np.str_("abc"), "str_; pass a list of texts"),
        (b"abc", "bytes; decode it first"),
        (bytearray(b"abc"), "bytearray; decode it first"),
        (memoryview(b"abc"), "memoryview; decode it first"),
        (None, "NoneType"),
        ({"k-1": "a"}, "dict; pass list(texts.values()), or list(texts) for its keys"),
        (collections.ChainMap({"k-1": "a"}), "ChainMap; pass list(texts.values())"),
        ({"a"}, "set, which has no order; pass sorted(texts)"),
        (frozenset("a"), "frozenset, which has no order; pass sorted(texts)"),
        (FRAME, "DataFrame; pass one column, as texts['text']"),
        (pl.from_pandas(FRAME), "DataFrame; pass one column, as texts['text']"),
        (pl.from_pandas(FRAME).lazy(), "LazyFrame; pass one column, as texts['text']"),
        (pa.table({"text": TEXTS}), "Table; pass one column, as texts['text']"),
        (FRAME[["text"]].to_numpy(), "ndarray of 2 dimensions; pass texts[:, 0]"),
        (np.array("abc"), "ndarray of 0 dimensions; pass [texts.item()]"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_other_objects_are_refused(texts: Any, message: str) -> None:
    """For an object that is no list of texts, the message says what to pass instead."""
    for read in (check_texts, iterate):
        with pytest.raises(TypeError, match=f"^expected an iterable of str, not {re.escape(message)}"):
            read(texts)


def test_an_item_that_is_not_a_text_is_named_by_its_index() -> None:
    """The index counts from `start`; the error has the type and the beginning of the value."""
    for item, message in (
        (b"a", "bytes (b'a'), expected str; decode it first"),
        (b"x" * 10_000, f"bytes (b'{'x' * 58}), expected str; decode it first"),
        (1.5, "float (1.5), expected str"),
        ({"k": "a"}, "dict ({'k': 'a'}), expected str"),
        (np.ones(3), "ndarray (array([1., 1., 1.])), expected str"),
    ):
        with pytest.raises(TypeError, match=f"^text 7 is {re.escape(message)}$"):
            check_texts(["a", "b", item, None], start=5)


def test_iterating_reads_no_further_than_asked() -> None:
    """Generators, and columns of Arrow, are read item by item."""

    def stream() -> Iterator[str]:
        while True:
            yield from TEXTS

    assert TEXTS + TEXTS == list(islice(iterate(stream()), 8))
    assert ["a kettle"] == list(islice(iterate(pa.array(TEXTS)), 1))


def test_only_surrogates_are_repaired() -> None:
    """A surrogate pair becomes one character, and an unpaired surrogate U+FFFD; nothing else changes."""
    for text, expected in (
        ("\ud800", "\ufffd"),
        ("a\udc00b", "a\ufffdb"),
        ("\udc00\ud83d", "\ufffd\ufffd"),
        ("a\ud83d\ude09\ud83d", "a😉\ufffd"),
        ("naïve\0 \U0010ffff", "naïve\0 \U0010ffff"),
    ):
        assert (expected, text != expected) == (mend_surrogates(text), has_surrogates(text))

"""Which Python values are accepted as texts, and the errors that say what to pass instead.

Data frames, mappings and sets are iterable too, but yield column names, keys, or texts in no fixed order:
they would give wrong vectors without an error. Types of libraries are recognized by attributes, without an
import.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, cast

# names of types that mean a missing value in pandas, Arrow and numpy
MISSING = ("NoneType", "NAType", "NaTType", "MaskedConstant")
_SURROGATE = re.compile("[\ud800-\udfff]")


def iterate(texts: Any) -> Iterable[Any]:
    """Return an iterable over a list, series, array or generator, with Python values instead of Arrow's.

    Raises:
        TypeError: a str, bytes, mapping, set, data frame, or an array that is not 1-D; the message says what
            to pass.
    """
    kind, wanted = type(texts), ""
    if isinstance(texts, list):  # the common case
        return texts
    if isinstance(texts, str):
        wanted = "; pass a list of texts"
    elif isinstance(texts, bytes | bytearray | memoryview):
        wanted = "; decode it first"
    elif isinstance(texts, Mapping):
        wanted = "; pass list(texts.values()), or list(texts) for its keys"
    elif isinstance(texts, set | frozenset):
        wanted = ", which has no order; pass sorted(texts)"
    elif hasattr(kind, "columns") or hasattr(kind, "column_names"):  # of pandas, polars, Arrow, datasets, …
        wanted = "; pass one column, as texts['text']"
    elif (dimensions := getattr(texts, "ndim", 1)) != 1:
        wanted = f" of {dimensions} dimensions; pass {'texts[:, 0]' if dimensions else '[texts.item()]'}"
    elif isinstance(texts, Iterable):
        return (item.as_py() for item in texts) if hasattr(kind, "to_pylist") else texts
    raise TypeError(f"expected an iterable of str, not {kind.__name__}{wanted}")


def check_texts(texts: object, start: int = 0) -> list[str]:
    """Return the texts as a list. `start` is the index of the first one in messages.

    Raises:
        TypeError: as `iterate` raises; or an item is not a str: the message has index, type and value.
    """
    items = list(iterate(texts))
    if not all(issubclass(kind, str) for kind in set(map(type, items))):
        for index, item in enumerate(items, start):
            check_text(item, index)
    return cast("list[str]", items)


def check_text(item: object, index: int) -> str:
    """Return `item`, the text at `index`, or raise TypeError if it is not a str."""
    if isinstance(item, str):
        return item
    wanted = ""
    if isinstance(item, bytes | bytearray | memoryview):
        wanted = "; decode it first"
    elif type(item).__name__ in MISSING or (isinstance(item, float) and item != item):
        wanted = "; leave it out, or pass '' in its place"
    raise TypeError(f"text {index} is {type(item).__name__} ({item!r:.60}), expected str{wanted}")


def mend_surrogates(text: str) -> str:
    """Join surrogate pairs and replace unpaired ones by U+FFFD: the tokenizer takes only valid Unicode."""
    return text.encode("utf16", "surrogatepass").decode("utf16", "replace") if has_surrogates(text) else text


def has_surrogates(text: str) -> bool:
    """Return whether the text holds a surrogate code point; an ASCII text is not searched."""
    return not text.isascii() and _SURROGATE.search(text) is not None

"""Converts values of kept columns to valid JSON."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Sequence
from typing import Any

from ov_minilm.runtime.texts import has_surrogates


def json_text(value: Any) -> str:
    """Return a value as valid JSON: NaN and infinities as null, bytes as base64, dates as strings."""
    if isinstance(value, float | bytes | dict | list | tuple):
        value = _plain(value)
    # unpaired surrogates are invalid in UTF-8; JSON has escapes for them
    ascii_only = isinstance(value, str) and has_surrogates(value)
    return json.dumps(value, ensure_ascii=ascii_only, default=str)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value


def members(names: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return `"name": value, ...` for each row, from JSON texts; a row that could not be read has nulls."""
    heads = [f"{json_text(name)}: " for name in names]
    nulls = ["null"] * len(names)
    return [", ".join(map("".join, zip(heads, row or nulls, strict=True))) for row in rows]

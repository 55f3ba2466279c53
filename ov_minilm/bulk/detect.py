"""Tells plain text from JSON, tables and documents, whose lines must not be encoded as texts by mistake."""

from __future__ import annotations

import json
from collections.abc import Sequence

DOCUMENTS = ("{\\rtf", "%pdf-", "<?xml", "<!doctype", "<html", "<!--")
TABLES = {
    "\t": "--format tsv",
    ",": "--format csv",
    ";": "--format csv --delimiter ';'",
    "|": "--format csv --delimiter '|'",
}

_decoder = json.JSONDecoder()


def detect_format(lines: Sequence[str], column: str) -> tuple[str, str] | None:
    """Return the format that the first lines of a file belong to, and what to do.

    Return None if they are plain text.

    Args:
        lines: the first lines, without line ends.
        column: the name that a table would have for its column of texts.
    """
    filled = [line.strip(" \r") for line in lines if line.strip()]
    if not filled:
        return None
    if filled[0].lower().startswith(DOCUMENTS):
        return "a document", "extract its text"
    if _is_json(filled):
        return "JSON", "pass --format jsonl if each line is an object"
    for delimiter, option in TABLES.items():
        if _is_table(filled, delimiter, column):
            return "a table", f"pass {option}"
    return None


def _is_json(lines: Sequence[str]) -> bool:
    """Return whether all lines are JSON objects or elements of an array, or begin a long object."""
    if len(lines) > 1 and lines[0] in ("{", "[", "[{") and lines[1][0] in '"{':
        return True
    inner = [line for line in lines if line not in ("[", "]")]
    return bool(inner) and all(map(_begins_with_object, inner))


def _begins_with_object(line: str) -> bool:
    start = line.lstrip("[ ")
    try:
        value, end = _decoder.raw_decode(start)
    except (ValueError, RecursionError):
        return False
    return bool(value) and isinstance(value, dict) and start[end:].lstrip("] ")[:1] in ("", ",", "{")


def _is_table(lines: Sequence[str], delimiter: str, column: str) -> bool:
    """Return whether the first line is a header with this column, and all lines have as many fields."""
    header = [name.strip(' "') for name in lines[0].split(delimiter)]
    if len(lines) == 1 and delimiter != "\t":  # a text may have a comma
        return False
    fields = min(line.count(delimiter) for line in lines) + 1
    return column in header and 1 < len(header) <= fields

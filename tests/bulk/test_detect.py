"""Lines of a structured file are distinguished from text."""

import pytest

from ov_minilm.bulk.detect import structure


@pytest.mark.parametrize(
    ("lines", "what"),
    [
        ('{"text": "a"}\n\n {"text": "b", "n": 1}', "JSON"),
        ('[{"text": "a"}, {"text": "b"}]', "JSON"),
        ('[\n{"text": "a"},\n{"text": "b"}\n]', "JSON"),
        ('{\n  "text": "a"\n}', "JSON"),
        ('{"text": "a"}{"text": "b"}', "JSON"),
        ("id,text\n1,a\n2,b", "a table"),
        ('"text";"n"\n"a; b";1', "a table"),
        ("id\ttext", "a table"),
        ("text\tid\na\t1", "a table"),
        ("{\\rtf1\\ansi a}", "a document"),
        ("<!DOCTYPE html>", "a document"),
        ('<?xml version="1.0"?>', "a document"),
        ("<HTML lang=en>", "a document"),
        ("<!-- a page -->", "a document"),
        ("id|text\n1|a", "a table"),
        ("", None),
        ("\n \n", None),
        ("a text", None),
        ("text", None),
        ("image,text", None),
        ("image,text\na, b, c\nd", None),
        ("id,body\n1,a", None),
        ('{"text": "a"}\nno JSON', None),
        ('{"a": 1} is an object', None),
        ("{}", None),
        ("[\n]", None),
        ("{\n|\n}", None),
        ('["a"]', None),
        ("[" * 100_000, None),
    ],
)
def test_structured_lines_are_detected(lines: str, what: str | None) -> None:
    """JSON in any layout, a table with the column of texts, or a document; all other lines are text."""
    assert what == (structure(lines.split("\n"), "text") or (None,))[0]

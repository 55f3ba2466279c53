"""Lines of a structured file are distinguished from text."""

import pytest

from ov_minilm.bulk.detect import detect_format

LINES_BY_FORMAT: dict[str | None, list[str]] = {
    "JSON": [
        *['{"text": "a"}\n\n {"text": "b", "n": 1}', '[{"text": "a"}, {"text": "b"}]', '{\n  "text": "a"\n}'],
        *['[\n{"text": "a"},\n{"text": "b"}\n]', '{"text": "a"}{"text": "b"}'],
    ],
    "a table": ["id,text\n1,a\n2,b", '"text";"n"\n"a; b";1', "id\ttext", "text\tid\na\t1", "id|text\n1|a"],
    "a document": ["{\\rtf1 a}", "<!DOCTYPE html>", '<?xml version="1.0"?>', "<HTML a=b>", "<!-- a -->"],
    None: [
        *["", "\n \n", "a text", "text", "image,text", "image,text\na, b, c\nd", "id,body\n1,a", '["a"]'],
        *['{"text": "a"}\nno JSON', '{"a": 1} is an object', "{}", "[\n]", "{\n|\n}", "[" * 100_000],
    ],
}


@pytest.mark.parametrize("format_name", LINES_BY_FORMAT)
def test_structured_lines_are_detected(format_name: str | None) -> None:
    """JSON in any layout, a table with the column of texts, or a document; all other lines are text."""
    for lines in LINES_BY_FORMAT[format_name]:
        assert format_name == (detect_format(lines.split("\n"), "text") or (None,))[0], lines[:50]

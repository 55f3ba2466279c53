"""Request bodies: valid bodies are read, invalid bodies get an error with the place and the remedy."""

import re
from typing import Any

import pytest

from ov_minilm.serve.errors import ApiError
from ov_minilm.serve.openai import EmbeddingRequest
from ov_minilm.serve.parsing import read, texts_or_ids
from ov_minilm.serve.tei import SimilarityRequest

INPUT = "expected a text, a list of texts, a list of token ids (integers from 0 to 100255), or a list of"
CHOICES = 'expected "float" (numbers, the default) or "base64" (of little-endian float32)'


def test_valid_bodies() -> None:
    """Null counts as absent, unknown fields are ignored, half of a surrogate pair is accepted."""
    for body, text in (
        (b'{"input": "a", "model": null, "truncate": null, "extra": {"deep": [1, {}]}}', "a"),
        (rb'{"input": "a\ud83d"}', "a\ud83d"),  # JavaScript may cut an emoji in two
        (rb'{"input": "\ud83d\ude09"}', "\U0001f609"),
        ('{"input": "é", "user": "é\\ud83d"}'.encode(), "é"),
        (rb'{"input": "\\\"' + b"[" * 200_000 + b'"}', '\\"' + "[" * 200_000),
    ):
        parsed = read(body, EmbeddingRequest)
        assert (text, None, None) == (parsed.input, parsed.model, parsed.truncate)
    for value, lists in (("a", ["a"]), ("", [""]), (["a", ""], ["a", ""]), ([7, 8], [[7, 8]])):
        assert lists == texts_or_ids(value, 2, "input")
    assert [[7], [8, 9]] == texts_or_ids([[7], [8, 9]], 2, "input")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body is not valid JSON in UTF-8: Expecting value"),
        (b"\xff\xfe", "not valid JSON"),
        (b'{"input": "a"} x', "not valid JSON"),
        (b'{"input": "\xff"}', "not valid JSON"),
        (b'{"input": NaN}', "NaN is not JSON"),
        (b'{"input": [' + b"[]," * 200_000 + b"[]]}", "the body has 200003 lists and objects; send at"),
        (b'{"input": [1' + b"0" * 5000 + b"]}", "not valid JSON"),  # more digits than Python accepts
        (b'{"x": ' + b"[" * 100_000, "recursion"),
        (b'{"input": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not valid JSON"),
        (b'{"input": {"a": 1}, x', "not valid JSON in UTF-8: Expecting property name"),
        (b"[]", "the body is a list; send a JSON object"),
        (b"{}", f"input is missing; {INPUT}"),
        (b'{"input": null}', f"input is null; {INPUT}"),
        (b'{"input": 1}', f"input is 1; {INPUT}"),
        (b'{"input": [true]}', f"input[0] is true; {INPUT}"),
        (b'{"input": ["a", {"text": "a"}]}', f"input[1] is an object; {INPUT}"),
        (b'{"input": [["a"]]}', f'input[0][0] is "a"; {INPUT}'),
        (b'{"input": [1e400]}', "input"),
        (b'{"input": [1' + b"0" * 500 + b"]}", "input[0] is 1" + "0" * 59 + "; expected"),
        (b'{"input": [-1]}', f"input[0] is -1; {INPUT}"),
        (b'{"input": [[1], [100256]]}', f"input[1][0] is 100256; {INPUT}"),
        (rb'{"input": "\ud83d", "model": ["a"]}', "model is a list; expected a name from /v1/models"),
        (b'{"input": "a", "encoding_format": "\xc3\xa9"}', f'encoding_format is "\xe9"; {CHOICES}'),
        (b'{"input": "a", "dimensions": 0}', "dimensions is 0; expected an integer, at least 1"),
        (b'{"input": "a", "truncate": true}', 'truncate is true; expected "end" (cut), "error" (refuse) or'),
        (b'{"inputs": {"source_sentence": 5}}', "inputs.source_sentence is 5; expected a text"),
        (b'{"inputs": {"sentences": []}}', "inputs.source_sentence is missing; expected a text"),
        (b'{"inputs": {"source_sentence": "", "sentences": [1]}}', "inputs.sentences[0] is 1; expected a li"),
    ],
)
def test_invalid_bodies(body: bytes, message: str) -> None:
    """The error has the place, the value found and the values expected; `param` is the field."""
    with pytest.raises(ApiError, match=re.escape(message)) as refused:
        read(body, SimilarityRequest if b"inputs" in body else EmbeddingRequest)

    actual_message = refused.value.message
    field = None if actual_message.startswith("the body") else re.split(r"\W", actual_message)[0]
    assert (400, field) == (refused.value.status, refused.value.param)


@pytest.mark.parametrize(
    ("value", "code", "message"),
    [
        ([], None, "field is an empty list; send at least one text"),
        ([[]], None, "field[0] is an empty list of token ids"),
        ([[1], []], None, "field[1] is an empty list of token ids"),
        (["a", 1], None, "field mixes numbers and texts; send one kind"),
        (["a", [1]], None, "field mixes lists and texts; send one kind"),
        (["a"] * 3, "array_above_max_length", "field has 3 entries; this server accepts 2 in a request"),
        ([[1]] * 3, "array_above_max_length", "field has 3 entries; this server accepts 2"),
        ([7] * 600_000, "max_tokens_per_request", "at least 600000 tokens; send at most 524288"),
    ],
)
def test_invalid_lists(value: Any, code: str | None, message: str) -> None:
    """Empty, mixed and too long lists are refused, with the number found and the limit."""
    with pytest.raises(ApiError, match=re.escape(message)) as refused:
        texts_or_ids(value, 2, "field")

    error, field = refused.value, "input" if code == "max_tokens_per_request" else "field"
    assert (400, field, code) == (error.status, error.param, error.code)
    assert len(error.message) < 700

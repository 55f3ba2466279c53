"""Bodies of requests: what is read, and what is wrong in words."""

from __future__ import annotations

from typing import Any

import pytest

from ov_minilm.serve.errors import ApiError
from ov_minilm.serve.openai import EmbeddingRequest
from ov_minilm.serve.parsing import read, texts_or_ids
from ov_minilm.serve.tei import SimilarityRequest

INPUT = "expected a text, a list of texts, a list of token ids"


def test_null_is_absent_and_unknown_fields_are_ignored() -> None:
    """Clients send null for what they leave open, and fields of other servers."""
    body = (
        b'{"input": "a", "model": null, "encoding_format": null, "dimensions": null, "user": null,'
        b' "truncate": null, "input_type": "query", "extra": {"deep": [1, {}]}}'
    )

    assert EmbeddingRequest("a") == read(body, EmbeddingRequest)


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        (b"", None, "not valid JSON"),
        (b"{", None, "not valid JSON"),
        (b"\xff\xfe", None, "not valid JSON"),
        (b'{"input": "a"} x', None, "not valid JSON"),
        (b'{"input": "\xff"}', None, "not valid JSON"),
        (b'{"input": NaN}', None, "NaN is not JSON"),
        (b'{"x": ' + b"[" * 100_000, None, "recursion"),
        (b'{"input": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", None, "not valid JSON"),
        (b'{"input": {"a": 1}, x', None, "not valid JSON"),
        (b"[]", None, "the body is a list; send a JSON object"),
        (b'"text"', None, 'the body is "text"; send a JSON object'),
        (b"{}", "input", f"input is missing; {INPUT}"),
        (b'{"input": null}', "input", f"input is null; {INPUT}"),
        (b'{"input": 1}', "input", f"input is 1; {INPUT}"),
        (b'{"input": [true]}', "input", f"input[0] is true; {INPUT}"),
        (b'{"input": [1.5]}', "input", f"input[0] is 1.5; {INPUT}"),
        (b'{"input": ["a", {"text": "a"}]}', "input", f"input[1] is an object; {INPUT}"),
        (b'{"input": [["a"]]}', "input", f'input[0][0] is "a"; {INPUT}'),
        (b'{"input": "a", "model": 1}', "model", "model is 1; expected a name from /v1/models"),
        (
            b'{"input": "a", "encoding_format": "md5"}',
            "encoding_format",
            'encoding_format is "md5"; expected "float" (numbers, the default) or "base64"',
        ),
        (
            b'{"input": "a", "dimensions": 0}',
            "dimensions",
            "dimensions is 0; expected an integer, at least 1",
        ),
        (b'{"input": "a", "dimensions": "8"}', "dimensions", 'dimensions is "8"; expected an integer'),
        (
            b'{"input": "a", "truncate": true}',
            "truncate",
            'truncate is true; expected "end" (cut), "error" (refuse) or "mean"',
        ),
        (b'{"input": "a", "truncate": "END"}', "truncate", 'truncate is "END"; expected "end" (cut)'),
        (b'{"input": [1e400]}', "input", "input"),
        (b'{"input": [1' + b"0" * 500 + b"]}", "input", "input[0] is 1000"),
        (
            b'{"input": [-1]}',
            "input",
            "input[0] is -1; expected a text, a list of texts, a list of token ids",
        ),
        (b'{"input": [[1], [100256]]}', "input", "input[1][0] is 100256"),
    ],
)
def test_what_is_wrong_is_told_in_words(body: bytes, param: str | None, said: str) -> None:
    """An error says the place, what stands there and what is expected, choices too; `param` is the field."""
    with pytest.raises(ApiError) as refused:
        read(body, EmbeddingRequest)

    assert (400, param) == (refused.value.status, refused.value.param)
    assert said in refused.value.message


def test_a_field_in_a_field_is_named_whole() -> None:
    """The place of an error in an object within the body has both names."""
    for body, said in (
        (
            b'{"inputs": {"source_sentence": 5, "sentences": []}}',
            "inputs.source_sentence is 5; expected a text",
        ),
        (b'{"inputs": {"sentences": []}}', "inputs.source_sentence is missing; expected a text"),
        (
            b'{"inputs": {"source_sentence": "a", "sentences": ["b", 1]}}',
            "inputs.sentences[1] is 1; expected a list",
        ),
    ):
        with pytest.raises(ApiError) as refused:
            read(body, SimilarityRequest)
        assert said in refused.value.message


def test_half_an_emoji_is_read() -> None:
    """An unpaired surrogate, escaped, is what JavaScript sends of a text that was cut inside an emoji."""
    assert "a\ud83d" == read(rb'{"input": "a\ud83d"}', EmbeddingRequest).input
    assert "\U0001f609" == read(rb'{"input": "\ud83d\ude09"}', EmbeddingRequest).input


@pytest.mark.parametrize(
    ("value", "expected"),
    [("a", ["a"]), ("", [""]), (["a", ""], ["a", ""]), ([7, 8], [[7, 8]]), ([[7], [8, 9]], [[7], [8, 9]])],
)
def test_every_form_of_input_is_a_list(value: Any, expected: Any) -> None:
    """A text, texts, ids, and lists of ids; an empty text is legal."""
    assert expected == texts_or_ids(value, 2, "input")


@pytest.mark.parametrize(
    ("value", "code", "said"),
    [
        ([], None, "empty list"),
        ([[]], None, "input[0] is an empty list"),
        (["a", 1], None, "mixes numbers and texts"),
        (["a", [1]], None, "mixes lists and texts"),
        (["a"] * 3, "array_above_max_length", "3 entries; this server accepts 2"),
        ([7] * 600_000, "max_tokens_per_request", "at least 600000 tokens; send at most 524288"),
    ],
)
def test_input_that_is_no_input(value: Any, code: str | None, said: str) -> None:
    """Empty, mixed, too many: refused with both numbers."""
    with pytest.raises(ApiError) as refused:
        texts_or_ids(value, 2, "input")

    assert (400, "input", code) == (refused.value.status, refused.value.param, refused.value.code)
    assert said in refused.value.message
    assert len(refused.value.message) < 700

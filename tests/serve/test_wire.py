"""OpenAI's shapes: what is read, what is refused and where it says the fault is, what is written."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest

from ov_minilm.serve import wire
from ov_minilm.serve.wire import ApiError


def test_null_is_absent_and_unknown_fields_are_ignored() -> None:
    """Clients send null for what they leave open, and fields of other servers."""
    body = (
        b'{"input": "a", "model": null, "encoding_format": null, "dimensions": null, "user": null,'
        b' "truncate": null, "input_type": "query", "extra": {"deep": [1, {}]}}'
    )

    assert wire.EmbeddingRequest("a") == wire.read_embedding_request(body)


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        (b"", None, "not valid JSON"),
        (b"{", None, "not valid JSON"),
        (b"\xff\xfe", None, "not valid JSON"),
        (b'{"input": "a"} x', None, "not valid JSON"),
        (b'{"input": "\xff"}', None, "not valid JSON"),
        (b'{"input": NaN}', None, "NaN is no JSON"),
        (b'{"x": ' + b"[" * 100_000, None, "recursion"),
        (b'{"input": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "input", "got `array`"),
        (b"[]", None, "Expected `object`"),
        (b"{}", "input", "missing required field `input`"),
        (b'{"input": null}', "input", "got `null`"),
        (b'{"input": 1}', "input", "got `int`"),
        (b'{"input": [true]}', "input", "got `bool`"),
        (b'{"input": [1.5]}', "input", "got `float`"),
        (b'{"input": [{"text": "a"}]}', "input", "got `object`"),
        (b'{"input": [["a"]]}', "input", "`$.input[0][0]`"),
        (b'{"input": "a", "model": 1}', "model", "got `int`"),
        (b'{"input": "a", "encoding_format": "md5"}', "encoding_format", "Invalid enum value 'md5'"),
        (b'{"input": "a", "dimensions": 0}', "dimensions", ">= 1"),
        (b'{"input": "a", "dimensions": "8"}', "dimensions", "got `str`"),
        (b'{"input": "a", "truncate": true}', "truncate", "got `bool`"),
        (b'{"input": [1e400]}', "input", "out of range"),
        (b'{"input": [1' + b"0" * 500 + b"]}", "input", "`$.input[0]`"),
        (b'{"input": [-1]}', "input", ">= 0"),
        (b'{"input": [[1], [100256]]}', "input", "<= 100255 - at `$.input[1][0]`"),
        (b'{"input": ["' + b"a" * 1_000_001 + b'"]}', "input", "length <= 1000000"),
    ],
)
def test_what_is_wrong_is_named(body: bytes, param: str | None, said: str) -> None:
    """A 400 says what was expected, and `param` names the field."""
    with pytest.raises(ApiError) as refused:
        wire.read_embedding_request(body)

    assert (400, param) == (refused.value.status, refused.value.param)
    assert said in refused.value.message


def test_half_an_emoji_is_read() -> None:
    """A lone surrogate, escaped, is what JavaScript sends of a text that was cut inside an emoji."""
    assert "a\ud83d" == wire.read_embedding_request(rb'{"input": "a\ud83d"}').input
    assert "\U0001f609" == wire.read_embedding_request(rb'{"input": "\ud83d\ude09"}').input


@pytest.mark.parametrize(
    ("value", "expected"),
    [("a", ["a"]), ("", [""]), (["a", ""], ["a", ""]), ([7, 8], [[7, 8]]), ([[7], [8, 9]], [[7], [8, 9]])],
)
def test_every_form_of_input_is_a_list(value: Any, expected: Any) -> None:
    """A text, texts, ids, and lists of ids; an empty text is legal."""
    assert expected == wire.items(value, 2)


@pytest.mark.parametrize(
    ("value", "code", "said"),
    [
        ([], None, "empty list"),
        ([[]], None, "input[0] is an empty list"),
        (["a", 1], None, "mixes numbers and texts"),
        (["a", [1]], None, "mixes lists and texts"),
        (["a"] * 3, "array_above_max_length", "3 entries, this server takes 2"),
    ],
)
def test_input_that_is_no_input(value: Any, code: str | None, said: str) -> None:
    """Empty, mixed, too many, too long, out of range: 400 with both numbers."""
    with pytest.raises(ApiError) as refused:
        wire.items(value, 2)

    assert (400, "input", code) == (refused.value.status, refused.value.param, refused.value.code)
    assert said in refused.value.message
    assert len(refused.value.message) < 700


def test_base64_is_little_endian_float32() -> None:
    """The bytes are what OpenAI's clients read with frombuffer(float32)."""
    vector = np.array([1.0, -0.5], np.float32)

    assert b"\x00\x00\x80\x3f\x00\x00\x00\xbf" == base64.b64decode(wire.to_base64(vector))
    assert wire.to_base64(vector) == wire.to_base64(vector.astype(">f4").astype(np.float32))


def test_the_answer_has_openais_keys() -> None:
    """Four keys, data in order, numbers that read back to the same bits."""
    vectors = np.array([[0.1, 0.2], [-0.3, 0.4]], np.float32)

    answer = json.loads(wire.embedding_response(vectors, None, "name", 7))

    assert {"object", "data", "model", "usage"} == answer.keys()
    assert ("list", "name", {"prompt_tokens": 7, "total_tokens": 7}) == (
        answer["object"],
        answer["model"],
        answer["usage"],
    )
    assert [("embedding", 0), ("embedding", 1)] == [(one["object"], one["index"]) for one in answer["data"]]
    assert np.array_equal(vectors, np.array([one["embedding"] for one in answer["data"]], np.float32))


@pytest.mark.parametrize(
    ("status", "kind", "headers"),
    [
        (400, "invalid_request_error", {"x-should-retry": "false"}),
        (401, "invalid_request_error", {"x-should-retry": "false"}),
        (415, "invalid_request_error", {"x-should-retry": "false"}),
        (429, "rate_limit_error", {"retry-after": "1"}),
        (500, "server_error", {}),
        (503, "server_error", {"retry-after": "1"}),
    ],
)
def test_errors_say_whether_to_come_back(status: int, kind: str, headers: dict[str, str]) -> None:
    """Every error has all four keys; clients are told not to repeat what cannot get better."""
    error = ApiError(status, "words", param="input")

    assert {"error": {"message": "words", "type": kind, "param": "input", "code": None}} == json.loads(
        error.body()
    )
    assert headers == error.headers

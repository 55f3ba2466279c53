"""The shapes of OpenAI's API."""

from __future__ import annotations

import base64
import json

import numpy as np

from ov_minilm.serve import openai


def test_base64_is_little_endian_float32() -> None:
    """The bytes are what OpenAI's clients read with frombuffer(float32)."""
    vector = np.array([1.0, -0.5], np.float32)

    assert b"\x00\x00\x80\x3f\x00\x00\x00\xbf" == base64.b64decode(openai.to_base64(vector))
    assert openai.to_base64(vector) == openai.to_base64(vector.astype(">f4").astype(np.float32))


def test_the_answer_has_openais_keys() -> None:
    """Four keys, data in order, numbers that read back to the same bits."""
    vectors = np.array([[0.1, 0.2], [-0.3, 0.4]], np.float32)

    answer = json.loads(openai.embedding_answer(vectors, None, "name", 7))

    assert {"object", "data", "model", "usage"} == answer.keys()
    assert ("list", "name", {"prompt_tokens": 7, "total_tokens": 7}) == (
        answer["object"],
        answer["model"],
        answer["usage"],
    )
    assert [("embedding", 0), ("embedding", 1)] == [(one["object"], one["index"]) for one in answer["data"]]
    assert np.array_equal(vectors, np.array([one["embedding"] for one in answer["data"]], np.float32))

"""Random requests never cause a 500; scripts/fuzz also knows the correct answer of each of its requests."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.asgi import send

from ov_minilm import Embedder
from ov_minilm.serve import Settings, create_app

FIELDS = """input model encoding_format dimensions user truncate other inputs truncation_direction prompt_name
normalize ids skip_special_tokens add_special_tokens prompt keep_alive options source_sentence sentences
parameters""".split()
WORDS = ["float", "base64", "end", "mean", "text-embedding-3-small", "all-minilm", "\ud83d"]
VALUES = st.recursive(
    st.none() | st.integers() | st.integers(0, 100_300) | st.floats() | st.text() | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
BODIES = VALUES | st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=7)
VALID_JSON = BODIES.map(json.dumps).map(str.encode)
DAMAGED_JSON = st.builds(
    lambda body, at, removed, new: body[: at % len(body)] + new + body[at % len(body) + removed :],
    *(VALID_JSON, st.integers(0, 999), st.integers(0, 3), st.binary(max_size=3)),
)
HEADERS = st.fixed_dictionaries(
    {"content-type": st.sampled_from(["application/json"] * 9 + ["text/plain", ""])},
    optional={
        "x-truncate": st.sampled_from(["end", "mean", "error", "START", ""]),
        "x-request-id": st.text(st.characters(max_codepoint=255), max_size=140),
        "content-length": st.sampled_from(["-1", "x", "99999999999999999999"]),
    },
)
PATHS = """/v1/embeddings /embed /similarity /tokenize /decode /api/embed /api/embeddings /api/show""".split()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("examples", [60, pytest.param(2_000, marks=pytest.mark.slow)])
def test_random_requests(shipped: Embedder, path: str, examples: int) -> None:
    """Random JSON, damaged JSON and random bytes get 200 or an error in the form of the API."""
    app, loop = create_app(shipped, Settings(payload_limit=4000, warm_up=False)), asyncio.new_event_loop()
    openai = path == "/v1/embeddings"

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(VALID_JSON | DAMAGED_JSON | st.binary(max_size=60), HEADERS)
    def send_one(body: bytes, headers: dict[str, str]) -> None:
        answer = loop.run_until_complete(asyncio.wait_for(send(app, "POST", path, body, headers), 30))
        assert answer.status in ((200, 400, 413, 415) if openai else (200, 400, 404, 413, 415, 422)), answer
        assert answer.json["error"] if answer.status != 200 else answer.json is not None
        if openai and answer.status != 200:
            assert {"message", "type", "param", "code"} == answer.json["error"].keys()

    try:
        send_one()
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()

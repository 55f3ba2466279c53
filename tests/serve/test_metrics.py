"""What Prometheus sees."""

from __future__ import annotations

import re

import pytest
from support.asgi import ask, embed

from ov_minilm import Embedder
from ov_minilm.serve import Settings, create_app


def _figures(text: str) -> dict[str, float]:
    return {name: float(value) for name, value in re.findall(r"^([^#\s]\S*) (\S+)$", text, re.MULTILINE)}


@pytest.mark.filterwarnings("ignore::ov_minilm.TruncationWarning")
def test_figures_tell_what_happened(shipped: Embedder) -> None:
    """Requests, errors by reason, tokens, texts, seconds and the queue, under the names of TEI."""
    app = create_app(shipped, Settings(max_client_batch_size=2))
    embed(app, {"input": ["a", "b"]})
    embed(app, {"input": ["word " * 300]})
    embed(app, {"input": ["a", "b", "c"]})
    embed(app, b"{")

    answer = ask(app, "GET", "/metrics")
    found = _figures(answer.body.decode())

    assert 4 == found['te_request_count_total{method="/v1/embeddings"}']
    assert 2 == found['te_request_success_total{method="/v1/embeddings"}']
    assert 2 == found['te_request_failure_total{err="validation"}']
    assert 3 == found["te_request_texts_sum"]
    assert 3 + 3 + 256 == found["te_request_input_length_sum"]
    assert 1 == found["te_truncated_total"]
    assert 4 == found["te_request_duration_count"]
    assert 2 == found["te_embed_inference_duration_count"] == found["te_embed_queue_duration_count"]
    assert 0 == found["te_queue_size"] == found["te_queue_tokens"] == found["te_batch_running"]
    assert 3 <= found["te_batch_texts_total"]
    assert 3 + 3 + 256 <= found["te_batch_tokens_total"] <= found["te_batch_cells_total"]
    assert found["te_embed_inference_duration_sum"] > 0
    assert found["te_embed_queue_duration_sum"] > 0


def test_unknown_urls_make_no_figures(shipped: Embedder) -> None:
    """A client that tries a thousand URLs does not fill the registry with labels."""
    app = create_app(shipped)
    before = len(_figures(ask(app, "GET", "/metrics").body.decode()))
    for i in range(50):
        ask(app, "POST", f"/v1/{i}")

    assert before == len(_figures(ask(app, "GET", "/metrics").body.decode()))


def test_two_servers_in_a_process_do_not_mix(shipped: Embedder) -> None:
    """Each application counts its own."""
    one, other = create_app(shipped), create_app(shipped)
    embed(one, {"input": "a"})

    found = _figures(ask(other, "GET", "/metrics").body.decode())

    assert 0 == found["te_request_texts_count"]

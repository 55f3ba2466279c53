"""What Prometheus sees."""

from __future__ import annotations

import re

import pytest
from starlette.types import ASGIApp
from support.asgi import ask, embed

from ov_minilm import Embedder
from ov_minilm.serve import Settings, create_app


def _figures(app: ASGIApp) -> dict[str, float]:
    text = ask(app, "GET", "/metrics").body.decode()
    return {name: float(value) for name, value in re.findall(r"^([^#\s]\S*) (\S+)$", text, re.MULTILINE)}


@pytest.mark.filterwarnings("ignore::ov_minilm.TruncationWarning")
def test_figures_tell_what_happened(shipped: Embedder) -> None:
    """Requests, errors by reason, tokens, texts, seconds and the queue, under the names of TEI.

    Unknown URLs make no labels, or a client could fill the memory; a second application counts its own.
    """
    app, other = (create_app(shipped, Settings(max_client_batch_size=2, warm_up=False)) for _ in range(2))
    for body in ({"input": ["a", "b"]}, {"input": ["word " * 300]}, {"input": ["a", "b", "c"]}, b"{"):
        embed(app, body)
    for number in range(50):
        ask(app, "POST", f"/v1/{number}")

    found, others = _figures(app), _figures(other)

    expected = {
        'te_request_count_total{method="/v1/embeddings"}': 4,
        'te_request_success_total{method="/v1/embeddings"}': 2,
        'te_request_failure_total{err="validation"}': 2,
        "te_request_texts_sum": 3,
        "te_request_input_length_sum": 3 + 3 + 256,
        "te_truncated_total": 1,
        "te_request_duration_count": 4,
        "te_embed_tokenization_duration_count": 2,
        "te_embed_inference_duration_count": 2,
        "te_embed_queue_duration_count": 2,
        **dict.fromkeys(("te_queue_size", "te_queue_tokens", "te_batch_running"), 0),
    }
    assert expected == {name: found[name] for name in expected}
    assert 3 <= found["te_batch_texts_total"]
    assert 3 + 3 + 256 <= found["te_batch_tokens_total"] <= found["te_batch_cells_total"]
    assert min(found["te_embed_inference_duration_sum"], found["te_embed_queue_duration_sum"]) > 0
    assert not any("/v1/1" in name for name in found)
    assert 0 == others["te_request_texts_count"]

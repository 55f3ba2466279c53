"""What Prometheus sees."""

from __future__ import annotations

import re

import pytest
from starlette.types import ASGIApp
from support.asgi import ask, embed, post

from ov_minilm import Embedder
from ov_minilm.serve import Settings, create_app

EMBEDDINGS = '{method="/v1/embeddings"}'


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
    ask(app, "POST", "/v1/1")
    ask(app, "GET", "/")
    post(app, "/embed", {"inputs": {}})  # 422 there, 400 in OpenAI's API

    _figures(app)  # counts are those since the start, however often they are read
    found, tokens = _figures(app), 3 + 3 + 256

    expected = {f"te_request_count_total{EMBEDDINGS}": 4, f"te_request_success_total{EMBEDDINGS}": 2}
    expected |= {'te_request_failure_total{err="validation"}': 3, "te_request_duration_count": 5}
    expected |= {"te_request_texts_sum": 3, "te_request_input_length_sum": tokens, "te_truncated_total": 1}
    expected |= {f"te_embed_{phase}_duration_count": 2 for phase in ("tokenization", "inference", "queue")}
    expected |= dict.fromkeys(("te_queue_size", "te_queue_tokens", "te_batch_running"), 0)
    assert expected == {name: found[name] for name in expected}
    assert 3 <= found["te_batch_texts_total"]
    assert tokens <= found["te_batch_tokens_total"] <= found["te_batch_cells_total"]
    assert min(found["te_embed_inference_duration_sum"], found["te_embed_queue_duration_sum"]) > 0
    assert not any("/v1/1" in name or '"/"' in name for name in found)
    assert 0 == _figures(other)["te_request_texts_count"]

"""The metrics that Prometheus reads."""

import re

import pytest
from starlette.types import ASGIApp
from support.asgi import ask, post

from ov_minilm import Embedder
from ov_minilm.serve import Settings, create_app

V1 = "/v1/embeddings"


def read_metrics(app: ASGIApp) -> dict[str, float]:
    """Return {name with labels: value}."""
    actual = re.findall(r"^([^#\s]\S*) (\S+)$", ask(app, "GET", "/metrics").body.decode(), re.MULTILINE)
    return {name: float(value) for name, value in actual}


@pytest.mark.filterwarnings("ignore::ov_minilm.TruncationWarning")
def test_metrics_count_requests(shipped: Embedder) -> None:
    """The names are those of TEI: requests, errors by reason, texts, tokens, seconds and the queue.

    Unknown URLs get no label, because clients could fill the memory; a second application has its own counts.
    """
    app, other = (create_app(shipped, Settings(max_client_batch_size=2, warm_up=False)) for _ in range(2))
    for body in ({"input": ["a", "b"]}, {"input": ["word " * 300]}, {"input": ["a", "b", "c"]}, b"{"):
        post(app, V1, body)
    ask(app, "POST", "/v1/1")
    ask(app, "GET", "/")
    post(app, "/embed", {"inputs": {}})  # status 422 in TEI's API, 400 in OpenAI's

    read_metrics(app)  # an earlier read does not reset the counts
    actual, tokens = read_metrics(app), 3 + 3 + 256

    expected = {f'te_request_{kind}_total{{method="{V1}"}}': n for kind, n in (("count", 4), ("success", 2))}
    expected |= {'te_request_failure_total{err="validation"}': 3, "te_request_duration_count": 5}
    expected |= {"te_request_texts_sum": 3, "te_request_input_length_sum": tokens, "te_truncated_total": 1}
    expected |= {f"te_embed_{phase}_duration_count": 2 for phase in ("tokenization", "inference", "queue")}
    expected |= dict.fromkeys(("te_queue_size", "te_queue_tokens", "te_batch_running"), 0)
    assert expected == {name: actual[name] for name in expected}
    assert 3 <= actual["te_batch_texts_total"]
    assert tokens <= actual["te_batch_tokens_total"] <= actual["te_batch_cells_total"]
    assert min(actual["te_embed_inference_duration_sum"], actual["te_embed_queue_duration_sum"]) > 0
    assert not any("/v1/1" in name or '"/"' in name for name in actual)
    assert 0 == read_metrics(other)["te_request_texts_count"]

"""The OpenAI-compatible embeddings server: `create_app` for any ASGI server, `ov-minilm serve` for ours."""

from ov_minilm.serve.app import create_app
from ov_minilm.serve.settings import Settings

__all__ = ["Settings", "create_app"]

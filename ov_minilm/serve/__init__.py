"""The embeddings server: `create_app` gives an ASGI application, `ov-minilm serve` runs it."""

from ov_minilm.serve.app import create_app
from ov_minilm.serve.settings import Settings

__all__ = ["Settings", "create_app"]

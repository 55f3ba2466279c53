"""What clients need: a key, and OpenAI's vocabulary."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

KEY = "a-key"


def ranks() -> Path:
    """Return the folder with cl100k's ranks that litellm brings, as tiktoken keeps them."""
    litellm = find_spec("litellm")
    if litellm is None or litellm.origin is None:
        pytest.skip("litellm is not installed: pip install -e '.[clients]'")
    return Path(litellm.origin).parent / "litellm_core_utils/tokenizers"

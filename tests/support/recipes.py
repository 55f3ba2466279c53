"""The recipes in docs/scaling.md."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs/scaling.md"


def recipe(name: str) -> str:
    """Return the block of code that a test is named beside."""
    page = PAGE.read_text(encoding="utf-8")
    found = re.search(rf"<!-- tests/bulk/{name}\.py runs this -->\n```python\n(.*?)```", page, re.DOTALL)
    assert found is not None
    return found.group(1)

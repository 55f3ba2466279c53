"""One line for each request, plain or as JSON. It holds no text, no key and no query string."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import msgspec
from starlette.types import Scope

from ov_minilm.serve.settings import AccessLog as Form

log = logging.getLogger("ov_minilm.access")


@dataclass(slots=True)
class Outcome:
    """What a request turned out to be."""

    texts: int = 0
    tokens: int = 0
    truncated: int = 0
    phases: dict[str, tuple[float, float]] = field(default_factory=dict)  # begin and end, perf_counter


class AccessLog:
    """Writes the lines."""

    def __init__(self, form: Form) -> None:
        self._form = form

    def write(self, scope: Scope, status: int, seconds: float, request_id: str, outcome: Outcome) -> None:
        """Log a request: 499 is a client that left before its answer."""
        if self._form == "off" or not log.isEnabledFor(logging.INFO):
            return
        client = scope["client"][0] if scope.get("client") else "-"
        path, name, ms = scope["path"], request_id, round(1000 * seconds, 2)
        if self._form == "plain":
            log.info(
                "%s %s %r %d %.2f ms, %d texts, %d tokens, %d truncated, %s",
                client,
                scope["method"],
                path,
                status,
                ms,
                outcome.texts,
                outcome.tokens,
                outcome.truncated,
                name,
            )
            return
        line = {
            "client": client,
            "method": scope["method"],
            "path": path,
            "status": status,
            "ms": ms,
            "texts": outcome.texts,
            "tokens": outcome.tokens,
            "truncated": outcome.truncated,
            "request_id": name,
        }
        log.info("%s", msgspec.json.encode(line).decode())

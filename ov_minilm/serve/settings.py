"""What an operator decides about a server, as one frozen value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Truncate = Literal["end", "error", "mean"]
TokenIds = Literal["auto", "native", "cl100k", "reject"]
AccessLog = Literal["plain", "json", "off"]


@dataclass(frozen=True, slots=True)
class Settings:
    """Defaults suit a server for one team on one machine.

    Names and meanings that text-embeddings-inference has too are its own.
    """

    served_model_names: tuple[str, ...] = ()  # the first is what answers say; none: the model's own names
    strict_model: bool = False  # refuse other model names instead of serving them
    truncate: Truncate = "end"  # of texts over the model's length, where a request does not say
    token_ids: TokenIds = "auto"  # noqa: S105  # no password
    api_keys: tuple[str, ...] = ()  # none: everybody may ask
    protect_health: bool = False  # ask for the key on /health, /livez and /readyz too
    cors_origins: tuple[str, ...] = ()
    max_client_batch_size: int = 2048  # texts a request: OpenAI's limit
    max_concurrent_requests: int = 512  # waiting and running; one more is a 429
    max_queue_seconds: float = 1.0  # with so much work waiting, one more is a 429; see limits.QueueBudget
    payload_limit: int = 10_000_000  # bytes of a body; 2,048 texts of 4 kB fit
    access_log: AccessLog = "plain"
    otlp_endpoint: str = ""  # where traces go, if anywhere: http://127.0.0.1:4318
    warm_up: bool = True  # compile everything before the first request: none waits for it

    def __post_init__(self) -> None:
        for name, kind in (("truncate", Truncate), ("token_ids", TokenIds), ("access_log", AccessLog)):
            if (value := getattr(self, name)) not in get_args(kind):
                raise ValueError(f"{name}={value!r}; choose one of {', '.join(get_args(kind))}")
        if any(not key or not key.isascii() or key != key.strip() for key in self.api_keys):
            raise ValueError("an API key is empty, not ASCII, or has blanks around it")

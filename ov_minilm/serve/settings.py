"""The settings of a server, as one frozen value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Truncate = Literal["end", "error", "mean"]
TokenIds = Literal["auto", "native", "cl100k", "reject"]
AccessLog = Literal["plain", "json", "off"]


@dataclass(frozen=True, slots=True)
class Settings:
    """The defaults suit a server for one team on one machine.

    A setting with the name of one of text-embeddings-inference has the same meaning.
    """

    # names of the model; responses have the first one; empty: the model's own names
    served_model_names: tuple[str, ...] = ()
    strict_model: bool = False  # refuse other model names with 404
    truncate: Truncate = "end"  # how texts over the limit are read, unless the request says it
    token_ids: TokenIds = "auto"  # noqa: S105  # vocabulary of token ids that are sent instead of texts
    api_keys: tuple[str, ...] = ()  # empty: no key is needed
    protect_health: bool = False  # require the key for /health, /livez and /readyz too
    cors_origins: tuple[str, ...] = ()  # web sites whose pages may send requests
    max_client_batch_size: int = 2048  # maximum number of texts in a request; 2,048 is OpenAI's limit
    max_concurrent_requests: int = 512  # maximum number of requests in progress; further ones get 429
    max_queue_seconds: float = 1.0  # maximum seconds of work in the queue; see limits.QueueBudget
    payload_limit: int = 10_000_000  # maximum bytes of a body; 2,048 texts of 4 kB fit
    access_log: AccessLog = "plain"
    otlp_endpoint: str = ""  # URL that receives traces, for example http://127.0.0.1:4318; empty: no traces
    warm_up: bool = True  # compile the model for all input shapes before the first request

    def __post_init__(self) -> None:
        for name, kind in (("truncate", Truncate), ("token_ids", TokenIds), ("access_log", AccessLog)):
            if (value := getattr(self, name)) not in get_args(kind):
                raise ValueError(f"{name}={value!r}; choose one of {', '.join(get_args(kind))}")
        if any(not key or not key.isascii() or key != key.strip() for key in self.api_keys):
            raise ValueError("an API key is empty, not ASCII, or begins or ends with a space")

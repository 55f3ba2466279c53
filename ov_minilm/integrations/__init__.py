"""Adapters for other libraries, one file for each; importing one imports only its library.

An adapter has plain values only, because frameworks copy, pickle and store their components. The Embedder
behind it is opened once in each process for each artefact, device and number of threads.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, NoReturn, cast

from ov_minilm.artefact.location import find_model
from ov_minilm.runtime.embedder import Embedder
from ov_minilm.runtime.texts import check_text, iterate
from ov_minilm.runtime.tokens import Truncate
from ov_minilm.spec import FloatArray

if TYPE_CHECKING:
    from typing_extensions import Self

# Names of prompts, in the order in which sentence-transformers looks for them.
QUERY = ("query",)
DOCUMENT = ("document", "passage", "corpus")

ARGUMENT_HINTS = {  # keyword argument of another library -> what to write instead
    **dict.fromkeys(("model_name", "model_name_or_path", "model_path", "model_id"), "write model="),
    **dict.fromkeys(
        ("model_kwargs", "providers", "cuda", "device_ids", "preferred_providers"), "write device="
    ),
    **dict.fromkeys(("max_length", "max_seq_length"), "write truncate="),
    **dict.fromkeys(("pool", "chunk_size", "backend", "num_proc", "n_jobs"), "write threads="),
    **dict.fromkeys(
        ("cache_folder", "cache_dir", "revision", "token", "use_auth_token"), "nothing is fetched"
    ),
    **dict.fromkeys(("local_files_only", "trust_remote_code", "lazy_load"), "nothing is fetched"),
    **dict.fromkeys(("normalize", "normalize_embeddings", "encode_kwargs"), "vectors have length one"),
    **dict.fromkeys(
        ("prompts", "prefix", "query_instruction", "text_instruction"), "write it before the texts"
    ),
}

METHOD_HINTS = {  # method or attribute of another library -> what to write instead
    **dict.fromkeys(("start_multi_process_pool", "encode_multi_process"), "encode uses threads= CPUs"),
    **dict.fromkeys(("to", "cpu", "cuda", "half", "eval", "stop_multi_process_pool"), "leave it out"),
    **dict.fromkeys(("tokenize", "tokenizer", "token_count"), "write embedder.tokenize or .count_tokens"),
    **dict.fromkeys(("fit", "save", "save_pretrained", "push_to_hub"), "train and save with the library"),
}

_opening = threading.Lock()
_open = cache(Embedder.open)


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Add the extra to install to an ImportError within this context."""
    try:
        yield
    except ImportError as error:
        raise ImportError(f"{error}; pip install 'ov-minilm[{name}]'", name=error.name) from error


def refuse(start: str, given: Iterable[str]) -> None:
    """Raise TypeError for the first keyword argument, if any: `start`, its name, what to write instead."""
    for name in given:
        hint = ARGUMENT_HINTS.get(name, "")
        raise TypeError(f"{start} {name}" + (f": {hint}" if hint else ""))


def missing(self: object, name: str) -> NoReturn:
    """Raise AttributeError; if the other library has this name, the message says what to write instead."""
    hint = METHOD_HINTS.get(name, "")
    raise AttributeError(f"{type(self).__name__} has no {name}" + (f": {hint}" if hint else ""))


def with_prompt(prompt: str, texts: Iterable[str]) -> Iterable[str]:
    """Return the texts with the prompt before each. TypeError: `texts` is a str, or contains no texts."""
    items = iterate(texts)
    return (prompt + check_text(text, index) for index, text in enumerate(items)) if prompt else items


@dataclass(eq=False)
class Adapter:
    """The base of all adapters. The constructor raises for a wrong folder, device or option.

    Args:
        model: a folder written by `ov-minilm convert`; None or "all-MiniLM-L6-v2": the one in the package.
        device: an OpenVINO device string in upper or lower case; None: CPU.
        threads: CPU threads for inference; None: the CPUs that this process may use.
        truncate: for texts over 256 tokens; see Embedder.encode.
    """

    model: str | None = None
    device: str | None = "CPU"
    threads: int | None = None
    truncate: Truncate = "end"

    def __new__(cls, *_: object, **given: object) -> Self:
        """Raise TypeError for an unknown keyword argument; the message says what to write instead."""
        takes = (getattr(cls, "__signature__", None) or inspect.signature(cls.__init__)).parameters
        names = ", ".join(name for name in takes if name != "self")
        refuse(f"{cls.__name__} takes {names}; not", (name for name in given if name not in takes))
        return super().__new__(cls)

    def __post_init__(self, model: str | None = None) -> None:  # noqa: RUF033  # most subclasses have no InitVar
        """Open the model; `model` is the value of the argument that the other library uses for it."""
        self.model = self.model or model
        self.embedder.encode([], truncate=self.truncate)

    @property
    def embedder(self) -> Embedder:
        """The process's Embedder for these values, kept until the process ends."""
        with _opening:
            device = str(self.device or "CPU").upper()  # str() also converts a torch.device
            return _open(find_model(self.model), device=device, threads=self.threads)

    @property
    def prompts(self) -> dict[str, str]:
        """The artefact's prompts, by kind of text. A prompt is put before a text.

        All-MiniLM-L6-v2 has no prompts.
        """
        return {"query": "", "document": ""} | self.embedder.spec.prompts

    def _prompted(self, texts: Iterable[str], names: Sequence[str]) -> Iterable[str]:
        """Return the texts with a prompt: that of the first name in `names` that the artefact has."""
        return with_prompt(next((self.prompts[name] for name in names if self.prompts.get(name)), ""), texts)

    def _vectors(self, texts: Iterable[str], names: Sequence[str]) -> FloatArray:
        """Return the vectors (N, D) float32 of texts with their prompt."""
        texts = self._prompted(texts, names)
        return cast(FloatArray, self.embedder.encode(texts, progress=False, truncate=self.truncate))

    def _lists(self, texts: Iterable[str], names: Sequence[str]) -> list[list[float]]:
        """Return the vectors as lists of Python floats, equal to the float32 values."""
        return cast("list[list[float]]", self._vectors(texts, names).tolist())

    async def _alists(self, texts: Iterable[str], names: Sequence[str]) -> list[list[float]]:
        """Do the same as `_lists` without blocking the event loop; concurrent calls share batches."""
        vectors = await self.embedder.aencode(self._prompted(texts, names), truncate=self.truncate)
        return cast("list[list[float]]", vectors.tolist())

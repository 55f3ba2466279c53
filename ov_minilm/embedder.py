"""The main path: texts -> token ids -> packed batches -> vectors -> the caller's order."""

from __future__ import annotations

import os
import platform
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, overload

import numpy as np

from ov_minilm import __version__, cpus
from ov_minilm.engine import Engine
from ov_minilm.errors import ForkedProcess, TextTooLong, TruncationWarning
from ov_minilm.manifest import TOKENIZER, Manifest
from ov_minilm.packing import Batch, pack, pack_apart
from ov_minilm.progress import Progress, report
from ov_minilm.spec import FloatArray, IntArray
from ov_minilm.tokens import Tokens, check_texts

Truncate = Literal["end", "error", "mean"]

SHIPPED = Path(__file__).parent / "model"
WINDOW = 512  # texts tokenized at a time, while the batches before them run
BLOCKS = (64, 8192)  # encode_iter starts with small blocks to answer soon and doubles them to pack well


@dataclass(frozen=True, slots=True)
class Info:
    """What an Embedder runs. Two that agree in all but threads and grids give the same bits."""

    model: str
    weights: str
    fingerprint: str
    device: str
    precision: str
    long_precision: str  # of texts over 128 tokens
    lowering: str
    kernel: str  # of INT8 linear layers; AMX and AVX2 kernels round differently around the same sums
    threads: int
    grids: tuple[str, ...]
    versions: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return asdict(self)


class Embedder:
    """Encodes texts with one artefact on one device. Threads may share it; a fork may not.

    The same text gives the same bits alone, in any batch and in any order, for one artefact, precision,
    lowering and kind of CPU.
    """

    def __init__(self, manifest: Manifest, tokens: Tokens, engine: Engine) -> None:
        self._manifest = manifest
        self._tokens = tokens
        self._engine = engine
        self._plan = engine.plan
        self._spec = manifest.spec
        self._lock = threading.RLock()  # a progress callback may encode too
        self._pid = os.getpid()
        self._closed = False
        self._warned = False
        self.truncated = 0  # texts cut at their end so far

    @classmethod
    def open(
        cls,
        model: str | os.PathLike[str] | None = None,
        *,
        device: str = "CPU",
        precision: Literal["auto", "f32", "bf16", "f16"] = "auto",
        lowering: Literal["auto", "native", "conv"] = "auto",
        threads: int | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
    ) -> Embedder:
        """Open an artefact: what is wrong with the folder, the device or an option is said here.

        On a CPU grids are compiled by the first text that needs them; elsewhere the smallest one is here.

        Args:
            model: a folder written by `ov-minilm convert`; None is the INT8 artefact in the package.
            device: any OpenVINO device string: CPU, GPU, GPU.0, NPU, AUTO:GPU,CPU.
            precision: what the layers that are not INT8 run in. "auto" is f32, or bf16 for an INT8
                artefact where the CPU has it natively and its measured drift passed the gate: with AMX for
                texts over 128 tokens, which have rows of their own, else for all.
            lowering: how INT8 linear layers run on a CPU; "auto" asks OpenVINO which kernel it would use.
            threads: for inference; None is what the affinity mask and the cgroup quota really grant. The
                tokenizer uses rayon's own threads beside them (RAYON_NUM_THREADS bounds those).
            cache_dir: where compiled models are kept between processes; None keeps none. OpenVINO
                notices a truncated entry, but not one whose bytes were changed: keep the folder private.

        Raises:
            ArtefactError: the folder is not a complete, unchanged artefact.
            DeviceUnavailable: this machine has no such device.
            PrecisionUnavailable: the device cannot run that precision reproducibly.
            ValueError: an option has a value that does not exist.
        """
        check_choice("precision", precision, ("auto", "f32", "bf16", "f16"))
        check_choice("lowering", lowering, ("auto", "native", "conv"))
        if threads is not None and threads < 1:
            raise ValueError(f"threads={threads}; at least 1, or None for what this process is granted")
        folder = SHIPPED if model is None else Path(model)
        manifest = Manifest.read(folder)
        engine = Engine.open(
            folder,
            manifest,
            device=device,
            precision=precision,
            lowering=lowering,
            threads=threads or cpus.granted(),
            cache_dir=None if cache_dir is None else Path(cache_dir),
        )
        return cls(manifest, Tokens.open(folder / TOKENIZER, manifest.spec), engine)

    def encode(
        self, texts: str | Iterable[str], *, progress: Progress = None, truncate: Truncate = "end"
    ) -> FloatArray:
        """Return unit vectors, float32: (384,) for a str, (N, 384) for N texts, in their order.

        Args:
            texts: a str or any iterable of str. Lone surrogates count as U+FFFD; empty text is legal.
            progress: None shows a bar on a terminal when it takes long; True or False; or a function
                called with (done, total).
            truncate: what to do with a text of more than 256 tokens. "end" cuts it, warns once and
                counts; "error" refuses it; "mean" averages the vectors of its windows of 254 word pieces,
                weighted by their tokens.

        Raises:
            TypeError: something is not a str; its index is named.
            TextTooLong: with truncate="error".
            ForkedProcess: this process is a fork of the one that opened the Embedder.
        """
        check_choice("truncate", truncate, ("end", "error", "mean"))
        items = [texts] if isinstance(texts, str) else check_texts(texts)
        vectors = self._encode_items(items, 0, progress, truncate)
        return vectors[0] if isinstance(texts, str) else vectors

    def encode_iter(self, texts: Iterable[str], *, truncate: Truncate = "end") -> Iterator[FloatArray]:
        """Yield the vectors of any stream of texts, endless ones too, in order and in blocks (n, 384).

        Blocks grow from 64 to 8,192 texts; memory stays bounded by one block. Errors name a text by its
        number in the whole stream.
        """
        check_choice("truncate", truncate, ("end", "error", "mean"))
        if isinstance(texts, str) or not isinstance(texts, Iterable):
            raise TypeError("encode_iter takes an iterable of str; encode takes a single str")
        return self._blocks(iter(texts), truncate)

    def _blocks(self, texts: Iterator[str], truncate: Truncate) -> Iterator[FloatArray]:
        size, most = BLOCKS
        start = 0
        while block := check_texts(islice(texts, size), start):
            yield self._encode_items(block, start, progress=False, truncate=truncate)
            start, size = start + len(block), min(2 * size, most)

    @overload
    def count_tokens(self, texts: str) -> int: ...  # type: ignore[overload-overlap]  # str is iterable too

    @overload
    def count_tokens(self, texts: Iterable[str]) -> list[int]: ...

    def count_tokens(self, texts: str | Iterable[str]) -> int | list[int]:
        """Count tokens, [CLS] and [SEP] included, before any cut: an int for a str, else a list."""
        self._check_usable()
        items = [texts] if isinstance(texts, str) else check_texts(texts)
        counts: list[int] = []
        for start in range(0, len(items), WINDOW):
            first, further = self._tokens.encode(items[start : start + WINDOW])
            counts += [self._tokens.total(ids, further.get(i, ())) for i, ids in enumerate(first)]
        return counts[0] if isinstance(texts, str) else counts

    def similarity(self, a: FloatArray, b: FloatArray) -> FloatArray:
        """Return the cosines (N, M) of unit vectors a (N, 384) and b (M, 384); a lone (384,) is one row."""
        left, right = np.atleast_2d(a), np.atleast_2d(b)
        if left.shape[1] != right.shape[1]:
            raise ValueError(f"vectors of {left.shape[1]} and {right.shape[1]} components")
        cosines: FloatArray = left @ right.T
        return cosines

    @property
    def prompts(self) -> dict[str, str]:
        """What the model was trained to see before a text, by kind of text; the caller puts it there."""
        return dict(self._spec.prompts)

    @property
    def info(self) -> Info:
        """What runs here and how."""
        plan = self._plan
        return Info(
            model=self._spec.name,
            weights=self._manifest.weights,
            fingerprint=self._manifest.fingerprint,
            device=plan.device,
            precision=plan.precision,
            long_precision=plan.long,
            lowering=plan.lowering,
            kernel=plan.kernel,
            threads=plan.threads,
            grids=tuple(str(grid) for grid in self._manifest.grids),
            versions={"ov-minilm": __version__}
            | {name: version(name) for name in ("openvino", "tokenizers", "numpy")}
            | {"python": platform.python_version()},
        )

    def close(self) -> None:
        """Free the compiled models. Using the Embedder afterwards is an error."""
        if os.getpid() != self._pid:  # a fork: nothing here can be freed, and the lock may never be
            return
        with self._lock:
            if not self._closed:
                self._closed = True
                del self._engine

    def __enter__(self) -> Embedder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _encode_items(
        self, items: list[str], start: int, progress: Progress, truncate: Truncate
    ) -> FloatArray:  # -> [N, D]
        """Encode texts of which the first is number `start` of what the caller gave."""
        self._check_usable()  # before the lock: in a fork, a thread that is gone may hold it
        with self._lock:
            self._check_usable()  # another thread may have closed it meanwhile
            if truncate == "mean":
                return self._encode_windows(items, progress)
            return self._run(self._first_windows(items, start, truncate), len(items), progress)

    def _first_windows(
        self, texts: Sequence[str], start: int, truncate: Truncate
    ) -> Iterator[list[IntArray]]:
        """Tokenize a few hundred texts at a time, each cut to its first window."""
        for done in range(0, len(texts), WINDOW):
            first, further = self._tokens.encode(texts[done : done + WINDOW])
            if further:
                self._account(first, further, start + done, truncate)
            yield first

    def _encode_windows(self, texts: Sequence[str], progress: Progress) -> FloatArray:
        """Encode every window of every text and average those of one text, in their order."""
        first, further = self._tokens.encode(texts)
        windows = [[ids, *further.get(i, ())] for i, ids in enumerate(first)]
        flat = [ids for text in windows for ids in text]
        vectors = self._run(iter([flat]), len(flat), progress)
        starts = np.cumsum([0] + [len(text) for text in windows])
        out: FloatArray = vectors[starts[:-1]]
        for i in further:
            weights = np.array([len(ids) - self._tokens.special for ids in windows[i]], np.float32)
            mean = weights @ vectors[starts[i] : starts[i + 1]]
            out[i] = mean / np.linalg.norm(mean)
        return out

    def _run(self, windows: Iterator[list[IntArray]], count: int, progress: Progress) -> FloatArray:
        out = np.empty((count, self._spec.dim), np.float32)
        with report(count, progress) as advance:
            for batch, vectors in self._engine.stream(self._batches(windows, count)):
                used = batch.owner >= 0
                out[batch.owner[used]] = vectors[used]
                advance(int(np.count_nonzero(used)))
        return out

    def _batches(self, windows: Iterator[list[IntArray]], count: int) -> Iterator[Batch]:
        """Pack what is tokenized so far; texts that fill no whole batch wait for the next window."""
        ids: list[IntArray] = []
        names: list[int] = []
        seen = 0
        form = pack_apart if self._plan.apart else pack
        for window in windows:
            ids += window
            names += range(seen, seen + len(window))
            seen += len(window)
            batches, left = form(ids, names, self._manifest.grids, last=seen == count, align=self._plan.align)
            ids, names = [ids[i] for i in left], [names[i] for i in left]
            yield from batches

    def _account(
        self,
        first: Sequence[IntArray],
        further: dict[int, list[IntArray]],
        start: int,
        truncate: Truncate,
    ) -> None:
        """Refuse, or count and warn once, about texts that lose their ends."""
        index = min(further)
        tokens = self._tokens.total(first[index], further[index])
        if truncate == "error":
            raise TextTooLong(start + index, tokens, self._spec.max_tokens)
        if not self._warned:
            warnings.warn(
                f"text {start + index} has {tokens} tokens, the model reads {self._spec.max_tokens}: "
                'its end is cut. truncate="mean" averages windows, "error" refuses. Said once; '
                "Embedder.truncated counts on",
                TruncationWarning,
                stacklevel=2,
            )
            self._warned = True
        self.truncated += len(further)

    def _check_usable(self) -> None:
        if self._closed:
            raise ValueError("this Embedder is closed")
        if os.getpid() != self._pid:
            raise ForkedProcess(self._pid, os.getpid())


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Refuse an option value that does not exist, listing those that do."""
    if value not in choices:
        raise ValueError(f"{name}={value!r}; choose one of {', '.join(choices)}")


_shared: Embedder | None = None
_opening = threading.Lock()


def encode(
    texts: str | Iterable[str], *, progress: Progress = None, truncate: Truncate = "end"
) -> FloatArray:
    """Encode with the model in the package, opened at the first call and kept. See Embedder.encode."""
    global _shared
    with _opening:
        if _shared is None:
            _shared = Embedder.open()
    return _shared.encode(texts, progress=progress, truncate=truncate)

"""The main path: texts -> token ids -> packed batches -> vectors -> the caller's order."""

from __future__ import annotations

import os
import platform
import threading
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from ov_minilm._version import __version__
from ov_minilm.artefact.golden import LEAST_COSINE
from ov_minilm.artefact.manifest import SHIPPED, TOKENIZER, Manifest
from ov_minilm.errors import ForkedProcess, SelfCheckFailed, TextTooLong, TruncationWarning
from ov_minilm.runtime import cpus
from ov_minilm.runtime.engine import Engine
from ov_minilm.runtime.output import Dtype, Vectors, formed
from ov_minilm.runtime.progress import Progress, report
from ov_minilm.runtime.scheduler import Job, Scheduler, Stats
from ov_minilm.runtime.tokens import Tokenized, Tokens, check_texts
from ov_minilm.spec import FloatArray, IntArray, ModelSpec

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import Future

Truncate = Literal["end", "error", "mean"]

WINDOW = 512  # texts tokenized at a time, while the batches before them run
TURN = 16_384  # tokens of texts that are tokenized already, until other calls have their turn: some 0.5 s
BLOCKS = (64, 8192)  # encode_iter starts with small blocks to answer soon and doubles them to pack well


@dataclass(frozen=True, slots=True)
class Info:
    """What an Embedder runs. Two that agree in all but threads and grids give the same bits."""

    model: str
    weights: str
    fingerprint: str
    device: str
    precision: str
    long_precision: str  # of texts over 64 tokens
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
        self._scheduler = Scheduler(engine)
        self._counting = threading.Lock()
        self._pid = os.getpid()
        self._closed = False
        self._warned = False
        self.truncated = 0  # texts cut at their end so far
        weakref.finalize(self, _end, self._scheduler, self._pid)  # its threads would keep it alive

    @classmethod
    def open(
        cls,
        model: str | os.PathLike[str] | None = None,
        *,
        device: str = "CPU",
        precision: Literal["auto", "f32", "bf16", "f16"] = "auto",
        lowering: Literal["auto", "native", "conv"] = "auto",
        threads: int | None = None,
        max_batch_tokens: int | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
    ) -> Embedder:
        """Open an artefact: what is wrong with the folder, the device or an option is said here.

        On a CPU grids are compiled by the first text that needs them; elsewhere the smallest one is here.

        Args:
            model: a folder written by `ov-minilm convert`; None is the INT8 artefact in the package.
            device: any OpenVINO device string: CPU, GPU, GPU.0, NPU, AUTO:GPU,CPU.
            precision: what the layers that are not INT8 run in. "auto" is f32, or bf16 for an INT8
                artefact where the CPU has it natively and its measured drift passed the gate: with AMX for
                texts over 64 tokens, which have rows of their own, else for all.
            lowering: how INT8 linear layers run on a CPU; "auto" asks OpenVINO which kernel it would use.
            threads: for inference; None is OV_MINILM_THREADS, or what the affinity mask and the cgroup
                quota really grant. The tokenizer uses rayon's own threads beside them
                (RAYON_NUM_THREADS bounds those).
            max_batch_tokens: tokens that run together, padding included: larger grids are not used. None is
                512. With 256, the least, a small call waits less behind a long one, which runs slower, and
                the process is smaller.
            cache_dir: where compiled models are kept between processes, about 24 MB a grid; None keeps
                none. Whatever is wrong with the folder or a file in it is said once (CacheWarning), and
                the model is compiled without. Hashes find damage, not malice: keep the folder private.

        Raises:
            ArtefactError: the folder is not a complete, unchanged artefact.
            DeviceUnavailable: this machine has no such device.
            PrecisionUnavailable: the device cannot run that precision reproducibly.
            ValueError: an option has a value that does not exist, or the longest text fits no batch.
        """
        check_choice("precision", precision, ("auto", "f32", "bf16", "f16"))
        check_choice("lowering", lowering, ("auto", "native", "conv"))
        folder = SHIPPED if model is None else Path(model)
        manifest = Manifest.read(folder)
        engine = Engine.open(
            folder,
            manifest,
            device=device,
            precision=precision,
            lowering=lowering,
            threads=cpus.threads(threads),
            max_batch_tokens=max_batch_tokens,
            cache_dir=None if cache_dir is None else Path(cache_dir),
        )
        return cls(manifest, Tokens.open(folder / TOKENIZER, manifest.spec), engine)

    def encode(
        self,
        texts: str | Iterable[str],
        *,
        progress: Progress = None,
        truncate: Truncate = "end",
        dimensions: int | None = None,
        dtype: Dtype = "float32",
    ) -> Vectors:
        """Return unit vectors, float32: (384,) for a str, (N, 384) for N texts, in their order.

        Args:
            texts: a str or any iterable of str. Lone surrogates count as U+FFFD; empty text is legal.
            progress: None shows a bar on a terminal when it takes long; True or False; or a function
                called with (done, total).
            truncate: what to do with a text of more than 256 tokens. "end" cuts it, warns once and
                counts; "error" refuses it; "mean" averages the vectors of its windows of 254 word pieces,
                weighted by their tokens.
            dimensions: keep this many of the first components and make the length one again.
            dtype: float32, float16, int8, uint8, binary or ubinary, as sentence-transformers lays them
                out; int8 and uint8 in fixed ranges, so that a text has the same bits in any batch. See
                ov_minilm.runtime.output.

        Raises:
            TypeError: something is not a str; its index is named.
            TextTooLong: with truncate="error".
            ValueError: an option has a value that does not exist.
            ForkedProcess: this process is a fork of the one that opened the Embedder.
        """
        check_choice("truncate", truncate, ("end", "error", "mean"))
        self._check_form(dimensions, dtype)
        items = [texts] if isinstance(texts, str) else check_texts(texts)
        vectors = formed(self._encode_items(items, 0, progress, truncate), dimensions, dtype)
        return vectors[0] if isinstance(texts, str) else vectors

    def encode_iter(
        self,
        texts: Iterable[str],
        *,
        truncate: Truncate = "end",
        dimensions: int | None = None,
        dtype: Dtype = "float32",
    ) -> Iterator[Vectors]:
        """Yield the vectors of any stream of texts, endless ones too, in order and in blocks (n, 384).

        Blocks grow from 64 to 8,192 texts; memory stays bounded by one block. Errors name a text by its
        number in the whole stream.
        """
        check_choice("truncate", truncate, ("end", "error", "mean"))
        if isinstance(texts, str) or not isinstance(texts, Iterable):
            raise TypeError("encode_iter takes an iterable of str; encode takes a single str")
        self._check_form(dimensions, dtype)
        return (formed(block, dimensions, dtype) for block in self._blocks(iter(texts), truncate))

    def _blocks(self, texts: Iterator[str], truncate: Truncate) -> Iterator[FloatArray]:
        size, most = BLOCKS
        start = 0
        while block := check_texts(islice(texts, size), start):
            yield self._encode_items(block, start, progress=False, truncate=truncate)
            start, size = start + len(block), min(2 * size, most)

    async def aencode(
        self,
        texts: str | Iterable[str],
        *,
        truncate: Truncate = "end",
        dimensions: int | None = None,
        dtype: Dtype = "float32",
    ) -> Vectors:
        """Encode as `encode` does, for asyncio: other coroutines run meanwhile, and their texts beside these.

        A coroutine that is cancelled leaves the queue.
        """
        import asyncio  # whoever awaits this has it; others need not

        check_choice("truncate", truncate, ("end", "error", "mean"))
        self._check_form(dimensions, dtype)
        items = [texts] if isinstance(texts, str) else check_texts(texts)
        blocks = [np.empty((0, self._spec.dim), np.float32)]
        for start in range(0, len(items), BLOCKS[1]):
            block = items[start : start + BLOCKS[1]]
            tokenized = await asyncio.to_thread(self._tokenize, block, start, truncate)
            blocks.append(await self.asubmit(tokenized))
        vectors = formed(np.concatenate(blocks), dimensions, dtype)
        return vectors[0] if isinstance(texts, str) else vectors

    def tokenize(
        self, texts: str | Iterable[str] | Iterable[Sequence[int]], *, truncate: Truncate = "end"
    ) -> Tokenized:
        """Return what `submit` takes: the ids of every text, and which texts lost their ends.

        Args:
            texts: as for `encode`; or lists of ids of this model's vocabulary, to which [CLS] and [SEP] are
                added where they do not begin and end with them.
            truncate: as for `encode`, but nothing is warned of: the result says what was cut.

        Raises:
            TypeError, TextTooLong, ForkedProcess: as `encode` does.
            ValueError: an id is not in the vocabulary.
        """
        check_choice("truncate", truncate, ("end", "error", "mean"))
        self._check_usable()
        items: list[Any] = [texts] if isinstance(texts, str) else list(texts)
        if items and not isinstance(items[0], str):
            first, further = self._tokens.frame(items)
        else:
            first, further = self._tokens.encode(check_texts(items))
        if further and truncate != "mean":
            self._account(first, further, 0, truncate, warn=False)
        return _tokenized(first, further, truncate)

    def submit(
        self, tokenized: Tokenized, *, started: Callable[[], object] | None = None
    ) -> Future[FloatArray]:
        """Put texts into the queue and return at once; the result are their unit vectors (N, 384), float32.

        For servers: many calls that wait at the same time are packed together. Cancelling leaves the queue.
        `started` is called, from another thread, when the first text runs.
        """
        from concurrent.futures import Future, InvalidStateError  # imports logging, which `encode` need not

        future: Future[FloatArray] = Future()

        def settle(found: FloatArray | BaseException) -> None:
            with suppress(InvalidStateError):  # cancelled at this moment
                if isinstance(found, BaseException):
                    future.set_exception(found)
                else:
                    future.set_result(found)

        job = self._queue(tokenized, settle, started)
        future.add_done_callback(lambda _: job.give_up())
        return future

    def asubmit(
        self, tokenized: Tokenized, *, started: Callable[[], object] | None = None
    ) -> asyncio.Future[FloatArray]:
        """Do as `submit` does, for the event loop that runs here: the future is one of the loop's."""
        import asyncio  # whoever awaits this has it; others need not

        loop = asyncio.get_running_loop()
        future: asyncio.Future[FloatArray] = loop.create_future()

        def settle(found: FloatArray | BaseException) -> None:
            if future.done():  # cancelled
                return
            if isinstance(found, BaseException):
                future.set_exception(found)
            else:
                future.set_result(found)

        job = self._queue(tokenized, lambda found: loop.call_soon_threadsafe(settle, found), started)
        future.add_done_callback(lambda _: job.give_up())
        return future

    def _queue(
        self,
        tokenized: Tokenized,
        settle: Callable[[FloatArray | BaseException], object],
        started: Callable[[], object] | None,
    ) -> Job:
        """Put texts into the queue; `settle` is called with their vectors or an error, from another thread.

        Whoever waits ends the wait with the job's `give_up`: job and waiter hold each other until then, and
        after it nothing is called.
        """
        self._check_usable()
        flat = tokenized.flat
        out = np.empty((len(flat), self._spec.dim), np.float32)
        left = len(flat)

        def news(found: int | BaseException) -> None:
            nonlocal left
            if isinstance(found, BaseException):
                settle(found)
                return
            left -= found
            if not left:
                settle(self._join(tokenized, out))

        job = Job(_slices(flat), out, news, started)
        if flat:
            self._scheduler.submit(job)
        else:
            settle(out)
        return job

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
        if left.dtype.kind != "f" or right.dtype.kind != "f":  # numpy's integer products would overflow
            raise TypeError(f"similarity takes float vectors, not {left.dtype} and {right.dtype}")
        if left.shape[1] != right.shape[1]:
            raise ValueError(f"vectors of {left.shape[1]} and {right.shape[1]} components")
        cosines: FloatArray = left @ right.T
        return cosines

    @property
    def spec(self) -> ModelSpec:
        """The facts of the checkpoint: its name, components of a vector, tokens that it reads, prompts."""
        return self._spec

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

    def self_check(self) -> float:
        """Encode the artefact's golden text and return its cosine to the vector that it must have.

        Every grid that is compiled, or comes from the cache, is checked on its first use; this asks again,
        through tokenizer and packing, as a server does before it calls itself ready.

        Raises:
            SelfCheckFailed: the cosine is under 0.99, or not a number.
        """
        golden = self._manifest.golden
        cosine = golden.worst(self._encode_items([golden.text], 0, progress=False, truncate="error"))
        if not cosine >= LEAST_COSINE:
            raise SelfCheckFailed(self._plan.device, cosine, LEAST_COSINE)
        return cosine

    def warm_up(self) -> None:
        """Compile every grid, and keep them all: for a program in which no call may wait for a compiler.

        With two threads that takes 3 s, without `cache_dir`, and 360 MB in all. Else grids are compiled when
        texts have earned it, while others wait, and only so many are kept: less memory, and enough for lists.
        """
        self._check_usable()
        self._engine.warm_up()

    def check_grids(self) -> dict[str, float]:
        """Compile every grid, one after the other, and return the least cosine to the golden vector in each.

        Raises:
            SelfCheckFailed: the first grid under 0.99.
        """
        self._check_usable()
        return {str(grid): self._engine.check(grid) for grid in self._plan.grids}

    @property
    def stats(self) -> Stats:
        """What ran so far, and what waits now."""
        return self._scheduler.stats

    def close(self) -> None:
        """Finish the calls of other threads and free the compiled models. Later use is an error."""
        self._closed = True
        if os.getpid() == self._pid:  # in a fork nothing can be freed, and the locks may never be
            self._scheduler.close()
            self._engine.close()

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
        self._check_usable()
        if truncate == "mean":  # how many windows there are is known when all are tokenized
            tokenized = self._tokenize(items, start, truncate)
            flat = tokenized.flat
            return self._join(tokenized, self._run(_slices(flat), len(flat), progress))
        parts = (
            self._tokenize(items[done : done + WINDOW], start + done, truncate)
            for done in range(0, len(items), WINDOW)
        )
        windows = ([ids for (ids,) in part.windows] for part in parts)
        return self._run(windows, len(items), progress)

    def _run(self, windows: Iterator[list[IntArray]], count: int, progress: Progress) -> FloatArray:
        out = np.empty((count, self._spec.dim), np.float32)
        with report(count, progress) as advance:
            self._scheduler.run(windows, out, advance)
        return out

    def _tokenize(self, texts: Sequence[str], start: int, truncate: Truncate) -> Tokenized:
        """Return the ids of texts of which the first is number `start`; warn of those that are cut."""
        first, further = self._tokens.encode(texts)
        if further and truncate != "mean":
            self._account(first, further, start, truncate, warn=True)
        return _tokenized(first, further, truncate)

    def _join(self, tokenized: Tokenized, vectors: FloatArray) -> FloatArray:  # [windows, D] -> [N, D]
        """Average the windows of each text that has several, weighted by their word pieces."""
        if len(vectors) == len(tokenized.windows):
            return vectors
        starts = np.cumsum([0] + [len(windows) for windows in tokenized.windows])
        out: FloatArray = vectors[starts[:-1]]
        for i, windows in enumerate(tokenized.windows):
            if len(windows) > 1:
                weights = np.array([len(ids) - self._tokens.special for ids in windows], np.float32)
                mean = weights @ vectors[starts[i] : starts[i + 1]]
                out[i] = mean / np.linalg.norm(mean)
        return out

    def _account(
        self,
        first: Sequence[IntArray],
        further: dict[int, list[IntArray]],
        start: int,
        truncate: Truncate,
        *,
        warn: bool,
    ) -> None:
        """Refuse, or count and warn once, about texts that lose their ends."""
        index = min(further)
        tokens = self._tokens.total(first[index], further[index])
        if truncate == "error":
            raise TextTooLong(start + index, tokens, self._spec.max_tokens)
        with self._counting:
            self.truncated += len(further)
            warn, self._warned = warn and not self._warned, self._warned or warn
        if warn:
            warnings.warn(
                f"text {start + index} has {tokens} tokens, the model reads {self._spec.max_tokens}: "
                'its end is cut. truncate="mean" averages windows, "error" refuses. Said once; '
                "Embedder.truncated counts on",
                TruncationWarning,
                stacklevel=2,
            )

    def _check_form(self, dimensions: int | None, dtype: Dtype) -> None:
        """Refuse before the work what would be refused after it."""
        formed(np.empty((0, self._spec.dim), np.float32), dimensions, dtype)

    def _check_usable(self) -> None:
        if self._closed:
            raise ValueError("this Embedder is closed")
        if os.getpid() != self._pid:
            raise ForkedProcess(self._pid, os.getpid())


def _end(scheduler: Scheduler, pid: int) -> None:
    """Stop a scheduler that nobody can call any more; in a fork its threads are gone and its locks stuck."""
    if os.getpid() == pid:
        scheduler.close(drop=True)


def _tokenized(
    first: Sequence[IntArray], further: dict[int, list[IntArray]], truncate: Truncate
) -> Tokenized:
    if truncate == "mean":
        return Tokenized([[ids, *further.get(i, ())] for i, ids in enumerate(first)], [])
    return Tokenized([[ids] for ids in first], sorted(further))


def _slices(ids: list[IntArray]) -> Iterator[list[IntArray]]:
    """Cut texts into windows: turns in the queue, and what still runs of a call that is given up."""
    start = tokens = 0
    for end, text in enumerate(ids, 1):
        tokens += len(text)
        if end - start == WINDOW or tokens >= TURN or end == len(ids):
            yield ids[start:end]
            start, tokens = end, 0


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Refuse an option value that does not exist, listing those that do."""
    if value not in choices:
        raise ValueError(f"{name}={value!r}; choose one of {', '.join(choices)}")


_shared: Embedder | None = None
_opening = threading.Lock()


def encode(
    texts: str | Iterable[str],
    *,
    progress: Progress = None,
    truncate: Truncate = "end",
    dimensions: int | None = None,
    dtype: Dtype = "float32",
) -> Vectors:
    """Encode with the model in the package, opened at the first call and kept. See Embedder.encode."""
    global _shared
    with _opening:
        if _shared is None:
            _shared = Embedder.open()
    return _shared.encode(texts, progress=progress, truncate=truncate, dimensions=dimensions, dtype=dtype)

"""The main path: texts -> token ids -> packed batches -> vectors -> the caller's order."""

from __future__ import annotations

import os
import platform
import sys
import threading
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, overload

import numpy as np

from ov_minilm._version import __version__
from ov_minilm.artefact.golden import MIN_COSINE
from ov_minilm.artefact.location import find_model
from ov_minilm.artefact.manifest import TOKENIZER, Manifest
from ov_minilm.errors import ForkedProcess, SelfCheckFailed, TruncationWarning, check_choice, check_integers
from ov_minilm.runtime import cpus
from ov_minilm.runtime.engine import Engine
from ov_minilm.runtime.output import Dtype, Vectors, convert_vectors, similarity
from ov_minilm.runtime.plan import AskedLowering, AskedPrecision, Options, memory
from ov_minilm.runtime.progress import Progress, report
from ov_minilm.runtime.scheduler import SHORT_CALL_TEXTS, Call, Scheduler, Stats
from ov_minilm.runtime.texts import check_texts, iterate
from ov_minilm.runtime.tokens import PIECE_CHARS, Tokenized, Tokens, Truncate
from ov_minilm.runtime.vector_cache import VectorCache
from ov_minilm.spec import FloatArray, ModelSpec

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import Future

PACKAGE = Path(__file__).parent.parent
DEPENDENCIES = ("openvino", "tokenizers", "numpy")  # whose versions `info` tells
CHUNK_TEXTS = 512  # tokenized at a time, while the batches before them run
CHUNK_CHARS = 65_536  # the same, for longer texts: some 16,000 tokens, or half a second
CHUNKS_AHEAD = 2  # that are tokenized before the first of them is done: workers always find texts
FIRST_BLOCK_TEXTS, MAX_BLOCK_TEXTS = 64, 8192  # encode_iter answers soon, then packs well


@dataclass(frozen=True, slots=True)
class Info:
    """How an Embedder runs. Two that differ only in threads, grids and memory give the same bits."""

    model: str
    weights: str
    fingerprint: str
    device: str
    precision: str  # of layers that are not INT8, for texts of up to 64 tokens
    long_precision: str  # the same, for longer texts
    lowering: str
    kernel: str  # of INT8 linear layers; AMX and AVX2 kernels round differently around the same sums
    threads: int
    grids: tuple[str, ...]  # rows x width, that may be compiled
    compiled: tuple[str, ...]  # that are compiled
    memory_mb: int  # about what the process takes with all grids compiled
    memory_used_mb: int  # the same, with the grids that are compiled now
    versions: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return asdict(self)


class Embedder:
    """Encodes texts with one artefact on one device. Threads may share it; a fork may not.

    The same text gives the same bits alone, in any batch and in any order, for one artefact, precision,
    lowering and kind of CPU.
    """

    def __init__(
        self, manifest: Manifest, tokens: Tokens, engine: Engine, cache: VectorCache | None = None
    ) -> None:
        self._manifest = manifest
        self._tokens = tokens
        self._engine = engine
        self._plan = engine.plan
        self._spec = manifest.spec
        self._cache = cache
        self._scheduler = Scheduler(engine)
        self._counting = threading.Lock()
        self._pid = os.getpid()
        self._warned = False
        self.truncated = 0  # texts cut at their end so far
        weakref.finalize(self, _close_if_owner, self._scheduler, self._pid)  # threads would keep it alive

    @classmethod
    def open(
        cls,
        model: str | os.PathLike[str] | None = None,
        *,
        device: str = "CPU",
        precision: AskedPrecision = "auto",
        lowering: AskedLowering = "auto",
        threads: int | None = None,
        memory_mb: int | None = None,
        max_batch_tokens: int | None = None,
        cache_mb: int | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
    ) -> Embedder:
        """Open an artefact: faults of the folder, the device or an option are reported here.

        On a CPU the first text that needs a grid compiles it (0.4 s); elsewhere the smallest one is compiled
        here.

        Args:
            model: a folder written by `ov-minilm convert`; None, or the name of the model in the package
                (all-MiniLM-L6-v2), is the INT8 artefact that ships with it.
            device: any OpenVINO device string, in any case: CPU, GPU, GPU.0, NPU, AUTO:GPU,CPU.
            precision: what the layers that are not INT8 run in. "auto" is f32 for texts of up to 64 tokens,
                on every CPU; and for longer texts of an INT8 artefact bf16 where the CPU has it natively and
                its measured drift passed the gate, else f32.
            lowering: how INT8 linear layers run on a CPU; "auto" asks OpenVINO which kernel it would use.
            threads: for inference; None is OV_MINILM_THREADS, or what the affinity mask and the cgroup
                quota grant. The tokenizer uses rayon's own threads beside them
                (RAYON_NUM_THREADS bounds those).
            memory_mb: MB that the process may take, about, if it does nothing else: fewer grids are used,
                and texts run slower in wider ones. None is no bound; `info.memory_mb` says what that takes.
            max_batch_tokens: tokens that run together, padding included: larger grids are not used. None is
                512. With 256, the least, a short call waits less behind a long one, which runs slower.
            cache_mb: MB for the vectors of texts that came before: a text that comes again is not computed
                again. Some 450 short texts a MB. None keeps none.
            cache_dir: where compiled models are kept between processes, about 24 MB a grid; None keeps
                none. Whatever is wrong with the folder or a file in it is warned of once (CacheWarning), and
                the model is compiled without. Hashes find damage, not malice: keep the folder private.

        Raises:
            ArtefactError: the folder is not a complete, unchanged artefact.
            DeviceUnavailable: this machine has no such device.
            PrecisionUnavailable: the device cannot run that precision reproducibly.
            TypeError: an option that counts something is not an integer.
            ValueError: an option has a value that does not exist, or a bound leaves too few grids.
        """
        check_choice("precision", precision, get_args(AskedPrecision))
        check_choice("lowering", lowering, get_args(AskedLowering))
        check_integers(memory_mb=memory_mb, max_batch_tokens=max_batch_tokens)
        cache = None if cache_mb is None else VectorCache(cache_mb)
        folder = find_model(model)
        manifest = Manifest.read(folder)
        options = Options(
            str(device).upper(), precision, lowering, cpus.threads(threads), memory_mb, max_batch_tokens
        )
        engine = Engine(folder, manifest, options, None if cache_dir is None else Path(cache_dir))
        return cls(manifest, Tokens.open(folder / TOKENIZER, manifest.spec), engine, cache)

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
            texts: a str or any iterable of str. Unpaired surrogates count as U+FFFD; empty text is legal.
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
        self._check_options(truncate, dimensions, dtype)
        items = [texts] if isinstance(texts, str) else check_texts(texts)
        vectors = convert_vectors(self._encode(items, 0, progress, truncate), dimensions, dtype)
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
        self._check_options(truncate, dimensions, dtype)
        if isinstance(texts, str):
            raise TypeError("encode_iter takes an iterable of str; encode takes a single str")
        stream = iter(iterate(texts))
        return (convert_vectors(block, dimensions, dtype) for block in self._blocks(stream, truncate))

    def _blocks(self, texts: Iterator[str], truncate: Truncate) -> Iterator[FloatArray]:
        size, start = FIRST_BLOCK_TEXTS, 0
        while block := check_texts(list(islice(texts, size)), start):
            yield self._encode(block, start, progress=False, truncate=truncate)
            start, size = start + len(block), min(2 * size, MAX_BLOCK_TEXTS)

    async def aencode(
        self,
        texts: str | Iterable[str],
        *,
        truncate: Truncate = "end",
        dimensions: int | None = None,
        dtype: Dtype = "float32",
    ) -> Vectors:
        """Encode as `encode` does, for asyncio: other coroutines run meanwhile, and their texts beside these.

        Cancelling the coroutine removes its texts from the queue.
        """
        import asyncio  # a program that awaits this has it; others need not

        self._check_options(truncate, dimensions, dtype)
        items = [texts] if isinstance(texts, str) else check_texts(texts)
        tokenized = await asyncio.to_thread(self._prepare, items, 0, truncate)
        vectors = convert_vectors(await self.asubmit(tokenized), dimensions, dtype)
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
        check_choice("truncate", truncate, get_args(Truncate))
        items: list[Any] = [texts] if isinstance(texts, str) else list(iterate(texts))
        if not items or isinstance(items[0], str):
            items = check_texts(items)
        return self._prepare(items, 0, truncate, warn=False)

    def submit(
        self, tokenized: Tokenized, *, started: Callable[[], object] | None = None
    ) -> Future[FloatArray]:
        """Put texts into the queue and return at once: a future of their unit vectors (N, 384), float32.

        For servers: many calls that wait at the same time are packed together. Cancelling the future
        removes its texts from the queue.
        `started` is called, from another thread, when the first text runs.
        """
        call = Call(tokenized, self._spec.dim, cache=self._cache, started=started)
        self._check_usable()
        self._scheduler.submit(call)
        return call

    def asubmit(
        self, tokenized: Tokenized, *, started: Callable[[], object] | None = None
    ) -> asyncio.Future[FloatArray]:
        """Do as `submit` does, for the event loop that runs here: the future is one of the loop's."""
        import asyncio  # a program that awaits this has it; others need not

        return asyncio.wrap_future(self.submit(tokenized, started=started))

    @overload
    def count_tokens(self, texts: str) -> int: ...  # type: ignore[overload-overlap]  # str is iterable too

    @overload
    def count_tokens(self, texts: Iterable[str]) -> list[int]: ...

    def count_tokens(self, texts: str | Iterable[str]) -> int | list[int]:
        """Count tokens, [CLS] and [SEP] included, before any cut: an int for a str, else a list."""
        self._check_usable()
        items = [texts] if isinstance(texts, str) else check_texts(texts)
        counts = [count for chunk in _chunks(items) for count in self._tokens.count(chunk)]
        return counts[0] if isinstance(texts, str) else counts

    def similarity(self, a: FloatArray, b: FloatArray) -> FloatArray:
        """Return the cosines (N, M) of unit vectors a (N, 384) and b (M, 384); a single (384,) is one row."""
        return similarity(a, b)

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
        """The device, precision, kernel, grids, memory and versions that this Embedder uses."""
        plan, compiled = self._plan, tuple(self._engine.compiled)
        return Info(
            model=self._spec.name,
            weights=self._manifest.weights,
            fingerprint=self._manifest.fingerprint,
            device=plan.device,
            precision=plan.lanes[0].precision,
            long_precision=plan.lanes[-1].precision,
            lowering=plan.lowering,
            kernel=plan.kernel,
            threads=plan.threads,
            grids=tuple(map(str, plan.grids)),
            compiled=tuple(map(str, compiled)),
            memory_mb=memory(self._manifest, plan.grids, plan.threads),
            memory_used_mb=memory(self._manifest, compiled, plan.threads),
            versions={"ov-minilm": __version__, "python": platform.python_version()}
            | {name: sys.modules[name].__version__.partition("-")[0] for name in DEPENDENCIES},
        )

    def self_check(self) -> float:
        """Encode the artefact's golden text and return its cosine to the vector that it must have.

        Every grid is checked when it is compiled or comes from the cache; this asks again, through tokenizer
        and packing, as a server does before it calls itself ready.

        Raises:
            SelfCheckFailed: the cosine is under 0.99, or not a number.
        """
        golden = self._manifest.golden
        call = Call(self._prepare([golden.text], 0, "error"), self._spec.dim)  # from no cache
        self._scheduler.submit(call, inline=True)
        cosine = golden.min_cosine(call.result())
        if not cosine >= MIN_COSINE:
            raise SelfCheckFailed(self._plan.device, cosine, MIN_COSINE)
        return cosine

    def warm_up(self) -> dict[str, float]:
        """Compile every grid now, so that no call waits for the compiler later.

        That takes about 0.4 s a grid without `cache_dir`, and the memory that `info.memory_mb` says. Returns,
        for each grid, the lowest cosine of its rows to the artefact's golden vector.

        Raises:
            SelfCheckFailed: the first grid under 0.99.
        """
        self._check_usable()
        return {str(grid): self._engine.compile(grid).cosine for grid in self._plan.grids}

    @property
    def stats(self) -> Stats:
        """What ran so far, and what waits now."""
        stats, cache = self._scheduler.stats, self._cache
        return replace(stats, cached=cache.hits, cache_bytes=cache.bytes) if cache else stats

    def close(self) -> None:
        """Finish the calls of other threads and free the compiled models. Later use is an error."""
        if os.getpid() == self._pid:  # in a fork nothing can be freed, and the locks may never be
            self._scheduler.close()
            self._engine.close()

    def __enter__(self) -> Embedder:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _prepare(
        self, texts: Sequence[Any], start: int, truncate: Truncate, *, warn: bool = True
    ) -> Tokenized:
        """Return the ids of texts, the first of them number `start`; count and warn of those that are cut."""
        self._check_usable()
        tokenized = self._tokens.tokenize(texts, start, truncate)
        if tokenized.cut:
            with self._counting:
                self.truncated += len(tokenized.cut)
                warn, self._warned = warn and not self._warned, self._warned or warn
            if warn:
                index = min(tokenized.cut)
                tokens = f"{'' if len(texts[index]) <= PIECE_CHARS else 'at least '}{tokenized.cut[index]}"
                warning = TruncationWarning(start + index, tokens, self._spec.max_tokens)
                warnings.warn(warning, stacklevel=_frames_inside())
        return tokenized

    def _encode(
        self, items: list[str], start: int, progress: Progress, truncate: Truncate
    ) -> FloatArray:  # -> [N, D]
        """Encode texts of which the first is number `start` of what the caller gave; equal ones once.

        This thread tokenizes chunk after chunk, while workers run those before.
        """
        self._check_usable()
        out = np.empty((len(items), self._spec.dim), np.float32)
        short = len(items) <= SHORT_CALL_TEXTS
        seen: dict[str, int] = {}
        firsts = [seen.setdefault(text, number) for number, text in enumerate(items)]
        running: deque[tuple[Call, list[int], int]] = deque()  # with the texts in it, and all of the chunk
        tokenized = 0
        with report(len(items), progress) as advance:
            try:
                for texts in _chunks(items):
                    windows = self._prepare(texts, start + tokenized, truncate).windows
                    numbers = [n for n in range(tokenized, tokenized + len(texts)) if firsts[n] == n]
                    part = Tokenized([windows[n - tokenized] for n in numbers], {})
                    call = Call(part, self._spec.dim, short=short, cache=self._cache)
                    running.append((call, numbers, len(texts)))
                    tokenized += len(texts)
                    self._scheduler.submit(call, inline=short)
                    while running and (tokenized == len(items) or len(running) == CHUNKS_AHEAD):
                        call, numbers, count = running[0]
                        out[numbers] = call.result()
                        running.popleft()
                        advance(count)
            finally:  # after an error or an interrupt, here or in `advance`
                for call, *_ in running:
                    call.cancel()
        return out if len(seen) == len(items) else out[firsts]

    def _check_options(self, truncate: Truncate, dimensions: int | None, dtype: Dtype) -> None:
        """Refuse before the work what would be refused after it."""
        check_choice("truncate", truncate, get_args(Truncate))
        if dimensions is not None or dtype != "float32":
            convert_vectors(np.empty((0, self._spec.dim), np.float32), dimensions, dtype)

    def _check_usable(self) -> None:
        if self._scheduler.closed:
            raise ValueError("this Embedder is closed")
        if os.getpid() != self._pid:
            raise ForkedProcess(self._pid, os.getpid())


def _chunks(texts: list[str]) -> Iterator[list[str]]:
    """Cut texts into what is tokenized at a time."""
    start = chars = 0
    for end, text in enumerate(texts, 1):
        chars += len(text)
        if end - start == CHUNK_TEXTS or chars >= CHUNK_CHARS or end == len(texts):
            yield texts[start:end]
            start, chars = end, 0


def _frames_inside() -> int:
    """Return the stack level, as warnings count it, of the first caller outside this package."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(str(PACKAGE)):
        frame, level = frame.f_back, level + 1
    return level


def _close_if_owner(scheduler: Scheduler, pid: int) -> None:
    """Stop a scheduler that nobody can call any more; in a fork its threads are gone and its locks stuck."""
    if os.getpid() == pid:
        scheduler.close(drop=True)


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

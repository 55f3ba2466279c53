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
DEPENDENCIES = ("openvino", "tokenizers", "numpy")  # packages whose versions are in `info`
CHUNK_TEXTS = 512  # texts that are tokenized at once, while earlier batches run
# a chunk ends after this many characters: about 16,000 tokens, half a second of inference
CHUNK_CHARS = 65_536
CHUNKS_AHEAD = 2  # chunks in the queue at once: while one runs, the next one is tokenized
# Texts in a block of encode_iter. The first block is small, for an early result; later ones are large,
# because many texts pack better.
FIRST_BLOCK_TEXTS, MAX_BLOCK_TEXTS = 64, 8192


@dataclass(frozen=True, slots=True)
class Info:
    """How an Embedder runs. Embedders that differ only in threads, grids and memory give the same bits."""

    model: str
    weights: str
    fingerprint: str
    device: str
    precision: str  # precision of the layers that are not INT8, for texts of up to 64 tokens
    long_precision: str  # precision of the layers that are not INT8, for longer texts
    lowering: str
    # OpenVINO's kernel for INT8 linear layers. All kernels compute equal integer sums, but they round the
    # following float operations differently.
    kernel: str
    threads: int
    grids: tuple[str, ...]  # the grids, as rows x width, that may be compiled
    compiled: tuple[str, ...]  # the grids that are compiled
    memory_mb: int  # estimated memory of the process with all grids compiled
    memory_used_mb: int  # estimated memory of the process with the grids compiled so far
    versions: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return asdict(self)


class Embedder:
    """Encodes texts with one artefact on one device. Threads may share it; forked processes may not.

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
        weakref.finalize(self, _close_if_owner, self._scheduler, self._pid)  # stops the threads

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
        """Open an artefact. A wrong folder, device or option is reported here, not by a later call.

        On a CPU a grid is compiled when a text first needs it (0.4 s). On other devices the smallest grid is
        compiled here.

        Args:
            model: a folder written by `ov-minilm convert`; None or "all-MiniLM-L6-v2" is the INT8 model in
                the package.
            device: any OpenVINO device string, in any case: CPU, GPU, GPU.0, NPU, AUTO:GPU,CPU.
            precision: number type of the layers that are not INT8. "auto" is f32 for texts of up to 64 tokens
                on every CPU. For longer texts of an INT8 artefact it is bf16 if the CPU supports that
                natively and the measured drift is within the limits, otherwise f32.
            lowering: how INT8 linear layers run on a CPU; "auto" asks OpenVINO which kernel it would use.
            threads: number of threads for inference; None is OV_MINILM_THREADS, or the number of CPUs that
                the affinity mask and the cgroup quota allow. The tokenizer has its own threads
                (RAYON_NUM_THREADS).
            memory_mb: approximate limit in MB for the memory of a process that does nothing else. With a
                limit fewer grids are used, so some texts run slower, in wider grids. None is no limit;
                `info.memory_mb` is the resulting estimate.
            max_batch_tokens: maximum tokens in a batch, with padding; None is 512. With 256, the minimum, a
                short call waits less behind a long one, and the long one runs slower.
            cache_mb: MB for a cache of the vectors of earlier texts, about 450 short texts per MB. None is no
                cache.
            cache_dir: folder that keeps compiled models for later processes, about 24 MB for each grid; None:
                no cache. If the folder or a file in it cannot be used, there is one CacheWarning and the
                model is compiled without the cache. Hashes detect damage, but not an attacker: keep the
                folder private.

        Raises:
            ArtefactError: the folder is not a complete, unchanged artefact.
            DeviceUnavailable: this machine has no such device.
            PrecisionUnavailable: the device cannot run that precision reproducibly.
            TypeError: a numeric option is not an integer.
            ValueError: an option has an invalid value, or a limit leaves too few grids.
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
        engine = Engine(folder, manifest, options, cache_dir)
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
            texts: a str or any iterable of str. Unpaired surrogates count as U+FFFD; empty texts are allowed.
            progress: None shows a bar on a terminal if the call takes long; True shows it at once; False
                never; a function is called with (done, total).
            truncate: what to do with a text of more than 256 tokens. "end" cuts it, warns once and counts it
                in `truncated`; "error" raises TextTooLong; "mean" averages the vectors of its windows of 254
                word pieces, weighted by their tokens.
            dimensions: keep only this many components, the first ones, and scale to unit length again.
            dtype: float32, float16, int8, uint8, binary or ubinary, in the layout of sentence-transformers;
                int8 and uint8 have fixed ranges, so that a text has the same bits in any batch. See
                ov_minilm.runtime.output.

        Raises:
            TypeError: an item is not a str; the message names its index.
            TextTooLong: a text is too long and `truncate` is "error".
            ValueError: an option has an invalid value.
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
        """Yield the vectors of a stream of texts in the order of the texts, as blocks (n, 384).

        The stream may be endless. Blocks grow from 64 to 8,192 texts; only one block is in memory at a time.
        Errors name a text by its index in the whole stream.
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
        """Do the same as `encode` for asyncio: other coroutines run meanwhile, and their texts share batches.

        Cancelling the coroutine removes its texts from the queue.
        """
        import asyncio  # imported here, because programs without asyncio do not need it

        self._check_options(truncate, dimensions, dtype)
        items = [texts] if isinstance(texts, str) else check_texts(texts)
        tokenized = await asyncio.to_thread(self._prepare, items, 0, truncate)
        vectors = convert_vectors(await self.asubmit(tokenized), dimensions, dtype)
        return vectors[0] if isinstance(texts, str) else vectors

    def tokenize(
        self, texts: str | Iterable[str] | Iterable[Sequence[int]], *, truncate: Truncate = "end"
    ) -> Tokenized:
        """Return the token ids of texts for `submit`, and which texts were cut.

        Args:
            texts: as for `encode`; or lists of token ids of this model, to which [CLS] and [SEP] are added if
                they are missing.
            truncate: as for `encode`, but without a warning: the result says which texts were cut.

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
        self, tokenized: Tokenized, *, started: Callable[[], object] | None = None, short: bool | None = None
    ) -> Future[FloatArray]:
        """Put texts into the queue and return at once a future of their unit vectors (N, 384), float32.

        Intended for servers: simultaneous calls share batches. Cancelling the future removes its texts from
        the queue. `started` is called from another thread when the first text runs. A call with `short` goes
        before the others; None: if it has at most 32 texts.
        """
        call = Call(tokenized, self._spec.dim, short=short, cache=self._cache, started=started)
        self._check_usable()
        self._scheduler.submit(call)
        return call

    def asubmit(
        self, tokenized: Tokenized, *, started: Callable[[], object] | None = None
    ) -> asyncio.Future[FloatArray]:
        """Do the same as `submit`, but return a future of the running event loop."""
        import asyncio  # imported here, because programs without asyncio do not need it

        return asyncio.wrap_future(self.submit(tokenized, started=started))

    @overload
    def count_tokens(self, texts: str) -> int: ...  # type: ignore[overload-overlap]  # str is iterable too

    @overload
    def count_tokens(self, texts: Iterable[str]) -> list[int]: ...

    def count_tokens(self, texts: str | Iterable[str]) -> int | list[int]:
        """Count the tokens of uncut texts, [CLS] and [SEP] included: an int for a str, otherwise a list."""
        self._check_usable()
        items = [texts] if isinstance(texts, str) else check_texts(texts)
        counts = [count for chunk in _chunks(items) for count in self._tokens.count(chunk)]
        return counts[0] if isinstance(texts, str) else counts

    def similarity(self, a: FloatArray, b: FloatArray) -> FloatArray:
        """Return the cosines (N, M) of unit vectors a (N, 384) and b (M, 384); a single (384,) is one row."""
        return similarity(a, b)

    @property
    def spec(self) -> ModelSpec:
        """Facts about the model: name, components of a vector, maximum number of tokens, prompts."""
        return self._spec

    @property
    def prompts(self) -> dict[str, str]:
        """Prompts of the model, by kind of text; the caller has to put them before texts."""
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
        """Encode a text with a known vector, and return the cosine to that vector (the golden vector).

        Every grid is checked when it is compiled or read from the cache. This check also tests tokenizer and
        packing; a server checks itself this way before it reports that it is ready.

        Raises:
            SelfCheckFailed: the cosine is under 0.99 or NaN.
        """
        golden = self._manifest.golden
        # computed again, not taken from the cache of vectors
        call = Call(self._prepare([golden.text], 0, "error"), self._spec.dim)
        self._scheduler.submit(call, inline=True)
        cosine = golden.min_cosine(call.result())
        if not cosine >= MIN_COSINE:
            raise SelfCheckFailed(self._plan.device, cosine, MIN_COSINE)
        return cosine

    def warm_up(self) -> dict[str, float]:
        """Compile every grid now, so that no call waits for the compiler later.

        This takes about 0.4 s for each grid without `cache_dir`, and the memory in `info.memory_mb`. Returns
        the lowest cosine to the golden vector among the rows of each grid.

        Raises:
            SelfCheckFailed: a cosine is under 0.99.
        """
        self._check_usable()
        return {str(grid): self._engine.compile(grid).cosine for grid in self._plan.grids}

    @property
    def stats(self) -> Stats:
        """Counts of texts, tokens and batches so far, and of calls that are waiting now."""
        stats, cache = self._scheduler.stats, self._cache
        return replace(stats, cached=cache.hits, cache_bytes=cache.bytes) if cache else stats

    def close(self) -> None:
        """Finish the calls of other threads and free the compiled models; then encoding raises ValueError."""
        if os.getpid() == self._pid:  # in a forked child, locks may be held by threads that no longer exist
            self._scheduler.close()
            self._engine.close()

    def __enter__(self) -> Embedder:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _prepare(
        self, texts: Sequence[Any], start: int, truncate: Truncate, *, warn: bool = True
    ) -> Tokenized:
        """Return the token ids of texts from index `start`; count the texts that are cut, and warn once."""
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
        """Encode texts; equal texts are computed once.

        `start` is the index of the first text, for error messages. This thread tokenizes the next chunks
        while workers run the previous ones.
        """
        self._check_usable()
        out = np.empty((len(items), self._spec.dim), np.float32)
        short = len(items) <= SHORT_CALL_TEXTS
        index_of_text: dict[str, int] = {}
        first_index = [index_of_text.setdefault(text, number) for number, text in enumerate(items)]
        # call, indices of its texts, number of all texts in the chunk
        running: deque[tuple[Call, list[int], int]] = deque()
        tokenized = 0
        with report(len(items), progress) as advance:
            try:
                for texts in _chunks(items):
                    windows = self._prepare(texts, start + tokenized, truncate).windows
                    numbers = [n for n in range(tokenized, tokenized + len(texts)) if first_index[n] == n]
                    distinct = Tokenized([windows[n - tokenized] for n in numbers], {})
                    call = Call(distinct, self._spec.dim, short=short, cache=self._cache)
                    running.append((call, numbers, len(texts)))
                    tokenized += len(texts)
                    self._scheduler.submit(call, inline=short)
                    while running and (tokenized == len(items) or len(running) == CHUNKS_AHEAD):
                        call, numbers, count = running[0]
                        out[numbers] = call.result()
                        running.popleft()
                        advance(count)
            finally:  # calls are left only after an error or an interrupt
                for call, *_ in running:
                    call.cancel()
        return out if len(index_of_text) == len(items) else out[first_index]

    def _check_options(self, truncate: Truncate, dimensions: int | None, dtype: Dtype) -> None:
        """Check options before any work is done."""
        check_choice("truncate", truncate, get_args(Truncate))
        if dimensions is not None or dtype != "float32":
            convert_vectors(np.empty((0, self._spec.dim), np.float32), dimensions, dtype)

    def _check_usable(self) -> None:
        if self._scheduler.closed:
            raise ValueError("this Embedder is closed")
        if os.getpid() != self._pid:
            raise ForkedProcess(self._pid, os.getpid())


def _chunks(texts: list[str]) -> Iterator[list[str]]:
    """Split texts into chunks of at most CHUNK_TEXTS texts and about CHUNK_CHARS characters."""
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
    """Stop the scheduler of a deleted Embedder, except in a forked child, which has none of its threads."""
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
    """Encode texts with the model in the package, which the first call opens. See Embedder.encode."""
    global _shared
    with _opening:
        if _shared is None:
            _shared = Embedder.open()
    return _shared.encode(texts, progress=progress, truncate=truncate, dimensions=dimensions, dtype=dtype)

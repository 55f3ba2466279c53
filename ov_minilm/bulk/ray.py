"""Jobs on a Ray cluster, and an embedder for a user's own Ray Data pipeline.

The unit of work is a shard: an actor reads its rows, writes its file, and reports to the driver, which writes
the journal. Ray Data starts as many actors as fit, and gives a shard to another actor if a machine dies.
Inputs and output must have the same path on all machines.
"""

from __future__ import annotations

import logging
import os
import pickle
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from ov_minilm.artefact.manifest import NAME, Manifest
from ov_minilm.bulk.cpu_claims import claim_cpus
from ov_minilm.bulk.inputs import Inputs, column_index, display_name
from ov_minilm.bulk.journal import Done, Journal
from ov_minilm.bulk.meter import Meter
from ov_minilm.bulk.pipeline import BulkOptions, Job, Task, encode, make_sink, plan, read_shard, write_shard
from ov_minilm.bulk.reader import Reader
from ov_minilm.bulk.refusals import refusal
from ov_minilm.bulk.rows import Rows
from ov_minilm.bulk.sink import Form, Sink
from ov_minilm.errors import OvMiniLMError
from ov_minilm.runtime.embedder import Embedder
from ov_minilm.runtime.output import Dtype
from ov_minilm.runtime.tokens import Truncate

USER_ERRORS = (OvMiniLMError, OSError, ValueError, TypeError)  # errors that a user can fix


@dataclass(frozen=True, slots=True)
class ArtefactFiles:
    """The files of an artefact, to send to machines that cannot read its folder."""

    files: Mapping[str, bytes]

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> ArtefactFiles:
        """Read and check an artefact."""
        names = (*Manifest.read(Path(folder)).files, NAME)
        return cls({name: (Path(folder) / name).read_bytes() for name in names})

    @contextmanager
    def unpacked(self) -> Iterator[str]:
        """Yield a temporary folder with the files."""
        with tempfile.TemporaryDirectory() as folder:
            for name, content in self.files.items():
                (Path(folder) / name).write_bytes(content)
            yield folder


@dataclass(frozen=True, slots=True)
class EmbedderOptions:
    """The options with which each actor opens its Embedder; by default `threads` is its number of CPUs."""

    model: str | os.PathLike[str] | ArtefactFiles | None = None
    device: str = "CPU"
    precision: Literal["auto", "f32", "bf16", "f16"] = "auto"
    lowering: Literal["auto", "native", "conv"] = "auto"
    cache_dir: str | os.PathLike[str] | None = None
    threads: int | None = None
    memory_mb: int | None = None

    def open(self) -> Embedder:
        """Open an Embedder in this process."""
        context = _context()
        threads = self.threads
        if threads is None and context:
            threads = max(1, int(context.get_assigned_resources().get("CPU", 1)))
        if threads is not None:
            # only in actors: other processes run further tasks, which may use other CPUs
            if context and context.get_actor_id():
                claim_cpus(threads)
            # the tokenizer reads this variable at its first use
            os.environ["RAYON_NUM_THREADS"] = str(threads)
        if isinstance(self.model, ArtefactFiles):
            with self.model.unpacked() as folder:
                return replace(self, model=folder).open()
        return Embedder.open(
            self.model,
            device=self.device,
            precision=self.precision,
            lowering=self.lowering,
            threads=threads,
            memory_mb=self.memory_mb,
            cache_dir=self.cache_dir,
        )


def _context() -> Any:
    """Return Ray's context of the actor or task in this process; None if there is none."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return None
    context = ray.get_runtime_context()
    return context if context.get_actor_id() or context.get_task_id() else None


class RayEmbedder:
    """Adds a column of vectors to batches, for `Dataset.map_batches` of Ray Data.

    Every actor has one Embedder.

        data.map_batches(RayEmbedder, concurrency=4, num_cpus=2)

    Pass options in `fn_constructor_kwargs`. A pickle contains only these options; the model is opened again
    after unpickling.

    Args:
        column: the column of strings to encode.
        output: the column to add, (N, 384) float32 by default.
        model: a folder that every machine can read, or `ArtefactFiles.read(folder)`; None is the model in the
            package.
        truncate, dimensions, dtype: as for Embedder.encode.
        threads: None is the num_cpus of the actor.
    """

    def __init__(
        self,
        *,
        column: str = "text",
        output: str = "embedding",
        model: str | os.PathLike[str] | ArtefactFiles | None = None,
        precision: Literal["auto", "f32", "bf16", "f16"] = "auto",
        lowering: Literal["auto", "native", "conv"] = "auto",
        threads: int | None = None,
        truncate: Truncate = "end",
        dimensions: int | None = None,
        dtype: Dtype = "float32",
    ) -> None:
        self._options: dict[str, Any] = {
            "column": column,
            "output": output,
            "model": model,
            "precision": precision,
            "lowering": lowering,
            "threads": threads,
            "truncate": truncate,
            "dimensions": dimensions,
            "dtype": dtype,
        }
        self._embedder = EmbedderOptions(
            model, precision=precision, lowering=lowering, threads=threads
        ).open()

    def __call__(self, batch: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return the batch with its vectors.

        Raises:
            TypeError: the batch is an Arrow table.
            ValueError: the batch lacks the column of texts, or has a column with the name of the output.
        """
        options = self._options
        if not hasattr(batch, "keys"):
            raise refusal("not_a_batch", kind=type(batch).__name__)
        column_index(list(batch), options["column"], "the batch")
        if options["output"] in batch:
            raise refusal("output_there", column=options["output"])
        vectors = self._embedder.encode(
            batch[options["column"]],
            truncate=options["truncate"],
            dimensions=options["dimensions"],
            dtype=options["dtype"],
            progress=False,
        )
        return {**batch, options["output"]: vectors}

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(RayEmbedder, **self._options), ()


def _pickled_result(call: Callable[[], Any]) -> bytes:
    """Call a function; return its pickled result, or the error if it is one that a user can fix."""
    try:
        return pickle.dumps(call())
    except USER_ERRORS as error:
        return pickle.dumps(error)


def _unwrap(answer: bytes) -> Any:
    """Return the result of `_pickled_result`, or raise its error."""
    result = pickle.loads(answer)  # noqa: S301  # written by our own actors
    if isinstance(result, Exception):
        raise result
    return result


def _probe(embedder_options: EmbedderOptions, inputs: Inputs, options: BulkOptions, form: Form) -> bytes:
    def open_and_make_sink() -> Sink:
        with embedder_options.open() as embedder:
            return make_sink(embedder, inputs, options, form)

    return _pickled_result(open_and_make_sink)


class _Worker:
    """The actor: computes one shard in each call."""

    def __init__(self, job: Job, embedder_options: EmbedderOptions, folder: str) -> None:
        self._job = job
        self._embedder_options = embedder_options
        os.chdir(folder)  # relative names then mean the same files on all machines

    def __call__(self, batch: dict[str, NDArray[Any]]) -> dict[str, list[bytes]]:
        return {"answer": [_pickled_result(partial(self._write, _unwrap(batch["task"][0])))]}

    def _write(self, task: Task) -> Done:
        job = self._job
        with Reader(job.inputs, task.start) as reader:
            rows = _check_row_count(read_shard(reader, task.shard, job.options.rows_per_shard), task)
            return write_shard(job, task.shard, encode(rows, self._embedder, job.options))

    @cached_property
    def _embedder(self) -> Embedder:
        """The Embedder, opened by the first shard so that errors can be returned."""
        embedder = self._embedder_options.open()
        found = make_sink(embedder, self._job.inputs, self._job.options, self._job.sink.form)
        differences = [
            f"{name} {found.metadata[name]} instead of {value}"
            for name, value in self._job.sink.metadata.items()
            if found.metadata[name] != value
        ]
        if differences:
            raise ValueError(f"{platform.node()} would give different vectors: {', '.join(differences)}")
        return embedder


def _check_row_count(portions: Iterator[Rows], task: Task) -> Iterator[Rows]:
    """Refuse a shard without the planned number of rows: this machine reads different files."""
    rows_read = 0
    for rows in portions:
        rows_read += len(rows.texts)
        yield rows
    if rows_read != task.rows:
        raise ValueError(
            f"shard {task.shard} has {rows_read} rows on {platform.node()} and {task.rows} where the job "
            "began; check that both machines see the same files"
        )


@dataclass(frozen=True, slots=True)
class RayBackend:
    """Computes shards in a pool of actors; each has as many CPUs as its Embedder has threads."""

    embedder_options: EmbedderOptions
    cpus: int
    actors: int | None

    def sink(self, inputs: Inputs, options: BulkOptions, form: Form) -> Sink:
        """Return the sink, which one machine of the cluster creates."""
        import ray

        if not inputs.resumable:
            raise refusal("ray_stdin", file=display_name(next(iter(inputs.pipes))))
        largest = max(node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"])
        if largest < self.cpus:
            raise ValueError(f"an actor needs {self.cpus} CPUs; the largest machine has {largest:.0f}")
        probe = ray.remote(num_cpus=self.cpus)(_probe)
        found: Sink = _unwrap(ray.get(probe.remote(self.embedder_options, inputs, options, form)))
        return found

    def work(self, job: Job, journal: Journal, meter: Meter) -> None:
        """Compute every unfinished shard, and record it in the journal."""
        import ray
        from ray.data import ActorPoolStrategy, DataContext

        context = DataContext.get_current()
        context.enable_progress_bars = False
        planned = plan(job.inputs, job.options.rows_per_shard, journal.done)
        tasks = [{"task": pickle.dumps(task)} for task in planned]
        if not tasks:
            return
        room = max(1, int(ray.cluster_resources().get("CPU", 1)) // self.cpus)
        max_actors = min(self.actors or room, len(tasks))
        answers = ray.data.from_items(tasks, override_num_blocks=len(tasks)).map_batches(
            _Worker,
            batch_size=1,
            compute=ActorPoolStrategy(min_size=1, max_size=max_actors),
            num_cpus=self.cpus,
            fn_constructor_args=(job, self.embedder_options, str(Path.cwd())),
        )
        total = job.inputs.size() or 0
        try:
            # In the order of completion: a shard that waited for earlier shards would be lost by a kill.
            batches = answers.iter_batches(batch_size=None, prefetch_batches=0)
            for number, answer in enumerate(chain.from_iterable(batch["answer"] for batch in batches), 1):
                shard = _unwrap(answer)
                journal.add(shard)
                meter.advance(shard.rows, shard.tokens, total * number // len(tasks))
                meter.keep(shard.rows)
        except ray.exceptions.RayError as error:
            raise RuntimeError(f"Ray failed: {str(error).splitlines()[-1]}") from error


@contextmanager
def on_ray(
    embedder_options: EmbedderOptions, *, cpus: int = 1, actors: int | None = None
) -> Iterator[RayBackend]:
    """Connect to the cluster of RAY_ADDRESS or of this process; without one, start a local one."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reads this variable when it is imported
    import ray

    # This import configures Ray's log. The log is silenced afterwards: errors are raised, and all else is in
    # log files.
    import ray.data

    started_here = not ray.is_initialized()
    if started_here:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield RayBackend(embedder_options, cpus, actors)
    finally:
        if started_here:
            ray.shutdown()

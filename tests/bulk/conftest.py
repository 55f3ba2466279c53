"""Fixtures of the tests of bulk jobs: a folder in memory, and a function that runs a job in this process."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from fuzzing.stub import HashEmbedder

from ov_minilm import Embedder
from ov_minilm.bulk import job
from ov_minilm.bulk.outputs import Output
from ov_minilm.bulk.pipeline import BulkOptions
from ov_minilm.bulk.reader import find

RAM_DISK = Path("/dev/shm")  # noqa: S108  # each test makes a folder of its own in it


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, if the system has one: a job syncs each shard, which is slow on a busy disk."""
    if not RAM_DISK.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=RAM_DISK) as folder:
        yield Path(folder)


@pytest.fixture
def shared_model(shipped: Embedder, monkeypatch: pytest.MonkeyPatch) -> Embedder:
    """The session's Embedder, which the command line uses instead of opening its own, to save seconds."""
    monkeypatch.setattr(Embedder, "open", lambda **_: nullcontext(shipped))
    return shipped


@pytest.fixture
def run_job() -> Callable[..., job.Summary]:
    """Run a job with shards of 100 rows; without an embedder, vectors are hashes of the texts."""

    def run(
        *files: Path | str,
        to: Path,
        keep: Sequence[str] = (),
        embedder: Any = None,
        overwrite: bool = False,
        say: Callable[[str], None] = lambda _: None,
        **options: Any,
    ) -> job.Summary:
        settings = BulkOptions(**{"rows_per_shard": 100, **options})
        output = Output.parse(to)
        inputs = find(files, keep=keep, typed=output.form == "parquet", on_error=settings.on_error)
        encoder: Any = embedder or HashEmbedder()
        return job.run(inputs, output, settings, job.Local(encoder), overwrite=overwrite, say=say)

    return run

"""What the tests of bulk jobs share: a folder in memory, and a function that runs a job in this process."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from fuzzing.stub import HashEmbedder

from ov_minilm import Embedder
from ov_minilm.bulk import job as jobs
from ov_minilm.bulk.outputs import Output
from ov_minilm.bulk.pipeline import BulkOptions
from ov_minilm.bulk.reader import find

MEMORY = Path("/dev/shm")  # noqa: S108  # each test makes a folder of its own in it


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, if the system has one: a job syncs each shard, which is slow on a busy disk."""
    if not MEMORY.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        yield Path(folder)


@pytest.fixture
def opened(shipped: Embedder, monkeypatch: pytest.MonkeyPatch) -> Embedder:
    """The model that the command line uses in this test: the open one, which saves seconds a command."""
    monkeypatch.setattr(Embedder, "open", lambda **_: nullcontext(shipped))
    return shipped


@pytest.fixture
def job() -> Callable[..., jobs.Summary]:
    """Run a job in shards of 100 rows; unless an embedder is given, vectors are hashes of the texts."""

    def run_job(
        *files: Path | str,
        to: Path,
        keep: Sequence[str] = (),
        embedder: Any = None,
        overwrite: bool = False,
        say: Callable[[str], None] = lambda _: None,
        **options: Any,
    ) -> jobs.Summary:
        settings = BulkOptions(**{"rows_per_shard": 100, **options})
        output = Output.parse(str(to))
        names = [str(file) for file in files]
        inputs = find(names, keep=keep, typed=output.form == "parquet", on_error=settings.on_error)
        encoder: Any = embedder or HashEmbedder()
        return jobs.run(inputs, output, settings, jobs.Local(encoder), overwrite=overwrite, say=say)

    return run_job

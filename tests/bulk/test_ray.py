"""Ray: several machines write the same bytes as one, even if some of them fail."""

import json
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pytest
from support.corpora import content, sentences, shards, write
from support.processes import run, wait_until

from ov_minilm import Embedder
from ov_minilm.artefact.manifest import SHIPPED
from ov_minilm.bulk import ArtefactFiles, RayEmbedder
from ov_minilm.bulk.inputs import Inputs
from ov_minilm.bulk.pipeline import pending_rows, plan
from ov_minilm.bulk.reader import Reader

# A head without CPUs and three machines with one CPU each. For each line on stdin, a machine that runs an
# actor is killed without warning, and "killed" is printed.
CLUSTER = """
import sys, time
from pathlib import Path
from ray.cluster_utils import Cluster

def runs_an_actor(machine):
    raylet = machine.all_processes["raylet"][0].process.pid
    children = Path(f"/proc/{raylet}/task/{raylet}/children").read_text().split()
    return any("MapWorker" in Path(f"/proc/{child}/cmdline").read_text() for child in children)

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
machines = [cluster.add_node(num_cpus=1) for _ in range(3)]
print(cluster.address, flush=True)
for _ in sys.stdin:
    while not (busy := list(filter(runs_an_actor, machines))):
        time.sleep(0.02)
    machines.remove(busy[0])
    cluster.remove_node(busy[0], allow_graceful=False)
    print("killed", flush=True)
cluster.shutdown()
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[subprocess.Popen[str]]:
    """A Ray cluster of several nodes on this machine; RAY_ADDRESS is set to its address."""
    pytest.importorskip("ray", reason="needs the extra ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
        command = [sys.executable, "-c", CLUSTER]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            patch.setenv("RAY_ADDRESS", process.stdout.readline().strip())
            yield process
            process.stdin.close()


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_several_machines_write_the_bytes_of_one(tmp_path: Path) -> None:
    """The bytes are equal, also with bad rows; a job that a bad row stopped resumes without Ray."""
    source, bad = write(tmp_path / "in.jsonl.gz", sentences(2000)), tmp_path / "bad.jsonl"
    bad.write_text('{"text": null}\n{"text": "last"}')
    command: list[str | Path] = ["encode", source, bad, "--rows-per-shard", "150", "--truncate", "mean", "-o"]
    for folder in ("local", "ray"):
        (tmp_path / folder).mkdir()

    local = run(*command, tmp_path / "local/v.parquet", "--on-error", "null")
    ray = run(*command, tmp_path / "ray/v.parquet", "--on-error", "null", "--engine", "ray", "--ship")
    stopped = run(*command, tmp_path / "out", "--engine", "ray")
    # Only shards in the journal count: an actor may write one more while the job ends.
    lines = (tmp_path / "out/_job.log").read_text().splitlines()
    finished = [json.loads(line)["shard"] for line in lines[1:]]
    paths = [tmp_path / f"out/part-{shard:05}.parquet" for shard in finished]
    times_before = {path: path.stat().st_mtime_ns for path in paths}
    resumed = run(*command, tmp_path / "out")

    assert (3, 3) == (local.returncode, ray.returncode), ray.stderr
    assert b"2,001 vectors of 384 components, 1 null" in ray.stderr
    assert content(tmp_path / "local") == content(tmp_path / "ray")
    for done in (stopped, resumed):
        message = f"error: {bad}, line 1: 'text' is null, expected a string\n"
        assert (2, True) == (done.returncode, message in done.stderr.decode())
    assert times_before
    assert (
        times_before.items() <= {path: path.stat().st_mtime_ns for path in shards(tmp_path / "out")}.items()
    )


@pytest.mark.slow
def test_shards_of_killed_machines_are_computed_again(tmp_path: Path, cluster: subprocess.Popen[str]) -> None:
    """Two of three machines are killed while they compute; the output has the same bytes."""
    source = write(tmp_path / "in.parquet", sentences(20_000))
    command: list[str | Path] = ["encode", source, "--rows-per-shard", "500", "--id-column", "id", "-o"]
    assert 0 == run(*command, tmp_path / "local").returncode

    arguments = map(str, ["-m", "ov_minilm", *command, tmp_path / "ray", "--engine", "ray"])
    with subprocess.Popen([sys.executable, *arguments], stderr=subprocess.PIPE) as process:
        assert cluster.stdin is not None
        assert cluster.stdout is not None
        for wanted in (2, 5):
            wait_until(lambda wanted=wanted: len(shards(tmp_path / "ray")) >= wanted, 600)  # type: ignore[misc]
            cluster.stdin.write("\n")
            cluster.stdin.flush()
            assert "killed\n" == cluster.stdout.readline()
        finished = len(shards(tmp_path / "ray"))
        _, stderr = process.communicate()

    assert (0, True) == (process.returncode, finished < 40), stderr
    expected, actual = (shards(tmp_path / folder) for folder in ("local", "ray"))
    assert [path.read_bytes() for path in expected] == [path.read_bytes() for path in actual]


def test_ray_embedder_is_pickled_with_its_options(shipped: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unpickled copy opens its own Embedder and returns the same bits; a wrong batch is refused."""
    batch = {"body": np.array(["one", "two"], object), "n": np.array([1, 2])}
    embedder = RayEmbedder(column="body", output="v", threads=1, model=ArtefactFiles.read(SHIPPED))

    monkeypatch.setattr(Embedder, "open", opened := Mock(wraps=Embedder.open))
    copy = pickle.loads(pickle.dumps(embedder))  # noqa: S301  # our own

    assert ["body", "n", "v"] == list(copy(batch))
    assert 1 == opened.call_args.kwargs["threads"]
    assert np.array_equal(shipped.encode(["one", "two"]), copy(batch)["v"])
    with pytest.raises(ValueError, match="the batch: no column 'body'; it has 'text', 'v'"):
        copy({"text": batch["body"], "v": batch["n"]})
    with pytest.raises(ValueError, match="the batch has a column 'v' already; pass another name as output="):
        copy({**batch, "v": batch["n"]})
    with pytest.raises(TypeError, match=r"the batch is Table, .*; pass batch_format='numpy' to map_batches"):
        copy(pa.table(batch))


@pytest.mark.parametrize("rows_per_shard", [1, 37, 140, 1000])
def test_the_plan_has_the_shards_of_a_local_job(tmp_path: Path, rows_per_shard: int) -> None:
    """Each shard has the first row and row count of a local job's shard, also in damaged files."""
    names = ["a.parquet", "b.csv", "c.txt.gz", "d.parquet", "e.jsonl"]
    for name in names:
        write(tmp_path / name, sentences(100))
    (tmp_path / "c.txt.gz").write_bytes((tmp_path / "c.txt.gz").read_bytes()[:-50])
    (tmp_path / "d.parquet").write_bytes(b"PAR1 no more")
    inputs = Inputs(tuple(str(tmp_path / name) for name in names))
    expected: dict[int, tuple[str, int, str | None]] = {}
    sizes: Counter[int] = Counter()
    for rows in pending_rows(inputs, rows_per_shard, {}):
        sizes[rows.shard] += len(rows.texts)
        expected.setdefault(rows.shard, (rows.file, rows.numbers[0], rows.texts[0]))

    tasks = list(plan(inputs, rows_per_shard, {}))

    assert sizes == {task.shard: task.rows for task in tasks}
    for task in tasks:
        with Reader(inputs, task.start) as reader:
            first = reader.take(1)
        assert first is not None
        assert expected[task.shard] == (first.file, first.numbers[0], first.texts[0])

"""Ray: the same bytes from many machines as from one, and none lost with a machine."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from support.corpora import content, sentences, shards, write
from support.processes import run, until

from ov_minilm import Embedder
from ov_minilm.artefact.manifest import SHIPPED
from ov_minilm.bulk import RayEmbedder, Shipped
from ov_minilm.bulk.inputs import Inputs
from ov_minilm.bulk.pipeline import pending_rows, plan
from ov_minilm.bulk.reader import Reader

# A head without CPUs and three machines of one each. A line on stdin kills one on which an actor is, without
# a chance to say goodbye, and is answered by one on stdout.
CLUSTER = """
import sys, time
from pathlib import Path
from ray.cluster_utils import Cluster

def at_work(machine):
    raylet = machine.all_processes["raylet"][0].process.pid
    children = Path(f"/proc/{raylet}/task/{raylet}/children").read_text().split()
    return any("MapWorker" in Path(f"/proc/{child}/cmdline").read_text() for child in children)

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
machines = [cluster.add_node(num_cpus=1) for _ in range(3)]
print(cluster.address, flush=True)
for _ in sys.stdin:
    while not (busy := [machine for machine in machines if at_work(machine)]):
        time.sleep(0.02)
    machines.remove(busy[0])
    cluster.remove_node(busy[0], allow_graceful=False)
    print("killed", flush=True)
cluster.shutdown()
"""
USER = """
import json, sys, ray, ray.data
from ov_minilm.bulk import RayEmbedder, Shipped
from ov_minilm.artefact.manifest import SHIPPED
texts = json.load(open(sys.argv[1]))
ray.init(log_to_driver=False)
items = [{"number": number, "body": text} for number, text in enumerate(texts)]
data = ray.data.from_items(items, override_num_blocks=7)
rows = data.map_batches(
    RayEmbedder,
    fn_constructor_kwargs={"column": "body", "model": Shipped.read(SHIPPED)},
    concurrency=2,
    num_cpus=1,
    batch_size=64,
).take_all()
json.dump([row["embedding"].tolist() for row in sorted(rows, key=lambda row: row["number"])], sys.stdout)
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[subprocess.Popen[str]]:
    """Several machines of Ray, each a set of processes of its own; other processes of the tests find it."""
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
def test_many_machines_write_what_one_writes(tmp_path: Path) -> None:
    """Shards, bad rows and a file put together of them have the same bytes.

    A bad row stops it in one clear line; what was done by then is not done again by the other engine.
    """
    source = write(tmp_path / "in.jsonl.gz", sentences(2000))
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": null}\n{"text": "last"}')
    command: list[str | Path] = ["encode", source, bad, "--rows-per-shard", "150", "--truncate", "mean", "-o"]
    for folder in ("local", "ray"):
        (tmp_path / folder).mkdir()

    here = run(*command, tmp_path / "local/v.parquet", "--on-error", "null")
    there = run(*command, tmp_path / "ray/v.parquet", "--on-error", "null", "--engine", "ray", "--ship")
    stopped = run(*command, tmp_path / "out", "--engine", "ray")
    before = {path.name: path.stat().st_mtime_ns for path in shards(tmp_path / "out")}
    again = run(*command, tmp_path / "out")

    assert (3, 3) == (here.returncode, there.returncode), there.stderr
    assert b"2,001 vectors of 384 components, 1 null" in there.stderr
    assert content(tmp_path / "local") == content(tmp_path / "ray")
    said = f"error: {bad}, line 1: 'text' is null, expected a string\n"
    assert (2, said) == (stopped.returncode, stopped.stderr.decode().splitlines(True)[-1])
    assert (2, said) == (again.returncode, again.stderr.decode().splitlines(True)[-1])
    assert before
    assert before.items() <= {path.name: path.stat().st_mtime_ns for path in shards(tmp_path / "out")}.items()


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_in_a_pipeline_of_ones_own(tmp_path: Path, shipped: Embedder) -> None:
    """`map_batches` with RayEmbedder gives the bits of Embedder.encode, from an artefact that was sent."""
    texts = sentences(500)
    (tmp_path / "texts.json").write_text(json.dumps(texts))

    done = subprocess.run(
        [sys.executable, "-c", USER, tmp_path / "texts.json"], capture_output=True, check=False
    )

    assert 0 == done.returncode, done.stderr.decode()
    assert np.array_equal(shipped.encode(texts), np.array(json.loads(done.stdout), np.float32))


@pytest.mark.slow
def test_machines_that_die_lose_nothing(tmp_path: Path, cluster: subprocess.Popen[str]) -> None:
    """Two of three are killed at work; the last does what they were at, and the bytes are the same."""
    source = write(tmp_path / "in.parquet", sentences(20_000))
    command: list[str | Path] = ["encode", source, "--rows-per-shard", "500", "--id-column", "id", "-o"]
    assert 0 == run(*command, tmp_path / "local").returncode

    arguments = map(str, ["-m", "ov_minilm", *command, tmp_path / "ray", "--engine", "ray"])
    with subprocess.Popen([sys.executable, *arguments], stderr=subprocess.PIPE) as process:
        assert cluster.stdin is not None
        assert cluster.stdout is not None
        for wanted in (2, 5):
            until(lambda wanted=wanted: len(shards(tmp_path / "ray")) >= wanted, 600)  # type: ignore[misc]
            cluster.stdin.write("\n")
            cluster.stdin.flush()
            assert "killed\n" == cluster.stdout.readline()
        done = len(shards(tmp_path / "ray"))
        _, said = process.communicate()

    assert 0 == process.returncode, said
    assert done < 40
    assert [path.read_bytes() for path in shards(tmp_path / "local")] == [
        path.read_bytes() for path in shards(tmp_path / "ray")
    ]


def test_it_pickles_by_its_options(shipped: Embedder) -> None:
    """A copy opens an Embedder of its own and gives the same bits; so does one of shipped files."""
    batch = {"body": np.array(["one", "two"], object), "n": np.array([1, 2])}
    embedder = RayEmbedder(column="body", output="v", threads=1, model=Shipped.read(SHIPPED))

    copy = pickle.loads(pickle.dumps(embedder))  # noqa: S301  # our own

    assert ["body", "n", "v"] == list(copy(batch))
    assert np.array_equal(shipped.encode(["one", "two"]), copy(batch)["v"])
    with pytest.raises(ValueError, match="the batch: no column 'body'; it has 'text', 'v'"):
        copy({"text": batch["body"], "v": batch["n"]})
    with pytest.raises(ValueError, match="the batch has a column 'v' already; pass another name as output="):
        copy({**batch, "v": batch["n"]})
    with pytest.raises(TypeError, match=r"the batch is Table, .*; pass batch_format='numpy' to map_batches"):
        copy(pa.table(batch))


@pytest.mark.parametrize("every", [1, 37, 140, 1000])
def test_the_plan_is_what_reading_finds(tmp_path: Path, every: int) -> None:
    """Shards start where the rows of a job's reader do, damaged files among them."""
    names = ["a.parquet", "b.csv", "c.txt.gz", "d.parquet", "e.jsonl"]
    for name in names:
        write(tmp_path / name, sentences(100))
    (tmp_path / "c.txt.gz").write_bytes((tmp_path / "c.txt.gz").read_bytes()[:-50])
    (tmp_path / "d.parquet").write_bytes(b"PAR1 no more")
    inputs = Inputs(tuple(str(tmp_path / name) for name in names))
    expected: dict[int, tuple[str, int, str | None]] = {}
    sizes: Counter[int] = Counter()
    for rows in pending_rows(inputs, every, {}):
        sizes[rows.shard] += len(rows.texts)
        expected.setdefault(rows.shard, (rows.file, rows.numbers[0], rows.texts[0]))

    tasks = list(plan(inputs, every, {}))

    assert sizes == {task.shard: task.rows for task in tasks}
    for task in tasks:
        with Reader(inputs, task.start) as reader:
            first = reader.take(1)
        assert first is not None
        assert expected[task.shard] == (first.file, first.numbers[0], first.texts[0])

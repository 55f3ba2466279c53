"""Ray: the same bytes from many machines as from one, and none lost with a machine."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.corpora import content, sentences, shards, write

from ov_minilm import Embedder
from ov_minilm.artefact.manifest import SHIPPED
from ov_minilm.bulk import RayEmbedder, Shipped
from ov_minilm.bulk.inputs import Inputs
from ov_minilm.bulk.pipeline import pending_rows, plan
from ov_minilm.bulk.reader import Reader

QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}

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


@pytest.fixture
def cluster() -> Iterator[subprocess.Popen[str]]:
    """Several machines of Ray, each a set of processes of its own."""
    pytest.importorskip("ray", reason="needs the extra ray")
    with subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **QUIET},
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def start(cluster: subprocess.Popen[str], *arguments: str | Path) -> subprocess.Popen[bytes]:
    """Start `python …` where the cluster is known."""
    assert cluster.stdout is not None
    address = cluster.stdout.readline().strip()
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **QUIET, "RAY_ADDRESS": address},
    )


def encode_locally(source: Path, output: Path, *options: str) -> None:
    """Run the job in one process."""
    command = [sys.executable, "-m", "ov_minilm", "encode", str(source), "-o", str(output), *options]
    subprocess.run(command, check=True, capture_output=True)


@pytest.mark.slow
def test_many_machines_write_what_one_writes(tmp_path: Path, cluster: subprocess.Popen[str]) -> None:
    """Shards, bad rows and a file put together of them have the same bytes."""
    source = write(tmp_path / "in.jsonl.gz", sentences(2000))
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": null}\n{"text": "last"}')
    options = ["--rows-per-shard", "150", "--on-error", "null", "--truncate", "mean"]
    for folder in ("local", "ray"):
        (tmp_path / folder).mkdir()
    command = ["-m", "ov_minilm", "encode", str(source), str(bad), *options, "-o"]
    here = [sys.executable, *command, str(tmp_path / "local/v.parquet")]
    subprocess.run(here, check=False, capture_output=True)

    there = tmp_path / "ray/v.parquet"
    with start(cluster, *command, there, "--engine", "ray", "--ship") as process:
        _, said = process.communicate()

    assert 3 == process.returncode, said
    assert b"2002 vectors of 384 components" in said
    assert content(tmp_path / "local") == content(tmp_path / "ray")


@pytest.mark.slow
def test_machines_that_die_lose_nothing(tmp_path: Path, cluster: subprocess.Popen[str]) -> None:
    """Two of three are killed at work; the last does what they were at, and the bytes are the same."""
    source = write(tmp_path / "in.parquet", sentences(20_000))
    options = ["--rows-per-shard", "500", "--id-column", "id"]
    encode_locally(source, tmp_path / "local", *options)

    command = ["-m", "ov_minilm", "encode", str(source), *options, "--engine", "ray"]
    done: list[int] = []
    with start(cluster, *command, "-o", tmp_path / "ray") as process:
        assert cluster.stdin is not None
        assert cluster.stdout is not None
        for wanted in (2, 5):
            while len(shards(tmp_path / "ray")) < wanted and process.poll() is None:
                time.sleep(0.01)
            cluster.stdin.write("\n")
            cluster.stdin.flush()
            assert "killed\n" == cluster.stdout.readline()
            done.append(len(shards(tmp_path / "ray")))
        _, said = process.communicate()

    assert 0 == process.returncode, said
    assert max(done) < 40
    assert [path.read_bytes() for path in shards(tmp_path / "local")] == [
        path.read_bytes() for path in shards(tmp_path / "ray")
    ]


@pytest.mark.slow
def test_a_job_on_ray_goes_on_here(tmp_path: Path, cluster: subprocess.Popen[str]) -> None:
    """A bad row stops it in one clear line; what was done by then is not done again by the other engine."""
    source = write(tmp_path / "a.txt", sentences(3000))
    bad = tmp_path / "b.jsonl"
    bad.write_text('{"text": 3}\n')
    command = ["-m", "ov_minilm", "encode", str(source), str(bad), "--rows-per-shard", "500"]
    command += ["-o", str(tmp_path / "out")]
    with start(cluster, *command, "--engine", "ray") as process:
        _, said = process.communicate()
    before = {path.name: path.stat().st_mtime_ns for path in shards(tmp_path / "out")}
    here = subprocess.run([sys.executable, *command], check=False, capture_output=True)

    assert 2 == process.returncode, said
    assert (
        f"error: {bad}, line 1: 'text' is a number, expected a string\n" == said.decode().splitlines(True)[-1]
    )
    assert 2 == here.returncode
    after = {path.name: path.stat().st_mtime_ns for path in shards(tmp_path / "out")}
    assert before == {name: after[name] for name in before}


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


@pytest.mark.slow
def test_in_a_pipeline_of_ones_own(tmp_path: Path, cluster: subprocess.Popen[str], shipped: Embedder) -> None:
    """`map_batches` with RayEmbedder gives the bits of Embedder.encode, from an artefact that was sent."""
    texts = sentences(500)
    (tmp_path / "texts.json").write_text(json.dumps(texts))

    with start(cluster, "-c", USER, tmp_path / "texts.json") as process:
        found, said = process.communicate()

    assert 0 == process.returncode, said.decode()
    assert np.array_equal(shipped.encode(texts), np.array(json.loads(found), np.float32))


def test_it_pickles_by_its_options(shipped: Embedder) -> None:
    """A copy opens an Embedder of its own and gives the same bits; so does one of shipped files."""
    batch = {"body": np.array(["one", "two"], object), "n": np.array([1, 2])}
    embedder = RayEmbedder(column="body", output="v", threads=1)

    copy = pickle.loads(pickle.dumps(embedder))  # noqa: S301  # our own
    sent = RayEmbedder(column="body", output="v", model=Shipped.read(SHIPPED))

    assert ["body", "n", "v"] == list(copy(batch))
    assert np.array_equal(shipped.encode(["one", "two"]), copy(batch)["v"])
    assert np.array_equal(shipped.encode(["one", "two"]), sent(batch)["v"])


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
    rows_of: Counter[int] = Counter()
    for rows in pending_rows(inputs, every, {}):
        rows_of[rows.shard] += len(rows.texts)
        expected.setdefault(rows.shard, (rows.file, rows.numbers[0], rows.texts[0]))

    found, sizes = {}, {}
    for task in plan(inputs, every, {}):
        with Reader(inputs, task.start) as reader:
            first = reader.take(1)
        assert first is not None
        found[task.shard] = (first.file, first.numbers[0], first.texts[0])
        sizes[task.shard] = task.rows

    assert expected == found
    assert rows_of == sizes

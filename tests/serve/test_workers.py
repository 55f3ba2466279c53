"""Several worker processes on one port: restart, keys, metrics, shared memory, and CPUs."""

import asyncio
import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.processes import wait_until
from support.serving import CPUS, Running, keep_asking, needs_two_cpus, running

from ov_minilm import Embedder
from ov_minilm.artefact.manifest import SHIPPED, WEIGHTS
from ov_minilm.serve.workers import split_cpus

pytestmark = needs_two_cpus
KEY = "authorization: Bearer one"


def worker_pids(server: Running) -> list[int]:
    """Return the process ids of a server's workers."""
    pid = server.process.pid
    return sorted(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()))


def shared_weights(pid: int) -> set[str]:
    """Return device and inode of a process's shared mappings that have the size of the weights."""
    size = (SHIPPED / WEIGHTS).stat().st_size
    mappings = set()
    for line in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").splitlines():
        addresses, access, _, device, inode, *_ = line.split()
        start, end = (int(address, 16) for address in addresses.split("-"))
        if access.endswith("s") and 0 <= end - start - size < 65536:
            mappings.add(f"{device} {inode}")
    return mappings


def test_kill_a_worker_and_then_the_parent(shipped: Embedder, tmp_path: Path) -> None:
    """After kill -9 the other worker answers, and a new one starts with the same CPUs and keys.

    Meanwhile the server is not ready; the metrics are sums over all workers, the dead one included; all share
    one copy of the weights. After kill -9 of the parent the workers end.
    """
    keys = tmp_path / "keys"
    keys.write_text("zero\n")
    texts = [f"client {i} asks" for i in range(8)]
    with running("--workers", "2", "--api-key-file", str(keys)) as server:
        keys.write_text("one\n")
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: sum("1 keys are valid now" in line for line in server.lines) == 2)
        first, second = worker_pids(server)
        affinity = os.sched_getaffinity(first)
        assert not affinity & os.sched_getaffinity(second)

        async def load() -> list[tuple[list[object], list[Any]]]:
            ended = asyncio.Event()
            clients = [asyncio.ensure_future(keep_asking(server, text, ended, KEY)) for text in texts]
            texts_done = partial(server.metrics, "te_request_texts_count", "one")
            await asyncio.to_thread(wait_until, lambda: texts_done()[0] > 50, 30)
            os.kill(first, signal.SIGKILL)
            await asyncio.to_thread(wait_until, lambda: server.get("/readyz")[0] == 503)
            await asyncio.to_thread(wait_until, lambda: server.get("/readyz")[0] == 200, 30)
            ended.set()
            return [await client for client in clients]

        failures, vectors = zip(*asyncio.run(load()), strict=True)

        assert {0, 1} == set(map(len, failures))  # clients of the killed worker lose one connection
        for answers, vector in zip(vectors, shipped.encode(texts), strict=True):
            assert np.array_equal(np.array(answers, np.float32), np.tile(vector, (len(answers), 1)))
        (fresh,) = set(worker_pids(server)) - {second}
        assert os.sched_getaffinity(fresh) == affinity
        answered = sum(map(len, vectors))
        wait_until(lambda: server.metrics("te_request_texts_count", "one")[0] >= answered)
        assert 2 == len(server.metrics(r"process_resident_memory_bytes\{pid=\"\d+\"\}", "one"))
        # each worker updates its gauge separately
        wait_until(lambda: [0.0] == server.metrics("te_queue_size", "one"))
        for key, status in (("one", 200), ("zero", 401)):
            assert {status} == {server.get("/v1/models", key)[0] for _ in range(8)}
        (shared,) = shared_weights(server.process.pid)
        assert {shared} == shared_weights(second) == shared_weights(fresh)
        server.process.kill()
        wait_until(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in (fresh, second)), 20)

    text = "".join(server.lines)
    assert f"worker 1 (process {first}) was killed by SIGKILL; starting another" in text
    assert f"worker 1 is ready again, as process {fresh}" in text
    assert 2 == text.count("the parent process has ended")
    assert f" {CPUS // 2} threads" in text


@pytest.mark.parametrize(
    ("allowed", "count", "expected"),
    [
        (range(8), 1, [{*range(8)}]),
        (range(8), 2, [{0, 4, 1, 5}, {2, 6, 3, 7}]),
        (range(8), 4, [{0, 4}, {1, 5}, {2, 6}, {3, 7}]),
        (range(8), 3, [{0, 4}, {1, 5, 2}, {6, 3, 7}]),
        ([1, 2, 6], 2, [{1}, {2, 6}]),
    ],
)
def test_split_cpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: list[int], count: int, expected: list[set[int]]
) -> None:
    """A worker gets all threads of a core, and cores of one socket; CPUs outside the mask stay unused."""
    for cpu in range(8):  # two sockets of two cores; the threads of a core are 4 apart
        folder = tmp_path / f"cpu{cpu}/topology"
        folder.mkdir(parents=True)
        (folder / "physical_package_id").write_text(f"{cpu % 4 // 2}\n")
        (folder / "core_id").write_text(f"{cpu % 2}\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {*allowed})

    assert expected == [*map(set, split_cpus(count, 8, tmp_path))]
    without_topology = split_cpus(len(allowed), 8, tmp_path / "hidden")
    assert [{cpu} for cpu in allowed] == [*map(set, without_topology)]

"""Several processes behind one port: one that dies, keys, metrics, memory, and the end."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from support.processes import run, until
from support.serving import CPUS, Running, needs_two_cpus, running

from ov_minilm import Embedder
from ov_minilm.artefact.manifest import SHIPPED, WEIGHTS
from ov_minilm.serve.workers import split_cpus

pytestmark = needs_two_cpus


def _workers(server: Running) -> list[int]:
    """The process ids of its workers."""
    pid = server.process.pid
    return sorted(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()))


def _get(server: Running, path: str, key: str = "one") -> tuple[int, str]:
    request = urllib.request.Request(server.url + path, headers={"authorization": f"Bearer {key}"})  # noqa: S310  # our own server
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def _metric(server: Running, name: str) -> list[float]:
    return [
        float(found) for found in re.findall(rf"^{name} (\S+)$", _get(server, "/metrics")[1], re.MULTILINE)
    ]


async def _client(server: Running, text: str, ended: asyncio.Event) -> tuple[int, int, list[list[float]]]:
    """Ask on one connection after another; return the answers, the lost connections, and the vectors."""
    host, port = server.url.removeprefix("http://").split(":")
    body = json.dumps({"input": text}).encode()
    head = "POST /v1/embeddings HTTP/1.1\r\nhost: x\r\nauthorization: Bearer one\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    answers = lost = 0
    vectors: list[list[float]] = []
    while not ended.is_set():
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            while not ended.is_set():
                writer.write(head.encode() + body)
                found = await reader.readuntil(b"\r\n\r\n")
                assert found.startswith(b"HTTP/1.1 200"), found
                length = re.search(rb"content-length: (\d+)", found)
                assert length
                vectors.append(json.loads(await reader.readexactly(int(length[1])))["data"][0]["embedding"])
                answers += 1
        except (asyncio.IncompleteReadError, ConnectionError):
            lost += 1
        finally:
            writer.close()
    return answers, lost, vectors


def test_a_worker_that_is_killed(shipped: Embedder, tmp_path: Path) -> None:
    """Kill -9 under load: the other answers on, its clients notice nothing, and another one is started.

    Meanwhile the server is not ready; counts are those of all workers, also of the dead one; keys that were
    read again before are those of the new worker too; each runs on CPUs of its own.
    """
    keys = tmp_path / "keys"
    keys.write_text("zero\n")
    texts = [f"client {i} asks" for i in range(8)]
    expected = shipped.encode(texts)
    with running("--workers", "2", "--api-key-file", str(keys)) as server:
        keys.write_text("one\n")
        server.process.send_signal(signal.SIGHUP)
        until(lambda: sum("1 keys are valid now" in line for line in server.lines) == 2)
        first, second = _workers(server)
        affinities = [os.sched_getaffinity(pid) for pid in (first, second)]
        assert not affinities[0] & affinities[1]

        async def load() -> list[tuple[int, int, list[list[float]]]]:
            ended = asyncio.Event()
            clients = [asyncio.ensure_future(_client(server, text, ended)) for text in texts]
            await asyncio.to_thread(until, lambda: _metric(server, "te_request_texts_count")[0] > 50, 30)
            os.kill(first, signal.SIGKILL)
            await asyncio.to_thread(until, lambda: _get(server, "/readyz")[0] == 503)
            await asyncio.to_thread(until, lambda: _get(server, "/readyz")[0] == 200, 30)
            ended.set()
            return [await client for client in clients]

        answers, lost, vectors = zip(*asyncio.run(load()), strict=True)

        assert min(answers) > 0
        assert {0, 1} == set(lost)  # of the dead one each its connection, of the other none
        for of_client, vector in zip(vectors, expected, strict=True):
            assert np.array_equal(np.array(of_client, np.float32), np.tile(vector, (len(of_client), 1)))
        assert second in _workers(server)
        assert 2 == len(_workers(server))
        (fresh,) = set(_workers(server)) - {second}
        assert os.sched_getaffinity(fresh) == affinities[0]
        until(lambda: _metric(server, "te_request_texts_count")[0] >= sum(answers))
        assert 2 == len(_metric(server, r"process_resident_memory_bytes\{pid=\"\d+\"\}"))
        until(lambda: [0.0] == _metric(server, "te_queue_size"))  # each worker brings it up to date by itself
        assert {200} == {_get(server, "/v1/models", "one")[0] for _ in range(8)}
        assert {401} == {_get(server, "/v1/models", "zero")[0] for _ in range(8)}
        assert 0 == server.stop()

    text = "".join(server.lines)
    assert f"worker 1 (process {first}) was killed by SIGKILL; starting another" in text
    assert f"worker 1 is ready again, as process {fresh}" in text
    assert re.search(
        r"stopped after \d+ s: \d+ requests, \d+ texts and \d+ tokens embedded", server.lines[-1]
    )


def test_the_weights_are_in_memory_once() -> None:
    """The mapping that holds them is the same shared memory in the parent and in each worker."""
    size = (SHIPPED / WEIGHTS).stat().st_size

    def shared(pid: int) -> set[str]:
        found = set()
        for line in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").splitlines():
            addresses, access, _, device, inode, *_ = line.split()
            start, end = (int(one, 16) for one in addresses.split("-"))
            if access.endswith("s") and 0 <= end - start - size < 65536:
                found.add(f"{device} {inode}")
        return found

    with running("--workers", "2") as server:
        one, other = map(shared, _workers(server))
        assert 1 == len(one)
        assert one == other == shared(server.process.pid)


def test_workers_leave_with_their_parent() -> None:
    """Kill -9 of the parent: the workers answer the requests received and stop, and the port is free."""
    with running("--workers", "2") as server:
        workers = _workers(server)
        server.process.kill()
        server.process.wait()
        until(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in workers), 20)

    assert 2 == sum("the parent process has ended" in line for line in server.lines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--workers", "9999"],
            f"9999 workers, but {CPUS} CPUs are available: pass --workers {CPUS} or fewer",
        ),
        (["--workers", "2", "--threads", "1"], "2 workers, but 1 CPUs are available"),
        (["--workers", "2", "--memory-mb", "20"], "--memory-mb 20, of which each server process needs 65"),
        (["--workers", "2", "--device", "GPU.9"], "this machine has"),
    ],
)
def test_workers_that_cannot_start(arguments: list[str], message: str) -> None:
    """One clear line, exit code 2, and no process is left."""
    done = run("serve", "--port", "0", *arguments)

    assert (2, b"") == (done.returncode, done.stdout)
    assert message in done.stderr.decode()
    assert b"Traceback" not in done.stderr


def test_cpus_are_split_by_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both threads of a core, and cores of one chip, go to one worker; a mask and uneven numbers are kept."""
    for cpu in range(8):  # two chips of two cores; threads of a core are 4 apart
        folder = tmp_path / f"cpu{cpu}/topology"
        folder.mkdir(parents=True)
        (folder / "physical_package_id").write_text(f"{cpu % 4 // 2}\n")
        (folder / "core_id").write_text(f"{cpu % 2}\n")

    for allowed, count, expected in (
        (range(8), 1, [{*range(8)}]),
        (range(8), 2, [{0, 4, 1, 5}, {2, 6, 3, 7}]),
        (range(8), 4, [{0, 4}, {1, 5}, {2, 6}, {3, 7}]),
        (range(8), 3, [{0, 4}, {1, 5, 2}, {6, 3, 7}]),
        ([1, 2, 6], 2, [{1}, {2, 6}]),
    ):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, allowed=allowed: set(allowed))
        assert expected == [{*part} for part in split_cpus(count, 8, tmp_path)]
        assert [{*part} for part in split_cpus(len(allowed), 8, tmp_path / "hidden")] == [
            {c} for c in allowed
        ]

"""The server under load, paired with `encode` in this process; or another server, in turn with ours.

    python bench/serve.py                            into bench/results/serve-*.json of this kind of machine
    python bench/serve.py --overload 60 --drain 20   with the long scenarios: seconds, and times
    python bench/serve.py --peer http://127.0.0.1:7997/v1 --model NAME     into serve-*-NAME.json

Clients are coroutines on raw streams, one connection each: a client library would take more of the machine
than the server does. They share the machine with it, so what they use is measured and said. Server and
`encode` take turns, and what is compared are pairs of one turn.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import re
import resource
import statistics
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import uvloop
from main_path import spread

from ov_minilm import Embedder, TruncationWarning
from ov_minilm.bench import machine
from ov_minilm.bench.roofline import best, flop_per_token, peaks
from ov_minilm.bench.workload import workloads
from ov_minilm.files import whole
from ov_minilm.spec import FloatArray

RESULTS = Path(__file__).parent / "results"
ROUNDS = 5
CLIENTS = 32
BATCH = 256
SECONDS = 3.0  # of load in a round
OFFERED = 10  # times its capacity, in an overload
CROWD = 200  # connections that offer it
PAIRED = ("single", "crowd", "mixed", "batch")


@dataclass(frozen=True)
class Target:
    """A server, and how to ask it."""

    url: str  # with /v1
    model: str
    key: str = ""
    pid: int = 0  # of our own, whose memory is watched

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.url)
        return parts.hostname or "127.0.0.1", parts.port or 80

    def request(self, texts: list[str]) -> bytes:
        """Return the bytes of a request for base64."""
        body = json.dumps({"model": self.model, "input": texts, "encoding_format": "base64"}).encode()
        lines = [
            f"POST {urlsplit(self.url).path}/embeddings HTTP/1.1",
            f"host: {self.address[0]}",
            "content-type: application/json",
            f"content-length: {len(body)}",
            *([f"authorization: Bearer {self.key}"] if self.key else []),
        ]
        return "\r\n".join([*lines, "", ""]).encode() + body


class Client:
    """One connection."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Send and return status and body; a connection that the server closed is opened again next time."""
        if self._writer is None or self._reader is None:
            self._reader, self._writer = await asyncio.open_connection(*self._target.address)
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        if length is None:
            raise ValueError("the answer has no content-length")
        body = await self._reader.readexactly(int(length[1]))
        if re.search(rb"(?i)\r\nconnection: *close", head):
            await self.close()
        return int(head[9:12]), body

    async def close(self) -> None:
        """Hang up."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


@dataclass
class Load:
    """What clients saw."""

    seconds: list[float] = field(default_factory=list)  # of each answer with 200
    refused: list[float] = field(default_factory=list)  # of each 429
    wrong: list[str] = field(default_factory=list)
    wall: float = 0.0
    cpu: float = 0.0  # seconds of this process

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.seconds) / self.wall

    def waits(self) -> dict[str, float]:
        """Milliseconds."""
        return {name: round(1000 * float(np.percentile(self.seconds, at)), 3) for name, at in PERCENTILES}


PERCENTILES = (("p50", 50), ("p95", 95), ("p99", 99))


@contextmanager
def measured(load: Load) -> Iterator[None]:
    """Take wall and processor time of the block."""
    started, used = time.perf_counter(), sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    yield
    load.wall = time.perf_counter() - started
    load.cpu = sum(resource.getrusage(resource.RUSAGE_SELF)[:2]) - used


async def closed_loop(target: Target, requests: list[bytes], clients: int, seconds: float) -> Load:
    """Let each client ask again as soon as it has its answer."""
    load = Load()
    connections = [Client(target) for _ in range(clients)]
    for client in connections:
        await client.ask(requests[0])  # connects

    async def work(client: Client, turn: int) -> None:
        while time.perf_counter() < until:
            turn += clients
            started = time.perf_counter()
            status, body = await client.ask(requests[turn % len(requests)])
            if status == 200:
                load.seconds.append(time.perf_counter() - started)
            else:
                load.wrong.append(f"{status}: {body[:200]!r}")

    with measured(load):
        until = time.perf_counter() + seconds
        await asyncio.gather(*(work(client, turn) for turn, client in enumerate(connections)))
    for client in connections:
        await client.close()
    if load.wrong:
        raise RuntimeError(f"{len(load.wrong)} answers were no answers, the first: {load.wrong[0]}")
    return load


def vectors_of(body: bytes) -> FloatArray:
    """Return the vectors of an answer, of either format."""
    found = [one["embedding"] for one in json.loads(body)["data"]]
    if isinstance(found[0], str):
        return np.stack([np.frombuffer(base64.b64decode(one), "<f4") for one in found])
    return np.array(found, np.float32)


def check(target: Target, embedder: Embedder, texts: list[str]) -> float:
    """Return the lowest cosine between the server's vectors and ours; a wrong pooling shows."""

    async def one() -> bytes:
        client = Client(target)
        status, body = await client.ask(target.request(texts))
        await client.close()
        if status != 200:
            raise RuntimeError(f"{target.url} answers {status}: {body[:300]!r}")
        return body

    return float((vectors_of(uvloop.run(one())) * embedder.encode(texts)).sum(1).min())


class Bench:
    """The scenarios, for one server and, in turn with it, for ours beside it."""

    def __init__(self, target: Target, embedder: Embedder, beside: Target | None = None) -> None:
        texts = workloads(embedder.count_tokens, short=2048, long=256)
        self.source = texts.source
        self._short = texts.bulk["short"].texts
        self._long = texts.bulk["long"].texts
        self._one = texts.single[14]
        self._target = target
        self._targets = [target, *([beside] if beside else [])]
        self._embedder = embedder

    def single(self) -> dict[str, Any]:
        """One client, one text of 14 tokens, a connection that stays open."""
        encode, loads = [], []
        for _ in range(ROUNDS):
            calls = [timed(lambda: self._embedder.encode(self._one)) for _ in range(300)]
            encode.append(1000 * statistics.median(calls))
            loads.append(self._loads([[self._one]], 1, SECONDS / 3))

        def figures(ours: list[Load]) -> dict[str, list[float]]:
            p50 = [load.waits()["p50"] for load in ours]
            return {
                "encode_p50_ms": encode,
                "p50_ms": p50,
                "p99_ms": [load.waits()["p99"] for load in ours],
                "over_encode_ms": [served - alone for served, alone in zip(p50, encode, strict=True)],
            }

        return _summary([figures(list(of_one)) for of_one in zip(*loads, strict=True)])

    def crowd(self) -> dict[str, Any]:
        """Many clients, one short text each."""
        return self._against_encode([[text] for text in self._short], CLIENTS)

    def mixed(self) -> dict[str, Any]:
        """As many clients, whose every tenth text is a passage."""
        long = self._long
        texts = [long[i % len(long)] if i % 10 == 9 else text for i, text in enumerate(self._short)]
        return self._against_encode([[text] for text in texts], CLIENTS)

    def batch(self) -> dict[str, Any]:
        """One client, 256 short texts a request."""
        return self._against_encode(
            [self._short[start : start + BATCH] for start in range(0, len(self._short), BATCH)], 1
        )

    def roof(self) -> float:
        """Return how many short texts a second there would be room for in their linear layers alone.

        At the rate of the best INT8 kernel here: with no attention, no tokenizer and no server beside them.
        """
        tokens = sum(self._embedder.count_tokens(self._short)) / len(self._short)
        peak = 1e9 * best(peaks(self._embedder.info.threads))["int8"]
        return peak / (tokens * flop_per_token(self._embedder.spec))

    def _against_encode(self, lists: list[list[str]], clients: int) -> dict[str, Any]:
        """Compare texts a second with one `encode` of them all, and with the cores that clients left."""
        cores = self._embedder.info.threads
        everything = [text for texts in lists for text in texts]
        encode, loads = [], []
        for _ in range(ROUNDS):
            seconds = timed(lambda: self._embedder.encode(everything, progress=False))
            encode.append(len(everything) / seconds)
            loads.append(self._loads(lists, clients, SECONDS))

        def figures(ours: list[Load]) -> dict[str, list[float]]:
            served = [load.rate * len(lists[0]) for load in ours]
            left = [(cores - load.cpu / load.wall) / cores for load in ours]
            waits = [load.waits() for load in ours]
            share = [mine / alone for mine, alone in zip(served, encode, strict=True)]
            return {
                "encode_texts_per_s": encode,
                "texts_per_s": served,
                "share": share,
                "share_of_cores_left": [one / part for one, part in zip(share, left, strict=True)],
                "cores_left": [cores * part for part in left],
                "p50_ms": [one["p50"] for one in waits],
                "p99_ms": [one["p99"] for one in waits],
                "p99_over_p50": [one["p99"] / one["p50"] for one in waits],
            }

        return _summary([figures(list(of_one)) for of_one in zip(*loads, strict=True)])

    def _loads(self, lists: list[list[str]], clients: int, seconds: float) -> list[Load]:
        """Put one server after the other under load."""
        return [
            uvloop.run(closed_loop(target, [target.request(texts) for texts in lists], clients, seconds))
            for target in self._targets
        ]

    def overload(self, seconds: float) -> dict[str, Any]:
        """Offer ten times what it can do, whether it answers or not; then see how soon all is as before."""
        lists = [self._long[start : start + 16] for start in range(0, 128, 16)]
        requests = [self._target.request(one) for one in lists]
        right = [self._embedder.encode(one) for one in lists]
        probe = self._target.request([self._one])
        before = uvloop.run(closed_loop(self._target, [probe], 1, 1.0)).waits()
        capacity = uvloop.run(closed_loop(self._target, requests, 4, 2.0)).rate
        memory = [1024 * machine.kilobytes("VmRSS", self._target.pid)]
        load = Load()
        offered = 0

        async def offer(client: Client, at: int, sent: float) -> None:
            status, body = await client.ask(requests[at])
            took = time.perf_counter() - sent
            if status == 429:
                load.refused.append(took)
            elif status != 200:
                load.wrong.append(f"{status}: {body[:200]!r}")
            elif not np.array_equal(right[at], vectors_of(body)):
                load.wrong.append("another vector")
            else:
                load.seconds.append(took)
            free.append(client)

        async def storm() -> float:
            nonlocal offered
            with measured(load):
                started = time.perf_counter()
                tasks: set[asyncio.Task[None]] = set()
                while (now := time.perf_counter()) < started + seconds:
                    due = int((now - started) * OFFERED * capacity)
                    for offered in range(offered, due):  # noqa: B020  # counts on
                        client = free.pop() if free else Client(self._target)
                        task = asyncio.ensure_future(
                            offer(client, offered % len(requests), time.perf_counter())
                        )
                        tasks.add(task)
                        task.add_done_callback(tasks.discard)
                    offered = max(offered, due)
                    memory.append(1024 * machine.kilobytes("VmRSS", self._target.pid))
                    await asyncio.sleep(0.01)
            calm = time.perf_counter()
            single = Client(self._target)
            while True:
                sent = time.perf_counter()
                status, _ = await single.ask(probe)
                if status == 200 and 1000 * (time.perf_counter() - sent) < 3 * before["p99"] and not tasks:
                    recovered = time.perf_counter() - calm
                    break
                await asyncio.sleep(0.01)
            for client in [single, *free]:
                await client.close()
            return recovered

        free: list[Client] = []
        recovered = uvloop.run(storm())
        return {
            "seconds": seconds,
            "capacity_requests_per_s": round(capacity, 2),
            "offered": offered,
            "accepted": len(load.seconds),
            "refused": len(load.refused),
            "wrong": load.wrong[:10],
            "accepted_per_s_of_capacity": round(len(load.seconds) / (seconds * capacity), 3),
            "accepted_ms": load.waits(),
            "refused_ms": {
                name: round(1000 * float(np.percentile(load.refused, at)), 3)
                for name, at in (*PERCENTILES, ("max", 100))
            },
            "rss_mb": [round(memory[0] / 1e6), round(max(memory) / 1e6), round(memory[-1] / 1e6)],
            "recovered_s": round(recovered, 3),
        }


@contextmanager
def running(*options: str) -> Iterator[tuple[Target, subprocess.Popen[str]]]:
    """Start our server, wait until it is ready, and end it."""
    command = [sys.executable, "-m", "ov_minilm", "serve", "--port", "0", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines: list[str] = []
        for line in process.stderr:
            lines.append(line)
            if found := re.search(r"ready: (\S+/v1) serves ([^,\n]+)", line):
                break
        else:
            raise RuntimeError("the server did not start: " + "".join(lines))
        stream = process.stderr
        rest = threading.Thread(target=lambda: [None for _ in stream], daemon=True)
        rest.start()
        try:
            yield Target(found[1], found[2], pid=process.pid), process
        finally:
            process.terminate()
            process.wait(60)
            rest.join()


def drain(times: int, embedder: Embedder) -> dict[str, Any]:
    """End a server by SIGTERM while clients work; each request that was sent must be answered right."""
    texts = [f"client number {i} asks again and again" for i in range(CLIENTS)]
    right = embedder.encode(texts)
    answered, lost, codes = 0, [], []

    async def work(target: Target, text: str, vector: FloatArray) -> None:
        nonlocal answered
        request = target.request([text])
        client = Client(target)
        while True:
            try:
                status, body = await client.ask(request)
            except ConnectionRefusedError:  # the door is closed: nothing was sent
                return
            except (OSError, asyncio.IncompleteReadError) as error:
                lost.append(repr(error))
                return
            if status != 200 or not np.array_equal(vector, vectors_of(body)[0]):
                lost.append(f"{status}: {body[:200]!r}")
            answered += 1

    async def load(target: Target, process: subprocess.Popen[str]) -> None:
        clients = [asyncio.ensure_future(work(target, *pair)) for pair in zip(texts, right, strict=True)]
        await asyncio.sleep(1)
        process.terminate()
        await asyncio.gather(*clients)

    for _ in range(times):
        with running() as server:
            uvloop.run(load(*server))
            codes.append(server[1].wait(60))
    return {"times": times, "answered": answered, "lost": lost, "exit_codes": sorted(set(codes))}


def _summary(found: list[dict[str, list[float]]]) -> dict[str, Any]:
    """Return medians and extremes of a server's rounds, and of ours beside it with how much better it is."""
    theirs, *others = found
    result: dict[str, Any] = {name: spread(values) for name, values in theirs.items()}
    for ours in others:
        result["ours"] = {name: spread(values) for name, values in ours.items()}
        result["ours_times_better"] = {
            name: spread(
                [
                    other / mine if name.endswith("_ms") else mine / other
                    for mine, other in zip(ours[name], theirs[name], strict=True)
                ]
            )
            for name in ("p50_ms", "p99_ms", "texts_per_s")
            if name in ours
        }
    return result


def timed(call: Callable[[], object]) -> float:
    """Return the seconds of a call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def main() -> None:
    """Measure and write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", metavar="URL", help="another server that runs already; ends in /v1")
    parser.add_argument("--model", help="what the other server calls the model")
    parser.add_argument("--key", default="", help="its API key")
    parser.add_argument("--name", help="its name in the result; default: the model's")
    parser.add_argument("--only", choices=PAIRED, action="append", help="only this scenario; repeatable")
    parser.add_argument("--overload", type=float, metavar="SECONDS", help="ten times its capacity, so long")
    parser.add_argument("--drain", type=int, metavar="TIMES", help="SIGTERM under load, so often")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore", TruncationWarning)  # both sides cut alike
    if options.peer and not options.model:
        parser.error("--peer needs --model")
    if options.peer and (options.overload or options.drain):
        parser.error("--overload and --drain are for our own server")
    name = (options.name or options.model or "").replace("/", "_")
    result: dict[str, Any] = {"machine": machine.facts()}
    path = machine.own_path(result["machine"]["isa"])
    output = options.output or RESULTS / (
        f"serve-{path}-{name}.json" if options.peer else f"serve-{path}.json"
    )
    with Embedder.open() as embedder:
        result |= {"artefact": embedder.info.fingerprint, "threads": embedder.info.threads}
        if options.peer:
            target = Target(options.peer, options.model, options.key)
            with running("--access-log", "off") as (beside, _):
                result |= {"server": name}
                result |= scenarios(target, embedder, options.only or PAIRED, beside=beside)
        else:
            with running("--access-log", "off") as (target, _):
                result |= {"server": "ov_minilm"}
                result |= scenarios(target, embedder, options.only or PAIRED, overload=options.overload)
        if options.drain:
            result["drain"] = drain(options.drain, embedder)
            print("drain", json.dumps(result["drain"]), flush=True)
    with whole(output) as file:
        file.write(json.dumps(result, indent=1).encode() + b"\n")
    print(output)


def scenarios(
    target: Target,
    embedder: Embedder,
    names: Sequence[str],
    *,
    overload: float | None = None,
    beside: Target | None = None,
) -> dict[str, Any]:
    """Run scenarios by name, and say each when it is done."""
    bench = Bench(target, embedder, beside)
    result: dict[str, Any] = {"texts": bench.source}
    result["cosine_min"] = round(
        check(target, embedder, ["one text", "another text", "a third, longer one"]), 5
    )
    result["roof_texts_per_s"] = round(bench.roof(), 1)
    embedder.warm_up()
    for name in names:
        result[name] = getattr(bench, name)()
        print(name, json.dumps(result[name]), flush=True)
    if overload:
        result["overload"] = bench.overload(overload)
        print("overload", json.dumps(result["overload"]), flush=True)
    return result


if __name__ == "__main__":
    main()

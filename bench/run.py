"""Measure everything by one command: workloads, other libraries, servers, jobs, the limit, pictures.

python bench/run.py                       all of it, into bench/results: some hours of quiet
python bench/run.py --quick               two workloads, two peers, and whether the kept ratios hold
python bench/run.py --only sentences --against "ctranslate2 int8"
python bench/run.py --render              measures nothing, draws the pictures
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
from accuracy import NotMeasured, accuracy, smaller_vectors
from environments import Environments, Unavailable, discover
from jobs import memory_budget, parquet
from limit import limit
from pictures import draw_all
from servers import SERVING, Server

from ov_minilm.errors import TruncationWarning
from ov_minilm.files import atomic_write
from ov_minilm.measure.benchmarks import BENCHMARKS, Benchmark
from ov_minilm.measure.command import worth_racing
from ov_minilm.measure.contender import Contender, ContenderFailed, Process, ours
from ov_minilm.measure.race import Race
from ov_minilm.measure.row import FP32, OURS, RATIO, Row, merge, read, shipped_fingerprint
from ov_minilm.measure.texts import Texts
from ov_minilm.runtime import cpus
from ov_minilm.runtime.embedder import Embedder

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
ROWS, UNAVAILABLE = RESULTS / "rows.jsonl", RESULTS / "unavailable.json"
REFERENCE = ROOT / "out/fp32"
HEAT = 8  # peers that run beside ours at a time: a process of torch takes up to 2 GB
QUICK = {"only": ("query", "sentences"), "against": ("onnxruntime int8", "ctranslate2 int8")}


def own_benchmarks(texts: int) -> dict[str, Benchmark]:
    """List what is measured of ours alone, or once for all."""
    return {
        "limit": limit,
        "smaller vectors": smaller_vectors,
        "memory budget": memory_budget,
        "Parquet to Parquet, sentences": parquet(texts, "sentences"),
        "Parquet to Parquet, chunks": parquet(max(500, texts // 40), "chunks"),
    }


@click.command(help=__doc__, context_settings={"max_content_width": 100})
@click.option("--only", multiple=True, metavar="WORKLOAD", help="Repeatable. Default: all.")
@click.option("--against", multiple=True, metavar="PEER", help="Repeatable. Default: all. None: 'nobody'.")
@click.option("--quick", is_flag=True, help="A few minutes; exit 1 if a kept ratio does not hold.")
@click.option("--render", is_flag=True, help="Only draw the pictures.")
@click.option("--seconds", default=20.0, show_default=True, help="Of one contender for one workload.")
@click.option("--texts", default=100_000, show_default=True, help="Rows of the Parquet job.")
@click.option("--threads", type=int, help="Default: what the container grants.")
def main(**options: Any) -> None:
    """Measure what is asked for, keep it, draw it."""
    warnings.simplefilter("ignore", TruncationWarning)
    if not options["render"]:
        kept = read(ROWS) if ROWS.exists() else []
        quick = options["quick"]  # writes nothing: its figures are coarser than those that are kept
        bench = Bench(cpus.threads(options["threads"]), options["seconds"], keep=not quick)
        only, against = (options[k] or (default if quick else ()) for k, default in QUICK.items())
        bench.run(only, against, own_benchmarks(options["texts"]))
        if quick:
            sys.exit(compare(kept, bench.rows))
    for path in draw_all(read(ROWS), RESULTS / "pictures"):
        click.echo(path)


class Bench:
    """One run: who takes part, and what was found so far, which is written after every benchmark."""

    def __init__(self, threads: int, seconds: float, *, keep: bool) -> None:
        self.rows: list[Row] = []
        self._write = keep
        self._unavailable: dict[str, str] = {}
        if UNAVAILABLE.exists():
            self._unavailable = json.loads(UNAVAILABLE.read_text(encoding="utf-8"))
        with Embedder.open(threads=1) as embedder:
            self._texts = Texts(embedder.count_tokens)
            self._texts.make("query")  # reads the words while there is a tokenizer
            self._info = embedder.info
        self._options: dict[str, Any] = {
            "texts": self._texts,
            "threads": threads,
            "artefact": shipped_fingerprint(),
            "seconds": seconds,
            "say": say,
        }

    def run(self, only: Sequence[str], against: Sequence[str], alone: dict[str, Benchmark]) -> None:
        """Run what `only` names, everything if it names nothing, against peers alike."""
        races = {**BENCHMARKS, "accuracy": accuracy}
        known = [*races, *SERVING, *alone]
        for name in only:
            if name not in known:
                raise click.UsageError(f"no workload {name!r}; there are: {'; '.join(known)}")
        chosen = list(only) or known
        mine = worth_racing(ours(None, REFERENCE if REFERENCE.is_dir() else None), self._info)
        peers, servers = self._peers(against)
        if picked := [name for name in chosen if name in races]:
            for contenders in heats(mine, peers):
                self._race(contenders, Process, {name: races[name] for name in picked})
        if picked := [name for name in chosen if name in SERVING]:
            for contenders in heats([our_server()], servers):
                self._race(contenders, Server, {name: SERVING[name] for name in picked})
        if picked := [name for name in chosen if name in alone]:
            self._race(mine[:1], Process, {name: alone[name] for name in picked})

    def _peers(self, against: Sequence[str]) -> tuple[list[Contender], list[Contender]]:
        """Install and prepare peers; return libraries and servers."""
        found = discover()
        environments = Environments(found, say)
        everybody = {f"{peer.name} {variant}": (peer, variant) for peer in found for variant in peer.variants}
        for name in against:
            if name not in everybody and name != "nobody":
                raise click.UsageError(f"no peer {name!r}; there are: {'; '.join(everybody)}")
        libraries: list[Contender] = []
        servers: list[Contender] = []
        for name, (peer, variant) in everybody.items():
            if not against or name in against:
                try:
                    contender = environments.contender(peer, variant)
                except Unavailable as reason:
                    self._leave_out(name, str(reason))
                    continue
                (servers if peer.serves else libraries).append(contender)
        return libraries, servers

    def _race(
        self,
        contenders: Sequence[Contender],
        start: Callable[[Contender, int], Any],
        benchmarks: dict[str, Any],
    ) -> None:
        with ExitStack() as stack:
            race: Race[Any] = stack.enter_context(Race(contenders, start, **self._options))
            for number, (name, benchmark) in enumerate(benchmarks.items(), 1):
                race.part = f"{number} of {len(benchmarks)}, "
                try:
                    self._keep(list(benchmark(race)))
                except NotMeasured as reason:
                    self._leave_out(name, str(reason))
            for name, why in race.failed.items():
                self._leave_out(name, why)
            if race.machine_is_noisy:
                say("this machine is noisy: repeat when it is quiet")

    def _keep(self, rows: Sequence[Row]) -> None:
        """Add rows; of several heats the first gives the figures of ours."""
        known = {row.what for row in self.rows}
        new = [row for row in rows if row.what not in known]
        self.rows += new
        if new and self._write:
            merge(ROWS, new)
            self._write_unavailable({row.contender for row in new} | {row.workload for row in new})

    def _leave_out(self, name: str, why: str) -> None:
        say(f"left out: {name}: {why}")
        self._unavailable[name] = " ".join(why.split())
        if self._write:
            self._write_unavailable(set())

    def _write_unavailable(self, measured: set[str]) -> None:
        self._unavailable = {name: why for name, why in self._unavailable.items() if name not in measured}
        with atomic_write(UNAVAILABLE) as file:
            file.write(json.dumps(self._unavailable, indent=1, sort_keys=True).encode() + b"\n")


def our_server() -> Contender:
    """Describe `ov-minilm serve`."""
    command = (sys.executable, "-m", "ov_minilm", "serve", "--port", "PORT", "--threads", "THREADS")
    return Contender(OURS, "ov-minilm serve", (*command, "--access-log", "off"), "int8")


def heats(mine: Sequence[Contender], peers: Sequence[Contender]) -> Iterator[list[Contender]]:
    """Split peers into groups, each with ours; the first has all of ours."""
    for start in range(0, max(1, len(peers)), HEAT):
        wanted = [one for one in mine if not start or one.name in (OURS, FP32)]
        yield [*wanted, *peers[start : start + HEAT]]


def compare(kept: Sequence[Row], new: Sequence[Row]) -> int:
    """Print each ratio beside the kept one of this machine; return 1 if one lies outside its interval."""
    before = {(row.machine, row.what): row for row in kept}
    moved = False
    for row in (one for one in new if one.quantity == RATIO):
        old = before.get((row.machine, row.what))
        outside = old is not None and not old.low <= row.value <= old.high
        moved |= outside
        against = f"kept {old.value:.2f}× ({old.low:.2f} to {old.high:.2f})" if old else "none kept"
        state = "new  " if old is None else "MOVED" if outside else "holds"
        click.echo(f"{state}  {row.workload} against {row.contender}: {row.value:.2f}×, {against}")
    return int(moved)


def say(line: str) -> None:
    """Tell on stderr what is going on."""
    click.echo(line, err=True)


if __name__ == "__main__":
    try:
        main()
    except ContenderFailed as error:
        raise SystemExit(f"ours failed: {error}") from error

"""Measure everything: workloads, other libraries, servers, jobs, the limit; and draw the pictures.

Without options, it measures everything for hours, on a quiet machine, and writes bench/results.

Examples:
  python bench/run.py --quick      two workloads, two peers; compares ratios with the committed ones
  python bench/run.py --only sentences --against "ctranslate2 int8"
  python bench/run.py --render     only draw the pictures from the committed rows
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
from accuracy import NotMeasured, accuracy, smaller_vectors
from environments import Environments, Unavailable, discover
from jobs import memory_budget, parquet, reuse, vector_cache
from limit import limit
from pictures import draw_all
from servers import OUR_SERVER, SERVING, Server, our_server

from ov_minilm.errors import TruncationWarning
from ov_minilm.files import atomic_write
from ov_minilm.measure.benchmarks import BENCHMARKS
from ov_minilm.measure.command import without_duplicates
from ov_minilm.measure.contender import Contender, ContenderFailed, Process, ours
from ov_minilm.measure.race import Race
from ov_minilm.measure.row import FP32, OURS, RATIO, Row, merge, read, shipped_fingerprint
from ov_minilm.measure.texts import Texts
from ov_minilm.runtime import cpus
from ov_minilm.runtime.embedder import Embedder

RESULTS = Path(__file__).parent / "results"
ROWS, UNAVAILABLE = RESULTS / "rows.jsonl", RESULTS / "unavailable.json"
REFERENCE = Path(__file__).parents[1] / "out/fp32"
# peers loaded at the same time, in addition to ov_minilm; a process with torch takes up to 2 GB
PEERS_AT_A_TIME = 8
QUICK = {"only": ("query", "sentences"), "against": ("onnxruntime int8", "ctranslate2 int8")}
say = partial(click.echo, err=True)
HELP = (__doc__ or "").replace("Examples:", "\b\nExamples:")  # after \b click keeps line breaks
RACES: dict[str, Any] = {**BENCHMARKS, "accuracy": accuracy}
OURS_ALONE = {  # benchmarks of ov_minilm alone
    "limit": limit,
    "smaller vectors": smaller_vectors,
    "memory budget": memory_budget,
    "vector cache": vector_cache,
    "encode --reuse": reuse,
    "Parquet to Parquet, sentences": parquet(1_000_000, "sentences"),
    "Parquet to Parquet, chunks": parquet(5_000, "chunks"),
}


@click.command(help=HELP, context_settings={"max_content_width": 100})
@click.option("--only", multiple=True, metavar="WORKLOAD", help="Only this one. Repeatable. Default: all.")
@click.option("--against", multiple=True, metavar="PEER", help="Only this one, or 'nobody'. Repeatable.")
@click.option("--quick", is_flag=True, help="A few minutes; writes nothing; exit code 1 if a ratio changed.")
@click.option("--render", is_flag=True, help="Draw the pictures, measure nothing.")
@click.option("--seconds", default=20.0, show_default=True, help="Time for each contender and workload.")
@click.option("--threads", type=int, help="CPU threads. Default: the CPUs that this process may use.")
def main(**options: Any) -> None:
    """Run benchmarks, store their rows, and draw the pictures."""
    warnings.simplefilter("ignore", TruncationWarning)
    if not options["render"]:
        stored = read(ROWS) if ROWS.exists() else []
        # --quick writes nothing, because its figures are less precise than the committed ones
        quick = options["quick"]
        bench = Bench(cpus.threads(options["threads"]), options["seconds"], write=not quick)
        bench.run(*(options[name] or (default if quick else ()) for name, default in QUICK.items()))
        if quick:
            sys.exit(compare(stored, bench.rows))
    for path in draw_all(read(ROWS), RESULTS / "pictures"):
        click.echo(path)


class Bench:
    """A run: starts contenders, and writes rows after every benchmark."""

    def __init__(self, threads: int, seconds: float, *, write: bool) -> None:
        self.rows: list[Row] = []
        self._write = write
        self._unavailable: dict[str, str] = {}  # contender or workload that could not be measured -> reason
        if UNAVAILABLE.exists():
            self._unavailable = json.loads(UNAVAILABLE.read_text(encoding="utf-8"))
        with Embedder.open(threads=1) as embedder:
            texts = Texts(embedder.count_tokens)
            texts.make("query")  # needs the embedder: counts tokens of words
            self._info = embedder.info
        self._options: dict[str, Any] = {"texts": texts, "threads": threads, "seconds": seconds, "say": say}
        self._options["artefact"] = shipped_fingerprint()

    def run(self, only: Sequence[str], against: Sequence[str]) -> None:
        """Run the workloads in `only` against the peers in `against`; an empty list means all."""
        known = [*RACES, *SERVING, *OUR_SERVER, *OURS_ALONE]
        for name in only:
            if name not in known:
                raise click.UsageError(f"no workload {name!r}; there are: {'; '.join(known)}")
        our_contenders = without_duplicates(ours(None, REFERENCE if REFERENCE.is_dir() else None), self._info)
        peers, servers = self._peers(against)
        for contenders in peer_groups(our_contenders, peers):
            self._race(contenders, Process, RACES, only)
        for contenders in peer_groups([our_server()], servers):
            self._race(contenders, Server, SERVING, only)
        self._race([our_server()], Server, OUR_SERVER, only)
        self._race(our_contenders[:1], Process, OURS_ALONE, only)

    def _peers(self, against: Sequence[str]) -> tuple[list[Contender], list[Contender]]:
        """Install and prepare peers; return libraries and servers."""
        peers = discover()
        environments = Environments(peers, say)
        variants = {f"{peer.name} {variant}": (peer, variant) for peer in peers for variant in peer.variants}
        for name in against:
            if name not in variants and name != "nobody":
                raise click.UsageError(f"no peer {name!r}; there are: {'; '.join(variants)}")
        kinds: tuple[list[Contender], list[Contender]] = [], []
        for name, (peer, variant) in variants.items():
            if not against or name in against:
                try:
                    kinds[peer.serves].append(environments.contender(peer, variant))
                except Unavailable as reason:
                    self._store([], {name: str(reason)})
        return kinds

    def _race(
        self, contenders: Sequence[Contender], start: Any, benchmarks: Mapping[str, Any], only: Sequence[str]
    ) -> None:
        selected = [name for name in benchmarks if not only or name in only]
        if not selected:
            return
        race: Race[Any]
        with Race(contenders, start, **self._options) as race:
            for number, name in enumerate(selected, 1):
                race.part = f"{number} of {len(selected)}, "
                try:
                    self._store(list(benchmarks[name](race)), {})
                except NotMeasured as reason:
                    self._store([], {name: str(reason)})
            self._store([], race.failed)
            if race.machine_is_noisy:
                say("this machine is noisy: repeat when it is quiet")

    def _store(self, rows: Sequence[Row], left_out: Mapping[str, str]) -> None:
        """Store rows that no earlier group has measured, and the reasons for missing rows."""
        for name, reason in left_out.items():
            say(f"left out: {name}: {reason}")
        known = {row.what for row in self.rows}
        new = [row for row in rows if row.what not in known]
        self.rows += new
        self._unavailable |= {name: " ".join(reason.split()) for name, reason in left_out.items()}
        for row in new:
            for name in (row.contender, row.workload):
                self._unavailable.pop(name, None)
        if self._write and (new or left_out):
            if new:
                merge(ROWS, new)
            with atomic_write(UNAVAILABLE) as file:
                file.write(json.dumps(self._unavailable, indent=1, sort_keys=True).encode() + b"\n")


def peer_groups(our_contenders: Sequence[Contender], peers: Sequence[Contender]) -> Iterator[list[Contender]]:
    """Split peers into groups and add ov_minilm to each; the first group has all variants of ov_minilm."""
    for start in range(0, max(1, len(peers)), PEERS_AT_A_TIME):
        ours_in_group = [one for one in our_contenders if not start or one.name in (OURS, FP32)]
        yield [*ours_in_group, *peers[start : start + PEERS_AT_A_TIME]]


def compare(committed: Sequence[Row], new: Sequence[Row]) -> int:
    """Print new and committed ratios; return 1 if a new ratio is outside of its committed interval."""
    by_name, any_changed = {(row.machine, row.what): row for row in committed}, 0
    for row in (one for one in new if one.quantity == RATIO):
        state, comparison = "new    ", "no committed ratio"
        if old := by_name.get((row.machine, row.what)):
            state = "same   " if old.low <= row.value <= old.high else "CHANGED"
            comparison = f"committed {old.value:.2f}× ({old.low:.2f} to {old.high:.2f})"
        any_changed |= state == "CHANGED"
        click.echo(f"{state}  {row.workload} against {row.contender}: {row.value:.2f}×, {comparison}")
    return any_changed


if __name__ == "__main__":
    try:
        main()
    except ContenderFailed as error:
        raise SystemExit(f"ours failed: {error}") from error

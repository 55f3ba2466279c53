"""The benchmark on a terminal: a bar while it runs, tables when it is done."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from ov_minilm.bench.measure import OURS, REFERENCE


class Bar:
    """Lines that stay above, and one bar that moves; without a terminal a line for each step."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task = bar.add_task("starting", total=None)

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._bar.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def step(self, done: int, total: int, what: str) -> None:
        """Move the bar."""
        self._bar.update(self._task, completed=done, total=total, description=what)
        if self._bar.disable:
            self.say(f"{done + 1}/{total} {what}")


@contextmanager
def bar() -> Iterator[Bar]:
    """Show a bar on stderr until the block ends."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as progress:
        yield Bar(progress)


def show(result: dict[str, Any]) -> None:
    """Print the tables of a result."""
    console = Console(soft_wrap=not sys.stdout.isatty())
    machine = result["machine"]
    console.print(
        f"{machine['cpu']} ({', '.join(machine['isa'])}; limit {machine['isa_limit']}), "
        f"{result['threads']} threads, artefact {result.get('artefact', '?')}; texts: {result['texts']}",
        highlight=False,
    )
    console.print(_race(result))
    console.print(_single(result))
    for name, reason in result["unavailable"].items():
        console.print(f"not measured: {name}: {reason}", highlight=False, markup=False)
    if result["noisy"]:
        console.print(f"noisy (rounds differ by more than {result['noise_bound']:.0%}):", highlight=False)
        for what in result["noisy"]:
            console.print(f"  {what}", highlight=False)
    if result["interrupted"]:
        console.print("interrupted: what was measured until then", highlight=False)


def _race(result: dict[str, Any]) -> Table:
    table = Table(title="texts a second, median (best); ours ×: how many times faster ov_minilm is")
    table.add_column("contender")
    for name, facts in result["workloads"].items():
        table.add_column(f"{name}, {facts['mean_tokens']:.0f} tokens", justify="right")
        table.add_column("ours ×", justify="right")
    table.add_column("cosine", justify="right")
    table.add_column("peak MB", justify="right")
    for name, contender in result["contenders"].items():
        cells = [name]
        for workload in result["workloads"]:
            figures = contender.get("throughput", {}).get(workload)
            cells += [_rate(figures), _times(figures, name)]
        cosine = contender.get("cosine", {}).get("short")
        cells += [f"{cosine['mean']:.4f}" if cosine else "", str(contender.get("peak_mb", ""))]
        table.add_row(*cells, style="bold" if name == OURS else None)
    return table


def _single(result: dict[str, Any]) -> Table:
    table = Table(title="one text, milliseconds p50 by tokens (p95 and p99 in --json)")
    table.add_column("contender")
    lengths = list(result["contenders"].get(OURS, {}).get("latency_ms", {}))
    for tokens in lengths:
        table.add_column(tokens, justify="right")
    for name, contender in result["contenders"].items():
        figures = [contender.get("latency_ms", {}).get(tokens) for tokens in lengths]
        cells = [f"{f['p50']:.2f}" if f else "" for f in figures]
        table.add_row(name, *cells, style="bold" if name == OURS else None)
    return table


def _rate(figures: dict[str, float] | None) -> str:
    return f"{figures['median']:.0f} ({figures['best']:.0f})" if figures else ""


def _times(figures: dict[str, Any] | None, name: str) -> str:
    ratio = figures["ours_is_faster"] if figures else None
    return f"{ratio['median']:.2f}" if ratio and name != OURS else ""


def headline(result: dict[str, Any]) -> str | None:
    """One sentence: INT8 against FP32; None without a reference."""
    reference = result["contenders"].get(REFERENCE, {})
    if not reference.get("throughput") or not reference.get("latency_ms"):
        return None
    parts = [
        f"{figures['ours_is_faster']['median']:.1f}× on {name} texts"
        for name, figures in reference["throughput"].items()
        if figures["ours_is_faster"]
    ]
    tokens, figures = next(iter(reference["latency_ms"].items()))
    parts.append(f"{figures['ours_is_faster']['median']:.1f}× for one text of {tokens} tokens")
    return f"INT8 against FP32: {', '.join(parts)}"

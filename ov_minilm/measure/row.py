"""One measured figure with its conditions, and the file in which these rows are stored."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ov_minilm.artefact.manifest import SHIPPED, Manifest
from ov_minilm.files import atomic_write

OURS, FP32 = "ov_minilm", "ov_minilm FP32"  # names of this package's contenders in rows
RATIO = "ours_times_better"

UNITS = {"texts_per_s": "texts/s", "tokens_per_s": "tokens/s", "gflops": "GFLOP/s"}  # quantity -> unit
UNITS |= {"p50_ms": "ms", "p99_ms": "ms", "first_vector_s": "s", "peak_mb": "MB", "pss_mb": "MB"}
UNITS |= {"cosine": "cosine", "spearman": "points", "spearman_change": "points", "overlap": "share"}
UNITS |= {"bytes": "bytes", "share": "%", RATIO: "×"}
LOWER_IS_BETTER = frozenset({"ms", "s", "MB"})


class StaleRows(ValueError):
    """Rows were measured with an artefact that is not the one in the package."""


@dataclass(frozen=True, slots=True)
class Row:
    """A measured figure with its conditions: machine, artefact, versions and date."""

    what: str  # workload/contender/quantity, as in "sentences/ov_minilm/texts_per_s"
    value: float  # median of the rounds
    unit: str
    low: float  # 5th percentile of the rounds
    high: float  # 95th percentile of the rounds
    rounds: int
    machine: str  # processor, instruction sets, threads
    artefact: str  # fingerprint of the artefact
    versions: str  # versions of the contender's libraries
    taken: str  # date of the measurement, in ISO 8601

    @property
    def workload(self) -> str:
        """The name of the benchmark, such as "sentences"."""
        return self.what.split("/")[0]

    @property
    def contender(self) -> str:
        """The name of the library or configuration that was measured."""
        return self.what.split("/")[1]

    @property
    def quantity(self) -> str:
        """The quantity, a key of UNITS."""
        return self.what.split("/")[2]


def shipped_fingerprint() -> str:
    """Return the fingerprint of the artefact in the package."""
    return Manifest.read(SHIPPED).fingerprint


def refuse_stale(rows: Sequence[Row], artefact: str) -> None:
    """Refuse rows that were measured with another artefact.

    StaleRows: the message has both fingerprints.
    """
    for row in rows:
        if row.artefact != artefact:
            raise StaleRows(
                f"{row.what} was measured with artefact {row.artefact}, but this is {artefact}: measure again"
            )


def read(path: Path) -> list[Row]:
    """Read a file of rows, JSON lines. ValueError: a line is not a row; the message names it."""
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            rows.append(Row(**json.loads(line)))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}, line {number}: not a row ({error})") from error
    return rows


def merge(path: Path, new: Iterable[Row]) -> None:
    """Write rows into a file; a new row replaces the old row with the same `what` and machine.

    Rows of other artefacts are removed.
    """
    new = list(new)
    artefacts = {row.artefact for row in new}
    old = [row for row in (read(path) if path.exists() else []) if row.artefact in artefacts]
    rows = {(row.machine, row.what): row for row in (*old, *new)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        for _, row in sorted(rows.items()):
            file.write((json.dumps(dataclasses.asdict(row), ensure_ascii=False) + "\n").encode())

"""Contenders as processes, with the real worker and toy adapters."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.adapters import contender

from ov_minilm.measure import contender as module
from ov_minilm.measure.contender import ContenderFailed, Process

TEXTS = ["four", "a longer text", "", "six or"]


def written(folder: Path, texts: list[str]) -> str:
    """Write a list where a worker can read it."""
    path = folder / f"{len(texts)}.json"
    path.write_text(json.dumps(texts))
    return str(path)


@pytest.mark.parametrize("in_order", [False, True])
def test_vectors_come_back_in_the_order_of_the_texts(tmp_path: Path, in_order: bool) -> None:
    """Also where the worker sorts texts by length and cuts them into batches."""
    with Process(contender(tmp_path, in_order=in_order), threads=1) as process:
        vectors = process.vectors(written(tmp_path, TEXTS))

    assert np.array([[len(text) / 10, 0.1] for text in TEXTS]) == pytest.approx(vectors)
    assert np.float32 == vectors.dtype


@pytest.mark.parametrize(
    ("do", "more", "calls"),
    [("time", {}, 1), ("each", {}, len(TEXTS)), ("crowd", {"callers": 3}, len(TEXTS))],
)
def test_every_call_has_its_seconds(tmp_path: Path, do: str, more: dict[str, int], calls: int) -> None:
    """One for a list, one for each text that is asked alone, also by several callers."""
    path = written(tmp_path, TEXTS)

    with Process(contender(tmp_path), threads=1) as process:
        answer = process.ask(do, texts=path, **more)

    assert calls == len(answer["seconds"])
    assert all(0 < seconds <= answer.get("wall", 60) for seconds in answer["seconds"])


def test_texts_are_asked_beside_a_list(tmp_path: Path) -> None:
    """While another thread encodes the list again and again."""
    with Process(contender(tmp_path), threads=1) as process:
        answer = process.ask("beside", texts=written(tmp_path, TEXTS), list=written(tmp_path, TEXTS * 9))

    assert len(TEXTS) == len(answer["seconds"])
    assert answer["texts_per_s"] > 0


def test_tune_keeps_one_of_the_batch_sizes(tmp_path: Path) -> None:
    """The fastest of those that the adapter offers: a quarter of the calls, each of which takes its time."""
    path = written(tmp_path, TEXTS * 5)

    with Process(contender(tmp_path, in_order=True), threads=1) as process:
        found = [process.ask("tune", texts=path, first=20)["batch"] for _ in range(2)]

    assert [4, 4] == found


def test_memory_is_of_the_process_itself(tmp_path: Path) -> None:
    """Not that of a large parent."""
    ballast = np.ones(200_000_000, np.uint8)

    with Process(contender(tmp_path), threads=1) as process:
        now, peak = process.memory_mb("VmRSS"), process.memory_mb("VmHWM")

    assert ballast.sum() > 0
    assert 5 < now <= peak < 150


def test_a_contender_that_cannot_load_says_why_in_one_line(tmp_path: Path) -> None:
    """The exception's kind and message, newlines folded."""
    with pytest.raises(ContenderFailed, match=r"^toy: OSError: no model$"):
        Process(contender(tmp_path, "broken"), threads=1)


def test_a_contender_that_dies_leaves_its_last_words(tmp_path: Path) -> None:
    """What it printed last, and its exit code."""
    with pytest.raises(ContenderFailed, match=r"the process ended: last words \(exit code 3\)"):
        Process(contender(tmp_path, "dies"), threads=1)


def test_an_error_leaves_the_contender_usable(tmp_path: Path) -> None:
    """The next request is answered."""
    with Process(contender(tmp_path), threads=1) as process:
        with pytest.raises(ContenderFailed, match="cannot encode"):
            process.vectors(written(tmp_path, ["fail"]))
        assert (2, 2) == process.vectors(written(tmp_path, ["fine", "fine"])).shape


def test_a_contender_that_hangs_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the patience is over, with the name of who hung."""
    hung = contender(tmp_path, name="sleeper")
    Path(hung.command[-1]).write_text("import time; time.sleep(60)")
    monkeypatch.setattr(module, "ANSWER_TIMEOUT_S", 0.3)

    with pytest.raises(ContenderFailed, match=r"sleeper: no answer to load in 0 s"):
        Process(hung, threads=1)


def test_threads_bound_the_pools_of_libraries(tmp_path: Path) -> None:
    """OpenMP and rayon read the number of threads from the environment."""
    asked = contender(tmp_path, name="asker")
    Path(asked.command[-1]).write_text(
        "import os\nBATCHES = (); SORTED = False\n"
        "def load(*_): return lambda texts, batch: [[int(os.environ['OMP_NUM_THREADS'])]] * len(texts)"
    )

    with Process(asked, threads=3) as process:
        assert [[3.0]] == process.vectors(written(tmp_path, ["a"])).tolist()

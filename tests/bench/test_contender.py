"""Contenders as processes, with the real worker and toy adapters."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from adapters import contender
from ov_minilm.bench import contender as module
from ov_minilm.bench.contender import ContenderFailed, Process

TEXTS = ["four", "a longer text", "", "six or"]


@pytest.mark.parametrize("in_order", [False, True])
def test_vectors_come_back_in_the_order_of_the_texts(tmp_path: Path, in_order: bool) -> None:
    """Also where the worker sorts texts by length and cuts them into batches."""
    with Process(contender(tmp_path, in_order=in_order), threads=1) as process:
        vectors = process.encode(TEXTS)

    assert np.array([[len(text) / 10, 0.1] for text in TEXTS]) == pytest.approx(vectors)
    assert np.float32 == vectors.dtype


def test_time_gives_the_seconds_of_every_call(tmp_path: Path) -> None:
    """As many figures as calls, each above zero."""
    path = tmp_path / "texts.json"
    path.write_text(json.dumps(TEXTS))

    with Process(contender(tmp_path), threads=1) as process:
        seconds = process.ask({"do": "time", "texts": str(path), "calls": 5})["seconds"]

    assert 5 == len(seconds)
    assert all(s > 0 for s in seconds)


def test_tune_keeps_one_of_the_batch_sizes(tmp_path: Path) -> None:
    """The fastest of those that the adapter offers."""
    path = tmp_path / "texts.json"
    path.write_text(json.dumps(TEXTS * 50))

    with Process(contender(tmp_path, in_order=True), threads=1) as process:
        batch = process.ask({"do": "tune", "texts": str(path), "first": 100})["batch"]

    assert 4 == batch  # a quarter of the calls


def test_memory_is_of_the_process_itself(tmp_path: Path) -> None:
    """Not that of a large parent."""
    ballast = np.ones(200_000_000, np.uint8)

    with Process(contender(tmp_path), threads=1) as process:
        memory = process.ask({"do": "memory"})

    assert ballast.sum() > 0
    assert 5 < memory["now_mb"] <= memory["peak_mb"] < 150


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
            process.encode(["fail"])
        assert (1, 2) == process.encode(["fine"]).shape


def test_a_contender_that_hangs_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the patience is over, with the name of who hung."""
    hung = contender(tmp_path, name="sleeper")
    Path(hung.command[-1]).write_text("import time; time.sleep(60)")
    monkeypatch.setattr(module, "PATIENCE", 0.3)

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
        assert [[3.0]] == process.encode(["a"]).tolist()

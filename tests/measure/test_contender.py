"""Contenders as processes, with the real worker and toy adapters."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ov_minilm.measure import contender as module
from ov_minilm.measure.contender import WORKER, Contender, ContenderFailed, Process

TEXTS = ["four", "a longer text", "", "six or"]
ADAPTER = """
import os, sys, time
import numpy as np
SORTED = {sorted}
BATCHES = (1, 4)
def load(variant, models, threads):
    print("chatter of a library")
    if variant == "broken":
        raise OSError("no\\nmodel")
    if variant == "dies":
        print("last words", file=sys.stderr); sys.stderr.flush(); os._exit(3)
    if variant == "hangs":
        sys.stdin.readline()
    def encode(texts, batch=None):
        if texts[0] == "fail":
            raise ValueError("cannot encode")
        time.sleep(0.002)  # each call has a cost, as those of real libraries
        return np.array([[len(text), int(os.environ["OMP_NUM_THREADS"])] for text in texts]) / 10
    return encode
"""


def contender(folder: Path, variant: str = "plain", *, in_order: bool = False) -> Contender:
    """Make a contender whose vectors are (length / 10, threads / 10)."""
    (folder / "toy.py").write_text(ADAPTER.format(sorted=in_order), encoding="utf-8")
    return Contender("toy", "a toy", (sys.executable, "-I", str(WORKER), str(folder / "toy.py")), variant)


def written(folder: Path, texts: list[str]) -> str:
    """Write a list where a worker can read it."""
    path = folder / f"{len(texts)}.json"
    path.write_text(json.dumps(texts))
    return str(path)


@pytest.fixture(scope="module", params=[False, True], ids=["batches itself", "is given sorted batches"])
def toy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A contender that runs, with three threads."""
    with Process(contender(tmp_path_factory.mktemp("toy"), in_order=request.param), threads=3) as process:
        yield process


def test_vectors_come_back_in_the_order_of_the_texts(toy: Process, tmp_path: Path) -> None:
    """As float32; pools of libraries have the threads; an error, in one line, leaves the contender usable."""
    for _ in range(2):
        vectors = toy.vectors(written(tmp_path, TEXTS))
        assert np.array([[len(text) / 10, 0.3] for text in TEXTS]) == pytest.approx(vectors)
        assert np.float32 == vectors.dtype
        with pytest.raises(ContenderFailed, match=r"^toy: ValueError: cannot encode$"):
            toy.vectors(written(tmp_path, ["fail"]))


@pytest.mark.parametrize(
    ("do", "more", "calls"),
    [("time", {}, 1), ("each", {}, 4), ("crowd", {"callers": 3}, 4), ("beside", {"list": TEXTS * 9}, 4)],
)
def test_every_call_has_its_seconds(
    toy: Process, tmp_path: Path, do: str, more: dict[str, object], calls: int
) -> None:
    """One for a list, and one for each text that is asked alone, by several callers, or beside a list."""
    if "list" in more:
        more = {"list": written(tmp_path, TEXTS * 9)}

    answer = toy.ask(do, texts=written(tmp_path, TEXTS), **more)

    assert calls == len(answer["seconds"])
    assert all(0 < seconds <= answer.get("wall", 60) for seconds in answer["seconds"])
    assert answer.get("texts_per_s", 1) > 0


def test_tune_keeps_one_of_the_batch_sizes(toy: Process, tmp_path: Path) -> None:
    """The fastest that the adapter offers, where it matters: a quarter of the calls, each with its cost."""
    path = written(tmp_path, TEXTS * 5)

    found = [toy.ask("tune", texts=path, first=20)["batch"] for _ in range(2)]

    assert found[0] == found[1]
    assert found[0] in ({4} if "True" in Path(toy.contender.command[-1]).read_text() else {1, 4})


def test_memory_is_of_the_process_itself(toy: Process) -> None:
    """Not that of a large parent."""
    ballast = np.ones(200_000_000, np.uint8)

    assert ballast.sum() > 0
    assert 5 < toy.memory_mb("VmRSS") <= toy.memory_mb("VmHWM") < 150


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ("broken", r"^toy: OSError: no model$"),  # newlines folded
        ("dies", r"^toy: the process ended: last words \(exit code 3\)"),
        ("hangs", r"^toy: no answer to load in 1 s"),
    ],
)
def test_a_contender_that_does_not_start_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: str, message: str
) -> None:
    """An error, a death and silence each become one line."""
    if variant == "hangs":
        monkeypatch.setattr(module, "ANSWER_TIMEOUT_S", 0.6)

    with pytest.raises(ContenderFailed, match=message):
        Process(contender(tmp_path, variant), threads=1)

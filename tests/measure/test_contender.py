"""Contenders in processes of their own: the real worker with a small adapter."""

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
        time.sleep(0.002)  # a cost for each call, as in real libraries
        return np.array([[len(text), int(os.environ["OMP_NUM_THREADS"])] for text in texts]) / 10
    return encode
"""


def contender(folder: Path, variant: str = "plain", *, in_order: bool = False) -> Contender:
    """Return a contender whose vectors are [characters / 10, threads / 10]."""
    (folder / "toy.py").write_text(ADAPTER.format(sorted=in_order), encoding="utf-8")
    return Contender("toy", "a toy", (sys.executable, "-I", str(WORKER), str(folder / "toy.py")), variant)


@pytest.fixture(scope="module", params=[False, True], ids=["own batches", "sorted batches"])
def toy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A running contender with three threads."""
    with Process(contender(tmp_path_factory.mktemp("toy"), in_order=request.param), threads=3) as process:
        yield process


def test_a_contender_encodes_and_is_timed(toy: Process, tmp_path: Path) -> None:
    """The process returns vectors, the best batch size, times and memory, also after an error."""

    def file(texts: list[str]) -> str:
        path = tmp_path / f"{len(texts)}.json"
        path.write_text(json.dumps(texts))
        return str(path)

    for _ in range(2):
        vectors = toy.vectors(file(TEXTS))
        assert np.array([[len(text) / 10, 0.3] for text in TEXTS]) == pytest.approx(vectors)
        assert np.float32 == vectors.dtype
        with pytest.raises(ContenderFailed, match=r"^toy: ValueError: cannot encode$"):
            toy.vectors(file(["fail"]))

    is_sorted = "SORTED = True" in Path(toy.contender.command[-1]).read_text(encoding="utf-8")
    chosen = {toy.ask("tune", texts=file(TEXTS * 5), first=20)["batch"] for _ in range(2)}
    assert chosen == {4} if is_sorted else len(chosen) == 1  # its own batches ignore the size
    during_list = {"list": file(TEXTS * 9)}
    for do, more in {"time": {}, "each": {}, "callers": {"callers": 3}, "during_list": during_list}.items():
        answer = toy.ask(do, texts=file(TEXTS), **more)  # type: ignore[arg-type]
        assert (1 if do == "time" else 4) == len(answer["seconds"]), do
        assert all(0 < seconds <= answer.get("wall", 60) for seconds in answer["seconds"]), do
        assert answer.get("texts_per_s", 1) > 0
    ballast = np.ones(200_000_000, np.uint8)  # in this process, not in the contender
    assert 5 < toy.memory_mb("VmRSS") <= toy.memory_mb("VmHWM") < 150 < ballast.nbytes


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ("broken", r"^toy: OSError: no model$"),  # without the newline of the error
        ("dies", r"^toy: the process ended: last words \(exit code 3\)"),
        ("hangs", r"^toy: no answer to load in 1 s"),
    ],
)
def test_a_contender_that_fails_to_start_gives_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: str, message: str
) -> None:
    """An error, a crash and a timeout each become one line."""
    if variant == "hangs":
        monkeypatch.setattr(module, "ANSWER_TIMEOUT_S", 0.6)

    with pytest.raises(ContenderFailed, match=message):
        Process(contender(tmp_path, variant), threads=1)

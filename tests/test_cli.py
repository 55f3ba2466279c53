"""The command line as its users meet it: pipes, typos, empty input, Ctrl-C, exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import run

from ov_minilm import Embedder, __version__
from ov_minilm.manifest import Manifest


def test_lines_become_json_lines(shipped: Embedder) -> None:
    """Stdin to stdout: one JSON object a line, floats exact."""
    done = run("encode", text="a man\n\nnaïve café\n".encode())

    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert 0 == done.returncode, done.stderr
    assert ["a man", "", "naïve café"] == [row["text"] for row in rows]
    assert np.array_equal(
        shipped.encode(["a man", "", "naïve café"]), np.array([row["embedding"] for row in rows], np.float32)
    )


def test_files_become_npy(tmp_path: Path, shipped: Embedder) -> None:
    """Text and JSON-line files in one call, in order, into one array; one line on stderr says so."""
    (tmp_path / "a.txt").write_bytes(b"one\r\ntwo\n")
    (tmp_path / "b.jsonl").write_text('{"text": "three", "id": 3}\n')

    done = run("encode", tmp_path / "a.txt", tmp_path / "b.jsonl", "-o", tmp_path / "out.npy")

    assert 0 == done.returncode, done.stderr
    assert b"3 vectors of 384 components" in done.stderr
    assert np.array_equal(shipped.encode(["one", "two", "three"]), np.load(tmp_path / "out.npy"))


def test_no_input_is_no_output(tmp_path: Path) -> None:
    """Empty input is legal: no line, or an array of shape (0, 384)."""
    done = run("encode", text=b"")
    written = run("encode", "-o", tmp_path / "out.npy", text=b"")

    assert (0, b"") == (done.returncode, done.stdout)
    assert 0 == written.returncode
    assert (0, 384) == np.load(tmp_path / "out.npy").shape


@pytest.mark.parametrize(
    ("arguments", "text", "message"),
    [
        (["encode", "--formt", "text"], b"a", "No such option"),
        (["encod"], b"", "No such command"),
        (["encode", "no-such-file.txt"], b"", "does not exist"),
        (["encode", "-o", "out.csv"], b"a", "must end in .npy or .jsonl"),
        (["encode", "-o", "/no/such/folder/out.npy"], b"a", "/no/such/folder"),
        (["encode", "--format", "jsonl"], b'{"text": "a"}\n{"txt": "b"}\n', "stdin, line 2"),
        (["encode", "--format", "jsonl"], b"not json\n", "stdin, line 1"),
        (["encode", "--format", "jsonl"], b'{"text": 3}\n', "'text' is int"),
        (["encode"], b"ok\n\xff\xfe\n", "stdin, line 2: not UTF-8"),
        (["encode", "--device", "GPU.9"], b"a", "this machine has"),
        (["encode", "--model", "."], b"a", "manifest.json: not found"),
        (["encode", "--truncate", "error"], b"word " * 300, "text 0 has 302 tokens"),
        (["encode", "--precision", "f16"], b"a", "use bf16 or f32"),
        (["drift", "--reference", "."], b"", "nothing to measure on"),
    ],
)
def test_bad_usage_is_one_clear_line(arguments: list[str], text: bytes, message: str, tmp_path: Path) -> None:
    """Exit code 2, what is wrong on stderr, no trace, and no file left."""
    done = subprocess.run(
        [sys.executable, "-m", "ov_minilm", *arguments],
        input=text,
        capture_output=True,
        cwd=tmp_path,
        env={**os.environ, "OV_MINILM_STSB": ""},
        check=False,
    )

    assert 2 == done.returncode, done.stderr
    assert message in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert [] == list(tmp_path.iterdir())


def test_debug_shows_the_trace() -> None:
    """--debug, wherever it stands, adds the trace of an error."""
    done = run("encode", "--device", "GPU.9", "--debug", text=b"a")

    assert b"Traceback" in done.stderr


def test_a_long_text_is_one_line_of_warning() -> None:
    """A cut is said in one line that does not look like Python."""
    done = run("encode", text=b"word " * 300)

    lines = done.stderr.decode().splitlines()
    assert 1 == len(lines)
    assert lines[0].startswith("warning: text 0 has 302 tokens")


def test_a_reader_that_leaves_is_no_error() -> None:
    """`ov-minilm encode | head -1` ends quietly."""
    pipe = f"yes 'some text' | head -2000 | {sys.executable} -m ov_minilm encode | head -1"

    done = subprocess.run(["/bin/bash", "-c", pipe], capture_output=True, check=False)

    assert (1, b"") == (len(done.stdout.splitlines()), done.stderr)


def test_ctrl_c_leaves_no_file(tmp_path: Path) -> None:
    """Interrupted while it works, the command says so, exits 130, and writes nothing."""
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "ov_minilm",
        "encode",
        "--progress",
        "-o",
        tmp_path / "out.npy",
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(b"a few words of text to keep it busy for a while\n" * 200_000)
        process.stdin.close()
        process.stderr.read(1)  # the bar appears: it is encoding now
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()

    assert 130 == process.returncode
    assert said.endswith(b"interrupted\n")
    assert b"Traceback" not in said
    assert [] == list(tmp_path.iterdir())


def test_show_describes_the_model() -> None:
    """Readable by default; --json is the manifest itself."""
    text = run("show").stdout.decode()
    raw = json.loads(run("show", "--json").stdout)

    manifest = Manifest.read(Path(__file__).parents[1] / "ov_minilm/model")
    assert manifest.fingerprint == raw["fingerprint"]
    assert f"fingerprint  {manifest.fingerprint}" in text
    assert "SmoothQuant 0.8" in text
    assert "Spearman" in text


def test_version_and_help() -> None:
    """--version and --help answer without loading OpenVINO; every command has help."""
    assert f"ov-minilm, version {__version__}" == run("--version").stdout.decode().strip()
    for command in ("encode", "convert", "show", "drift"):
        assert command.encode() in run("--help").stdout
        assert b"Usage: " in run(command, "-h").stdout


@pytest.mark.convert
def test_drift_measures_and_passes(built: Path, tmp_path: Path) -> None:
    """Different texts stay near FP32: a table, or JSON, and exit code 0."""
    pairs = tmp_path / "sts.tsv"
    pairs.write_text(
        "5.0\tA man plays a guitar.\tSomeone is playing guitar.\n"
        "1.0\tA man plays a guitar.\tThe stock market fell.\n"
        "0.0\tThe stock market fell.\tA cat sleeps.\n"
    )

    table = run("drift", "--reference", built / "fp32", "--sts", pairs)
    found = json.loads(run("drift", "--reference", built / "fp32", "--sts", pairs, "--json").stdout)

    assert 0 == table.returncode, table.stderr
    assert b"cosine, 1-64 tokens" in table.stdout
    assert [] == found["broken"]
    assert 3 == found["drift"]["sts"]["sts"]["pairs"]


@pytest.mark.convert
def test_drift_over_the_gate_exits_1(built: Path, tmp_path: Path) -> None:
    """Hundreds of near-equal texts swap neighbours, which the gate forbids: exit 1, both numbers said."""
    texts = tmp_path / "texts.txt"
    texts.write_text(
        "".join(f"Train {n} leaves at {n % 24}:{n % 60} from track {n % 9}.\n" for n in range(400))
    )

    done = run("drift", "--reference", built / "fp32", "--texts", texts)

    assert 1 == done.returncode
    assert b"neighbour overlap@10 of texts 0." in done.stderr
    assert b"< 0.95" in done.stderr

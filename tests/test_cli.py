"""The command line: pipes, typing errors, empty input, Ctrl-C, exit codes, help."""

import json
import re
import shlex
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import click
import numpy as np
import pytest
from support.processes import python, run, run_inline

from ov_minilm import Embedder, __version__
from ov_minilm.artefact.manifest import SHIPPED, Manifest
from ov_minilm.cli import cli
from ov_minilm.cli_help import HelpfulCommand
from ov_minilm.errors import DeviceUnavailable
from ov_minilm.serve.command import command as serve_command


def test_stdin_and_files_become_vectors(tmp_path: Path, shipped: Embedder) -> None:
    """Lines of stdin become JSON objects with exact floats; files become one array, which may be empty."""
    (tmp_path / "a.txt").write_bytes(b"one\r\ntwo\n")
    (tmp_path / "b.jsonl").write_text('{"text": "three", "id": 3}\n')

    piped = run("encode", text="a man\n\nnaïve café\n".encode())
    written = run_inline("encode", tmp_path / "a.txt", tmp_path / "b.jsonl", "-o", tmp_path / "out.npy")
    empty = [run_inline("encode"), run_inline("encode", "-o", tmp_path / "empty.npy")]

    rows = [json.loads(line) for line in piped.stdout.splitlines()]
    assert (0, ["a man", "", "naïve café"]) == (piped.returncode, [row["text"] for row in rows])
    expected = shipped.encode(["a man", "", "naïve café"])
    assert np.array_equal(expected, np.array([row["embedding"] for row in rows], np.float32))
    assert (0, True) == (written.returncode, b"3 vectors of 384 components" in written.stderr)
    assert np.array_equal(shipped.encode(["one", "two", "three"]), np.load(tmp_path / "out.npy"))
    assert [(0, b""), (0, b"")] == [(result.returncode, result.stdout) for result in empty]
    assert (0, 384) == np.load(tmp_path / "empty.npy").shape


EMPTY = [*(("encode", f"--{name}") for name in ("reuse", "cache-dir", "model")), ("serve", "--api-key-file")]
NEEDS_BENCH = pytest.mark.skipif(not find_spec("cpuinfo"), reason="pip install -e '.[bench]'")
FP32_ONLY = ["drift", "--reference", str(SHIPPED), "--texts", __file__]


@pytest.mark.parametrize(
    ("arguments", "text", "message"),
    [
        (["info"], b"", "Did you mean 'show'"),
        (["encode", "--device", "GPU.9"], b"a", "this machine has"),
        (["encode", "--model", "."], b"a", "manifest.json: not found"),
        (
            ["encode", "--format", "jsonl", "-o", "out.npy"],
            b'{"text": 3}\n',
            "a string\nnothing is kept: a pipe cannot be read again",
        ),
        *(([name, option, ""], b"a", "the name is empty") for name, option in EMPTY),
        (["drift"], b"", "no FP32 model to compare with: pass --reference FOLDER"),
        (["drift", "--reference", "."], b"", "nothing to measure on"),
        pytest.param(  # refused before a model is opened
            *(["bench", "--reference", ".", "--report", "/no/page.html"], b"", "/no"), marks=NEEDS_BENCH
        ),
        (FP32_ONLY, b"", "has int8 weights; the reference must be FP32"),
    ],
)
def test_a_usage_error_is_one_clear_line(
    arguments: list[str], text: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exit code is 2; stderr has the reason and no traceback; no file is left."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OV_MINILM_STSB", "")

    result = run_inline(*arguments, text=text)

    assert 2 == result.returncode, result.stderr
    assert message in result.stderr.decode()
    assert b"Traceback" not in result.stderr
    assert [] == list(tmp_path.iterdir())


def test_debug_shows_the_traceback_and_truncation_is_one_warning() -> None:
    """--debug may be anywhere in the line; the warning about long texts is one line without traceback."""
    with pytest.raises(DeviceUnavailable):
        run_inline("encode", "--device", "GPU.9", "--debug", text=b"a")
    (line,) = run_inline("encode", text=b"word " * 300).stderr.decode().splitlines()
    assert line.startswith("warning: 1 text is longer than the model reads")


def test_a_closed_pipe_is_not_an_error() -> None:
    """`ov-minilm encode | head -1` prints one line and no error."""
    pipe = f"yes 'some text' | head -2000 | {sys.executable} -m ov_minilm encode | head -1"

    result = subprocess.run(["/bin/bash", "-c", pipe], capture_output=True, check=False)

    assert (1, b"") == (len(result.stdout.splitlines()), result.stderr)


def test_ctrl_c_leaves_no_file(tmp_path: Path) -> None:
    """Ctrl-C while encoding ends the command with a message and exit code 130, without a file."""
    (tmp_path / "texts.txt").write_text("a few words of text to keep it busy for a while\n" * 5_000)
    command = [sys.executable, "-m", "ov_minilm", "encode", "--progress", "texts.txt", "-o", "out.npy"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        process.stderr.read(1)  # encoding has started when the bar appears
        process.send_signal(signal.SIGINT)
        printed = process.stderr.read()

    assert (130, True) == (
        process.returncode,
        b"interrupted\nnothing is kept: fewer than 65,536 rows" in printed,
    )
    assert b"Traceback" not in printed
    assert ["texts.txt"] == [path.name for path in tmp_path.iterdir()]


def test_show_describes_the_model_here() -> None:
    """`show` prints size, drift limits and speed on this machine; with --json it prints the manifest."""
    text = run("show").stdout.decode()
    names: list[list[str]] = [[], ["all-MiniLM-L6-v2"], ["sentence-transformers/all-MiniLM-L6-v2"]]
    (manifest_json,) = {run_inline("show", *name, "--json").stdout for name in names}

    manifest = Manifest.read(SHIPPED)
    assert manifest.fingerprint == json.loads(manifest_json)["fingerprint"]
    assert f"fingerprint  {manifest.fingerprint}" in text
    assert "SmoothQuant 0.8" in text
    assert "Spearman" in text
    assert 1 <= text.count(" on this CPU") <= 2  # long texts may run in another precision
    for line in (
        r"size +23\.\d MB on disk$",
        r"passed: mean cosine 0\.99\d+ \(≥ 0\.9975\)",
        r"speed here +[\d,]+ texts of \d+ tokens a second",
        r"memory here +\d+ MB",
    ):
        assert re.search(f"^{line}", text, re.MULTILINE)


def test_version_and_help() -> None:
    """--version does not load OpenVINO; the help starts with two example lines, then lists the commands."""
    code = (
        "import atexit, sys; sys.argv = ['', '--version']\n"
        "atexit.register(lambda: print('openvino' in sys.modules))\n"
        "from ov_minilm.cli import main; main()"
    )
    assert f"ov-minilm, version {__version__}\nFalse\n" == python(code).stdout
    result = run_inline()
    shown = (result.stderr or result.stdout).decode()  # click before 8.2 prints help to stdout
    assert shown.split() == run_inline("-h").stdout.decode().split()
    assert 2 == len(shown.partition("Start:\n")[2].partition("\n\n")[0].splitlines())
    listed = re.findall(r"^  (\w+)  ", shown.partition("Commands:\n")[2], re.MULTILINE)
    assert ["encode", "serve", "show", "doctor", "bench"] == listed[:5]
    assert {*cli.commands} == {*listed}


COMMANDS = {**cli.commands, "serve": serve_command}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_valid_examples_and_groups(name: str) -> None:
    """Each example is valid, each option of a group exists, and examples come before options."""
    command = cast("HelpfulCommand", COMMANDS[name])
    context = click.Context(command, info_name=name)
    known = {option.name for option in command.get_params(context)}

    assert command.examples
    assert {option for group in command.groups.values() for option in group} <= known
    for example in command.examples:
        words = shlex.split(example.rpartition("ov-minilm ")[2].partition(" |")[0], comments=True)
        shown = cast("HelpfulCommand", COMMANDS[words[0]])
        shown.make_parser(click.Context(shown)).parse_args(words[1:])
    shown_help = command.get_help(context)
    assert shown_help.index("Usage: ") < shown_help.index("Examples:") < shown_help.index("ptions:")


@pytest.mark.convert
def test_drift_measures_and_passes(built: Path, tmp_path: Path) -> None:
    """`drift` prints Spearman and, with --beir, nDCG@10 as a table, or as JSON for one lowering."""
    sts, beir = tmp_path / "sts.tsv", tmp_path / "pets"
    sts.write_text(
        "5.0\tA man plays a guitar.\tSomeone is playing guitar.\n"
        "1.0\tA man plays a guitar.\tThe stock market fell.\n"
        "0.0\tThe stock market fell.\tA cat sleeps.\n"
    )
    (beir / "qrels").mkdir(parents=True)
    animals = "cat dog fish horse mouse bird snake frog bear wolf".split()
    documents = [json.dumps({"_id": name, "title": name, "text": f"The {name} sleeps."}) for name in animals]
    (beir / "corpus.jsonl").write_text("\n".join(documents))
    (beir / "queries.jsonl").write_text('{"_id": "q", "text": "a sleeping wolf"}\n')
    (beir / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nq\twolf\t1\n")
    command = ["drift", "--reference", str(built / "fp32"), "--sts", str(sts)]

    table = run_inline(*command)
    drifts = json.loads(run_inline(*command, "--beir", beir, "--lowering", "conv", "--json").stdout)

    assert 0 == table.returncode, table.stderr
    printed = table.stdout.decode()
    assert (2, 2) == (printed.count("cosine, 1-64 tokens"), printed.count(", 95 % "))
    assert ["drift, native", "drift, conv"] == re.findall(r"^drift, \w+", printed, re.MULTILINE)
    assert 1 == printed.count("<- used on this CPU")
    assert re.search(r"passed: Spearman points [+-]?0\.\d+ \(within ±0\.1\)", printed)
    (drift,) = drifts["drift"]
    assert ([], "conv", 3) == (drifts["broken"], drift["lowering"], drift["sts"]["sts"]["pairs"])
    assert {"documents": 10, "queries": 1, "ndcg_reference": 100.0, "ndcg": 100.0} == drift["ndcg"]["pets"]


@pytest.mark.convert
def test_drift_over_the_limits_exits_with_1(built: Path, tmp_path: Path) -> None:
    """The message names the exceeded limit; here, neighbours of nearly equal texts change."""
    texts = tmp_path / "texts.txt"
    similar_texts = (f"Train {n} leaves at {n % 24}:{n % 60} from track {n % 9}.\n" for n in range(400))
    texts.write_text("".join(similar_texts))

    result = run_inline("drift", "--reference", built / "fp32", "--texts", texts, "--lowering", "conv")

    assert 1 == result.returncode
    assert re.search(rb"conv/\w+: neighbour overlap@10 of texts 0\.\d+ < 0\.95", result.stderr)

"""The command line as its users meet it: pipes, typos, empty input, Ctrl-C, exit codes."""

from __future__ import annotations

import copy
import json
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import cast

import click
import numpy as np
import pytest
from support.processes import here, python, run

from ov_minilm import Embedder, __version__
from ov_minilm.artefact.manifest import SHIPPED, Manifest
from ov_minilm.cli import cli, run_options
from ov_minilm.cli_help import RUN, HelpfulCommand
from ov_minilm.serve.command import command as serve_command


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
    done, written = here("encode"), here("encode", "-o", tmp_path / "out.npy")

    assert (0, b"") == (done.returncode, done.stdout)
    assert 0 == written.returncode
    assert (0, 384) == np.load(tmp_path / "out.npy").shape


def test_the_model_has_its_usual_names() -> None:
    """Where a folder of a model is taken, the names of the model in the package are."""
    names = ("all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2")

    assert 1 == len({here("show", *name, "--json").stdout for name in ((), *((name,) for name in names))})
    assert 0 == here("encode", "--model", names[0], text=b"a").returncode


@pytest.mark.parametrize(
    ("arguments", "text", "message"),
    [
        (
            ["encode", "--model", "BAAI/bge-m3"],
            b"a",
            "convert other models first: ov-minilm convert BAAI/bge-m3",
        ),
        (["encode", "--formt", "text"], b"a", "No such option"),
        (["encod"], b"", "No such command"),
        (["encode", "no-such-file.txt"], b"", "does not exist"),
        (["encode", "-o", "out.csv"], b"a", "must end in .parquet, .npy, .jsonl"),
        (["encode", "-o", "/no/such/folder/out.npy"], b"a", "folder /no/such/folder does not exist"),
        (["encode", "--format", "jsonl"], b'{"text": "a"}\n{"txt": "b"}\n', "stdin, line 2"),
        (["encode", "--format", "jsonl"], b"not json\n", "stdin, line 1"),
        (["encode", "--format", "jsonl"], b'{"text": 3}\n', "'text' is a number"),
        (["encode"], b"ok\n\xff\xfe\n", "stdin, line 2: not UTF-8"),
        (["encode", "--device", "GPU.9"], b"a", "this machine has"),
        (["encode", "--model", "."], b"a", "manifest.json: not found"),
        (["encode", "--truncate", "error"], b"word " * 300, "stdin, line 1: 302 tokens, the model reads 256"),
        (["encode", "--precision", "f16"], b"a", "use bf16 or f32"),
        (["drift", "--reference", "."], b"", "nothing to measure on"),
        (["drift", "--reference", ".", "--hub", "sts99"], b"", "'sts99' is not one of 'stsb_dev'"),
        (["drift", "--reference", ".", "--beir", "."], b"", "has no corpus.jsonl"),
    ],
)
def test_bad_usage_is_one_clear_line(
    arguments: list[str], text: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 2, what is wrong on stderr, no trace, and no file left."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OV_MINILM_STSB", "")

    done = here(*arguments, text=text)

    assert 2 == done.returncode, done.stderr
    assert message in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert [] == list(tmp_path.iterdir())


def test_debug_shows_the_trace() -> None:
    """Without --debug an error is one line; with it, in any place, the trace is there."""
    done = [run("encode", "--device", "GPU.9", *debug, text=b"a") for debug in ([], ["--debug"])]

    assert [2, 1] == [process.returncode for process in done]
    assert [False, True] == [b"Traceback" in process.stderr for process in done]


def test_a_long_text_is_one_line_of_warning() -> None:
    """A cut is said in one line that does not look like Python."""
    done = run("encode", text=b"word " * 300)

    lines = done.stderr.decode().splitlines()
    assert 1 == len(lines)
    assert lines[0].startswith("warning: 1 text is longer than the model reads")


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
    with tempfile.TemporaryFile() as texts:
        texts.write(b"a few words of text to keep it busy for a while\n" * 5_000)
        texts.seek(0)
        with subprocess.Popen(command, stdin=texts, stderr=subprocess.PIPE) as process:
            assert process.stderr is not None
            process.stderr.read(1)  # the bar appears: it is encoding now
            process.send_signal(signal.SIGINT)
            said = process.stderr.read()

    assert 130 == process.returncode
    assert said.endswith(b"interrupted\n")
    assert b"Traceback" not in said
    assert [] == list(tmp_path.iterdir())


def test_show_describes_the_model() -> None:
    """Readable by default, with size, gate, and its speed here; --json is the manifest itself."""
    text = run("show").stdout.decode()
    raw = json.loads(here("show", "--json").stdout)

    manifest = Manifest.read(Path(__file__).parents[1] / "ov_minilm/model")
    assert manifest.fingerprint == raw["fingerprint"]
    assert f"fingerprint  {manifest.fingerprint}" in text
    assert "SmoothQuant 0.8" in text
    assert "Spearman" in text
    assert 1 <= text.count(" on this CPU") <= 2  # long texts may run in another precision
    assert re.search(r"^size +23\.\d MB on disk$", text, re.MULTILINE)
    assert re.search(r"^passed: mean cosine 0\.99\d+ \(≥ 0\.9975\)", text, re.MULTILINE)
    assert re.search(r"^speed here +[\d,]+ texts of \d+ tokens a second", text, re.MULTILINE)
    assert re.search(r"^memory here +\d+ MB", text, re.MULTILINE)


def test_version_and_help() -> None:
    """--version and --help answer without loading OpenVINO; every command has help."""
    code = (
        "import atexit, sys; sys.argv = ['', '--version']\n"
        "atexit.register(lambda: print('openvino' in sys.modules))\n"
        "from ov_minilm.cli import main; main()"
    )
    assert f"ov-minilm, version {__version__}\nFalse\n" == python(code).stdout
    commands = here("--help").stdout.decode()
    for command in ("encode", "convert", "show", "drift"):
        assert command in commands
        assert b"Usage: " in here(command, "-h").stdout


@pytest.mark.convert
def test_drift_measures_and_passes(built: Path, tmp_path: Path) -> None:
    """Different texts stay near FP32: figures and the gate that they pass, or JSON, and exit code 0."""
    pairs = tmp_path / "sts.tsv"
    pairs.write_text(
        "5.0\tA man plays a guitar.\tSomeone is playing guitar.\n"
        "1.0\tA man plays a guitar.\tThe stock market fell.\n"
        "0.0\tThe stock market fell.\tA cat sleeps.\n"
    )

    table = run("drift", "--reference", built / "fp32", "--sts", pairs)
    found = json.loads(here("drift", "--reference", built / "fp32", "--sts", pairs, "--json").stdout)

    assert 0 == table.returncode, table.stderr
    assert 2 == table.stdout.count(b"cosine, 1-64 tokens")
    assert 2 == table.stdout.count(b", 95 % ")
    assert [] == found["broken"]
    assert 1 == table.stdout.count(b"<- used on this CPU")
    assert re.search(rb"passed: Spearman points [+-]?0\.\d+ \(within \xc2\xb10\.1\)", table.stdout)
    assert ["native", "conv"] == [drift["lowering"] for drift in found["drift"]]
    for drift in found["drift"]:
        assert 3 == drift["sts"]["sts"]["pairs"]
        assert {} == drift["ndcg"]


@pytest.mark.convert
def test_drift_finds_what_people_judged(built: Path, tmp_path: Path) -> None:
    """With --beir, nDCG@10 of both models; --lowering measures that way alone."""
    pets = tmp_path / "pets"
    (pets / "qrels").mkdir(parents=True)
    animals = "cat dog fish horse mouse bird snake frog bear wolf".split()
    facts = ["The {} sleeps.", "A {} eats its food.", "Nobody has seen the {} run."]
    rows = [
        {"_id": f"{animal}{n}", "title": animal, "text": fact.format(animal)}
        for animal in animals
        for n, fact in enumerate(facts)
    ]
    (pets / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (pets / "queries.jsonl").write_text('{"_id": "q", "text": "a running wolf"}\n')
    (pets / "qrels/test.tsv").write_text(
        "query-id\tcorpus-id\tscore\n" + "".join(f"q\twolf{n}\t1\n" for n in range(3))
    )
    command: list[str | Path] = ["drift", "--reference", built / "fp32", "--beir", pets, "--lowering", "conv"]

    table, found = here(*command), json.loads(here(*command, "--json").stdout)

    (drift,) = found["drift"]
    assert 0 == table.returncode, table.stderr
    assert b"nDCG@10, pets" in table.stdout
    assert "conv" == drift["lowering"]
    assert {"documents": 30, "queries": 1, "ndcg_reference": 100.0, "ndcg": 100.0} == drift["ndcg"]["pets"]


def test_drift_measures_against_fp32_only(tmp_path: Path) -> None:
    """An INT8 reference would hide the loss: refused before anything is measured."""
    (tmp_path / "texts.txt").write_text("a\n")

    done = here("drift", "--reference", SHIPPED, "--texts", tmp_path / "texts.txt")

    assert 2 == done.returncode
    assert b"has int8 weights; the reference must be FP32" in done.stderr


@pytest.mark.convert
def test_drift_over_the_gate_exits_1(built: Path, tmp_path: Path) -> None:
    """Hundreds of near-equal texts swap neighbours, which no lowering is allowed: exit 1, both named."""
    texts = tmp_path / "texts.txt"
    texts.write_text(
        "".join(f"Train {n} leaves at {n % 24}:{n % 60} from track {n % 9}.\n" for n in range(400))
    )

    done = here("drift", "--reference", built / "fp32", "--texts", texts)

    assert 1 == done.returncode
    for lowering in (b"native", b"conv"):
        assert re.search(lowering + rb"/\w+: neighbour overlap@10 of texts 0\.\d+ < 0\.95", done.stderr)


SERVE = copy.copy(serve_command)
SERVE.params = [*serve_command.params]
COMMANDS: dict[str, click.Command] = {**cli.commands, "serve": cast("click.Command", run_options(SERVE))}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_teaches(name: str) -> None:
    """Each example parses, each option of a group exists, and the examples come before the options."""
    command = cast("HelpfulCommand", COMMANDS[name])
    context = click.Context(command, info_name=name)
    known = {option.name for option in command.get_params(context)}

    assert command.examples
    assert {option for group in command.groups.values() for option in group} <= known | {*RUN}
    for example in command.examples:
        words = shlex.split(example.rpartition("ov-minilm ")[2].partition(" |")[0], comments=True)
        shown = cast("HelpfulCommand", COMMANDS[words[0]])
        shown.make_parser(click.Context(shown)).parse_args(words[1:])
    shown_help = command.get_help(context)
    assert shown_help.index("Examples:") < shown_help.index("ptions:")


def test_without_a_command_the_start_is_shown() -> None:
    """Two lines to start with, then the five commands to know."""
    shown = here().stderr.decode()

    assert 2 == len(shown.partition("Start:\n")[2].partition("\n\n")[0].splitlines())
    listed = re.findall(r"^  (\w+)  ", shown.partition("Commands:\n")[2], re.MULTILINE)
    assert ["encode", "serve", "show", "doctor", "bench"] == listed[:5]

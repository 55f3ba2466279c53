"""The history keeps one line a build, and what it cannot read it names; nothing is ever half-written."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from ov_minilm.artefact.drift_record import Cosine, Drift, Gate, Sts
from ov_minilm.artefact.manifest import SHIPPED, Manifest

pytest.importorskip("matplotlib", reason="matplotlib comes with the bench extra")

SCRIPT = Path(__file__).parents[2] / "bench/history.py"
spec = importlib.util.spec_from_file_location("history", SCRIPT)
assert spec is not None
assert spec.loader is not None
history = importlib.util.module_from_spec(spec)
sys.modules["history"] = history  # where its dataclasses look for their names
spec.loader.exec_module(history)

DRIFT = Drift(
    "f32",
    "conv",
    cosine={"1-64": Cosine(100, 0.999, 0.99, 0.98), "65-128": Cosine(29, 0.5, 0.5, 0.5)},  # too few to count
    overlap={"a": 0.97, "b": 0.96},
    sts={
        "dev": Sts(9, 80.0, 80.05, 80.0, 80.0, -0.1, 0.2),
        "test": Sts(9, 80.0, 79.9, 80.0, 80.0, -0.3, 0.1),
    },
)


def built(fingerprint: str, *drift: Drift) -> Manifest:
    """Return the shipped manifest as that of another build."""
    return replace(Manifest.read(SHIPPED), fingerprint=fingerprint, drift=drift or (DRIFT,))


def execute(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the script in a new process, as a user would."""
    return subprocess.run(
        [sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_each_build_is_one_line_and_one_time(tmp_path: Path) -> None:
    """Builds are appended in order; one that is there already changes nothing."""
    path = tmp_path / "history.jsonl"

    added = [history.append(path, built(name)) for name in ("one", "two", "one")]

    assert [True, True, False] == added
    assert ["one", "two"] == [build.fingerprint for build in history.read(path)]
    assert ["history.jsonl"] == [file.name for file in tmp_path.iterdir()]


def test_a_line_holds_what_the_manifest_says(tmp_path: Path) -> None:
    """Version, tools, recipe and every figure of the drift, as JSON."""
    path = tmp_path / "history.jsonl"
    manifest = Manifest.read(SHIPPED)

    history.append(path, manifest)

    row = json.loads(path.read_text(encoding="utf-8"))
    assert manifest.recipe is not None
    assert ["fingerprint", "version", "tools", "recipe", "drift"] == list(row)
    assert manifest.fingerprint == row["fingerprint"]
    assert manifest.tools == row["tools"] | {"ov-minilm": row["version"]}
    assert asdict(manifest.recipe) == row["recipe"]
    assert [asdict(drift) for drift in manifest.drift] == row["drift"]


def test_a_way_is_drawn_by_its_worst_figures() -> None:
    """The farthest length bin that counts, the least overlap, and the STS file that moved most."""
    worst = history.worst(asdict(DRIFT))

    assert pytest.approx((0.001, 0.96, -0.1, -0.3, 0.1), abs=1e-9) == tuple(asdict(worst).values())


def test_the_picture_shows_every_way_and_build(tmp_path: Path) -> None:
    """One line a way through its builds, in three panels; a way that one build lacks has a gap."""
    path = tmp_path / "history.jsonl"
    native = replace(DRIFT, lowering="native", overlap={}, sts={})
    for name, drift in (("one", (DRIFT,)), ("two", (DRIFT, native)), ("three", (DRIFT,))):
        history.append(path, built(name, *drift))

    panels = history.draw(history.read(path)).axes

    points: list[dict[str, int]] = [
        {str(line.get_label()): len(line.get_xdata()) for line in axes.lines if len(line.get_xdata()) != 2}
        for axes in panels
    ]
    assert [{"conv f32": 3, "native f32": 1}] * 3 == points
    limits = Gate()
    drawn = [line.get_ydata()[0] for line in panels[0].lines if line.get_label() == "gate"]
    assert pytest.approx([1 - limits.cosine_mean]) == drawn


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("", "Expecting value"),
        ("[]", "'list' object has no attribute 'keys'"),
        ('{"fingerprint": "a"}', "fields ['fingerprint'], expected"),
        (
            json.dumps(dict.fromkeys(["fingerprint", "version", "tools", "recipe"]) | {"drift": [{}]}),
            "'lowering'",
        ),
    ],
)
def test_a_line_that_is_no_build_is_named(tmp_path: Path, line: str, reason: str) -> None:
    """The file, the line and the reason; the history stays as it was."""
    path = tmp_path / "history.jsonl"
    history.append(path, built("one"))
    path.write_text(path.read_text() + line + "\n")
    before = path.read_bytes()

    with pytest.raises(ValueError, match=f"^{re.escape(f'{path}, line 2: not a build ({reason}')}"):
        history.append(path, built("two"))

    assert before == path.read_bytes()


def test_the_command_writes_both_files(tmp_path: Path) -> None:
    """A line and a picture, twice the same, and nothing beside them."""
    files: list[str | Path] = ["--history", tmp_path / "h.jsonl", "--picture", tmp_path / "plots/h.png"]

    first = execute(SHIPPED, *files)
    picture = (tmp_path / "plots/h.png").read_bytes()
    again = execute(SHIPPED, *files)

    assert (0, 0) == (first.returncode, again.returncode), first.stderr + again.stderr
    assert "1 builds, one is new" in first.stdout
    assert "1 builds, nothing new" in again.stdout
    assert picture.startswith(b"\x89PNG")
    assert picture == (tmp_path / "plots/h.png").read_bytes()
    assert {"h.jsonl", "plots", "plots/h.png"} == {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")}


def test_what_is_no_int8_artefact_is_refused_in_one_line(tmp_path: Path) -> None:
    """No manifest, or one without drift: exit code 2, one line, and no file."""
    plain = tmp_path / "plain"
    shutil.copytree(SHIPPED, plain)
    raw: dict[str, Any] = json.loads((plain / "manifest.json").read_text(encoding="utf-8"))
    (plain / "manifest.json").write_text(json.dumps(raw | {"drift": []}), encoding="utf-8")
    path = tmp_path / "h.jsonl"

    without, none = (execute(folder, "--history", path) for folder in (plain, tmp_path))

    assert (2, 2) == (without.returncode, none.returncode)
    assert [f"error: {raw['fingerprint']}: no drift in its manifest; only INT8 artefacts have it"] == (
        without.stderr.splitlines()
    )
    assert 1 == len(none.stderr.splitlines())
    assert "manifest.json: not found" in none.stderr
    assert not path.exists()

"""The package from outside: its names, what importing it costs, and which file may import which."""

from __future__ import annotations

import ast
from pathlib import Path

from conftest import python

import ov_minilm

ROOT = Path(ov_minilm.__file__).parent

# Imports go downward only. Siblings of layer 10 never import each other.
LAYERS = {
    "errors": 0,
    "spec": 0,
    "cpus": 0,
    "progress": 0,
    "evaluation": 0,
    "backend": 0,
    "output": 1,
    "packing": 1,
    "drift": 1,
    "lowering": 1,
    "weights": 1,
    "golden": 2,
    "tokens": 2,
    "manifest": 3,
    "files": 3,
    "cache": 4,
    "plan": 4,
    "grids": 5,
    "engine": 6,
    "scheduler": 7,
    "embedder": 8,
    "compare": 9,
    "doctor": 9,
    "convert": 10,
    "serve": 10,
    "bulk": 10,
    "integrations": 10,
    "bench": 11,
    "cli": 12,
    "__main__": 13,
}


def test_all_is_what_the_package_offers() -> None:
    """Every public name is listed, sorted, and can be had."""
    assert sorted(ov_minilm.__all__) == ov_minilm.__all__ == dir(ov_minilm)
    assert all(getattr(ov_minilm, name) is not None for name in ov_minilm.__all__)


def test_imports_go_downward() -> None:
    """A file imports only from layers below its own, and every file has a layer."""
    wrong = []
    for path in ROOT.rglob("*.py"):
        room = path.relative_to(ROOT).with_suffix("").parts[0]
        if room == "__init__":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ov_minilm":
                parts = (node.module or "").split(".")[1:]
                targets = [parts[0]] if parts else [alias.name for alias in node.names]
                wrong += [
                    f"{room} imports {target}"
                    for target in targets
                    if target in LAYERS and target != room and LAYERS[target] >= LAYERS[room]
                ]

    rooms = {path.relative_to(ROOT).with_suffix("").parts[0] for path in ROOT.rglob("*.py")}
    assert [] == wrong
    assert {"__init__"} == rooms - LAYERS.keys()


def test_openvino_is_imported_in_one_place() -> None:
    """Only backend.py imports openvino; of the runtime, the engine and what is beneath it uses it."""
    text = {path: path.read_text(encoding="utf-8") for path in ROOT.rglob("*.py")}

    assert {"backend.py"} == {path.name for path, lines in text.items() if "import openvino as" in lines}
    assert {"engine.py", "grids.py", "lowering.py", "plan.py", "weights.py"} == {
        path.name for path, lines in text.items() if "ov_minilm.backend" in lines and path.parent == ROOT
    }


def test_nothing_phones_home(tmp_path: Path) -> None:
    """With a new home folder, encoding looks up no host, opens no connection, and leaves no file there."""
    done = python(
        "import sys, threading\n"
        "def hook(event, arguments):\n"
        "    if event in ('socket.connect', 'socket.getaddrinfo', 'socket.gethostbyname'):\n"
        "        print(event, arguments, flush=True)\n"
        "sys.addaudithook(hook)\n"
        "from ov_minilm import encode; encode('a')\n"
        "print([thread.name for thread in threading.enumerate()][1:])",  # nor waits a thread to report later
        HOME=str(tmp_path),
        CI="",
    )

    assert (0, "[]\n") == (done.returncode, done.stdout), done.stderr
    assert [] == list(tmp_path.iterdir())


def test_importing_the_package_loads_nothing_heavy() -> None:
    """Neither import nor encode loads torch, conversion tools, web frameworks or hub clients."""
    done = python(
        "import sys, ov_minilm; early = set(sys.modules)\n"
        "ov_minilm.encode('a')\n"
        "heavy = {'torch', 'nncf', 'transformers', 'optimum', 'sentence_transformers', 'starlette', "
        "'fastapi', 'huggingface_hub', 'scipy', 'pandas', 'pyarrow', 'ray'}\n"
        "print(sorted(heavy & {m.split('.')[0] for m in sys.modules}), 'openvino' in early, 'numpy' in early)"
    )

    assert (0, "[] False False\n") == (done.returncode, done.stdout), done.stderr


def test_every_test_states_its_promise() -> None:
    """Each test function has a docstring of one sentence or more."""
    silent = [
        f"{path.name}: {node.name}"
        for path in Path(__file__).parent.rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and not ast.get_docstring(node)
    ]

    assert [] == silent

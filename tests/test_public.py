"""The package as a whole: public names, what an import loads, and which modules a module may import."""

import ast
import graphlib
import tokenize
from pathlib import Path

from support.processes import python

import ov_minilm

ROOT = Path(ov_minilm.__file__).parent


def test_all_lists_every_public_name() -> None:
    """The names are sorted, and each exists."""
    assert sorted(ov_minilm.__all__) == ov_minilm.__all__ == dir(ov_minilm)
    assert all(getattr(ov_minilm, name) is not None for name in ov_minilm.__all__)


def import_graph() -> dict[str, set[str]]:
    """Return which modules each module imports, also inside functions and for type hints."""
    files = {path: path.relative_to(ROOT.parent).with_suffix("").parts for path in ROOT.rglob("*.py")}
    modules = {".".join(parts).removesuffix(".__init__"): path for path, parts in files.items()}
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        imported = graph.setdefault(module, set())
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                inner = [f"{node.module}.{alias.name}" for alias in node.names]
                imported |= {name if name in modules else str(node.module) for name in inner}
            elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "import_module":
                imported |= {str(a.value) for a in node.args if isinstance(a, ast.Constant)}
    return {module: imported & modules.keys() for module, imported in graph.items()}


MAY_IMPORT: dict[str, set[str]] = {  # folder -> folders that its modules may import
    "artefact": set(),
    "runtime": {"artefact"},
    "drift": {"artefact", "runtime"},
    "convert": {"artefact", "runtime", "drift"},
    "serve": {"artefact", "runtime"},
    "bulk": {"artefact", "runtime"},
    "integrations": {"artefact", "runtime"},
    "measure": {"artefact", "runtime", "convert"},
}


def test_modules_import_downward() -> None:
    """Imports, also late ones, have no cycles and follow MAY_IMPORT; no module imports the package."""
    graph = import_graph()

    assert len(list(graphlib.TopologicalSorter(graph).static_order())) == len(graph) > 60  # raises if cyclic
    assert [] == [name for name, imported in graph.items() if "ov_minilm" in imported]
    folders = {name: name.split(".")[1] for name in graph if "." in name}
    violations = [
        f"{name} imports {target}"
        for name, imported in graph.items()
        for target in imported
        if (here := folders.get(name, "")) in MAY_IMPORT
        and folders[target] in MAY_IMPORT.keys() - MAY_IMPORT[here] - {here}
    ]
    assert [] == sorted(violations)


def test_openvino_is_imported_in_one_place() -> None:
    """Only backend.py imports OpenVINO; of the runtime, only the engine and modules below use backend.py."""
    text = {path: path.read_text(encoding="utf-8") for path in ROOT.rglob("*.py")}

    assert {"backend.py"} == {path.name for path, lines in text.items() if "import openvino as" in lines}
    assert {"cache.py", "devices.py", "engine.py", "grids.py", "lowering.py", "plan.py", "weights.py"} == {
        path.name
        for path, lines in text.items()
        if "runtime.backend" in lines and path.parent.name == "runtime"
    }


def test_encoding_uses_no_network(tmp_path: Path) -> None:
    """An import opens no socket, starts no extra thread and writes no file in the home folder."""
    result = python(
        "import sys, threading\n"
        "def hook(event, arguments):\n"
        "    if event.startswith('socket.'): print(event, arguments, flush=True)\n"
        "sys.addaudithook(hook)\n"
        "from ov_minilm import encode; encode('a')\n"
        "print([thread.name for thread in threading.enumerate()][1:])",
        HOME=str(tmp_path),
        CI="",
    )

    assert (0, "[]\n") == (result.returncode, result.stdout), result.stderr
    assert [] == list(tmp_path.iterdir())


def test_encoding_loads_no_large_library() -> None:
    """`encode` loads no torch, web framework or hub client; the import loads no numpy or OpenVINO."""
    result = python(
        "import sys, ov_minilm; early = set(sys.modules)\n"
        "ov_minilm.encode('a')\n"
        "heavy = {'torch', 'nncf', 'transformers', 'optimum', 'sentence_transformers', 'starlette', "
        "'fastapi', 'huggingface_hub', 'scipy', 'pandas', 'pyarrow', 'ray'}\n"
        "print(sorted(heavy & {m.split('.')[0] for m in sys.modules}), 'openvino' in early, 'numpy' in early)"
    )

    assert (0, "[] False False\n") == (result.returncode, result.stdout), result.stderr


CORE = "packing texts tokens plan devices lowering weights grids engine scheduler embedder".split()
MAX_CORE_LINES = 1317  # lines of code


def code_lines(path: Path) -> int:
    """Count the lines without blank lines, comments and docstrings."""
    not_code = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    lines: set[int] = set()
    with path.open(encoding="utf-8") as file:
        for token in tokenize.generate_tokens(file.readline):
            docstring = token.type == tokenize.STRING and token.line.lstrip().startswith('"""')
            if token.type not in not_code | {tokenize.ENDMARKER} and not docstring:
                lines |= {*range(token.start[0], token.end[0] + 1)}
    return len(lines)


def test_the_core_stays_small() -> None:
    """The files that turn a text into a vector have a bounded number of lines of code."""
    files = [ROOT / "spec.py", *(ROOT / "runtime" / f"{name}.py" for name in CORE)]

    assert sum(map(code_lines, files)) <= MAX_CORE_LINES

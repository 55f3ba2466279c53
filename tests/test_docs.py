"""Every block of code in README and docs/ runs as it stands, and prints what the page says it prints."""

from __future__ import annotations

import ast
import doctest
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from support.serving import Running, running

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "examples/README.md", *sorted((ROOT / "docs").glob("*.md"))]
SERVER = "http://127.0.0.1:8000"  # of the pages; a server on a free port stands in for it
PLAIN = ("text", "json", "nginx", "ini", "yaml", "sql")  # shown, not run
NOT_RUN = re.compile(r"<!-- (not run: \w.{8,}|tests/(?P<test>\S+\.py) runs this) -->")
HIDDEN = re.compile(r"<!-- before:\n(.*)-->", re.DOTALL)  # what a reader has already: files, rows
PIP = re.compile(
    r'^pip install (?:\S*=\S* |--\S+ \S+ )*(?:"?ov-minilm(?:\[([\w,-]+)\])?"?|\.|[\w-]+)( +#.*)?$'
)


@dataclass(frozen=True, slots=True)
class Block:
    """A fence of a page, or what stands hidden before it."""

    language: str
    code: str
    line: int
    instead: str = ""  # why it is not run here, as its page says
    printed: str | None = None  # by the page


def blocks(page: Path) -> Iterator[Block]:
    """Yield the blocks of a page in their order."""
    comment = ""
    tokens = MarkdownIt("commonmark").parse(page.read_text(encoding="utf-8"))
    for number, token in enumerate(tokens):
        if token.type == "code_block":
            pytest.fail(f"{page.name}: code without a language: {token.content}")
        if token.type == "html_block":
            comment = token.content.strip()
            if hidden := HIDDEN.fullmatch(comment):
                yield Block("python", hidden[1], _line(token))
        if token.type == "fence":
            after = next(iter(tokens[number + 1 :]), None)
            printed = after.content if after and after.type == "fence" and after.info == "text" else None
            instead = comment if NOT_RUN.fullmatch(comment) else ""
            yield Block(token.info.strip(), token.content, _line(token), instead, printed)
        if token.type != "html_block":
            comment = ""


def _line(token: object) -> int:
    found = getattr(token, "map", None)
    return found[0] + 1 if found else 0


def runs(block: Block) -> bool:
    """Whether a block is run by this file."""
    return block.language in ("python", "sh") and not block.instead and not _installs(block)


def _installs(block: Block) -> bool:
    return block.language == "sh" and all(map(PIP.match, block.code.splitlines()))


def script(page: list[Block]) -> str:
    """Return one program of a page's blocks: a line with its number before what each prints."""
    lines = ["import subprocess"]
    for number, block in enumerate(page):
        lines.append(f"print(chr(0) + '{number}', flush=True)")
        if block.language == "python":
            lines.append(block.code)
        else:
            lines.append(f"subprocess.run(['bash', '-euc', {block.code!r}], check=True)")
    return "\n".join(lines)


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    """A server for the pages that talk to one."""
    with running() as found:
        yield found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_run(page: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """The blocks of a page run one after the other in an empty folder, and print what the page says."""
    found = [block for block in blocks(page) if runs(block)]
    if not found:
        pytest.skip("no code that runs")
    program = script(found)
    if SERVER in program:
        program = program.replace(SERVER, request.getfixturevalue("server").url)
    file = tmp_path / "page.py"
    file.write_text(program, encoding="utf-8")
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"

    done = subprocess.run(
        [sys.executable, str(file)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        env={"PATH": path, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8"},
    )

    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    printed = dict(re.findall(r"\0(\d+)\n([^\0]*)", done.stdout))
    for number, block in enumerate(found):
        if block.printed is not None:
            got, options = printed[str(number)], doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
            assert doctest.OutputChecker().check_output(block.printed, got, options), (
                f"{page.name}, line {block.line} prints\n{got}"
            )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_that_do_not_run_say_why(page: Path) -> None:
    """Each block is run here or by a test that it names, or says what it needs; all Python parses."""
    extras = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for block in blocks(page):
        where = f"{page.name}, line {block.line}"
        assert block.language in ("python", "sh", *PLAIN), f"{where}: language {block.language!r}"
        if block.language == "python":
            ast.parse(block.code)
        if test := (NOT_RUN.fullmatch(block.instead) or {"test": None})["test"]:
            assert (ROOT / "tests" / test).is_file(), f"{where}: {test} is not there"
        for line in block.code.splitlines() if _installs(block) else ():
            found = PIP.match(line)
            for extra in (found[1] or "").split(",") if found and found[1] else ():
                assert f"\n{extra} = [" in extras, f"{where}: no extra {extra}"

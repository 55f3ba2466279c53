"""Every code block in README and docs/ runs unchanged and prints what the page shows."""

import ast
import doctest
import itertools
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "examples/README.md", *sorted((ROOT / "docs").glob("*.md"))]
SERVER = "http://127.0.0.1:8000"  # address on the pages; tests replace it
SHOWN_ONLY = ("text", "json", "nginx", "ini", "yaml", "sql")  # languages that are not run
NOT_RUN = re.compile(r"<!-- (not run: \w.{8,}|tests/(?P<test>\S+\.py) runs this) -->")
HIDDEN_BLOCK = re.compile(r"<!-- before:\n(.*)-->", re.DOTALL)  # makes files that a reader already has
PIP_COMMAND = re.compile(
    r'^pip install (?:\S*=\S* |--\S+ \S+ )*(?:"?ov-minilm(?:\[([\w,-]+)\])?"?|\.|[\w-]+)( +#.*)?$'
)


@dataclass(frozen=True, slots=True)
class Block:
    """A code block of a page, or hidden code before a code block."""

    language: str
    code: str
    where: str  # page and line
    comment: str = ""  # HTML comment before the block
    printed: str | None = None  # output shown on the page

    @property
    def installs(self) -> bool:
        """Whether the block has only pip commands."""
        return self.language == "sh" and all(map(PIP_COMMAND.match, self.code.splitlines()))

    @property
    def runs(self) -> bool:
        """Whether this file runs the block."""
        return self.language in ("python", "sh") and not (NOT_RUN.fullmatch(self.comment) or self.installs)


def blocks(page: Path) -> Iterator[Block]:
    """Yield the blocks of a page in their order."""
    comment = ""
    tokens = [*MarkdownIt("commonmark").parse(page.read_text(encoding="utf-8")), None]
    for token, next_token in itertools.pairwise(tokens):
        assert token
        where = f"{page.name}, line {token.map[0] + 1 if token.map else 0}"
        if token.type == "html_block":
            comment = token.content.strip()
            if hidden := HIDDEN_BLOCK.fullmatch(comment):
                yield Block("python", hidden[1], where)
            continue
        if token.type in ("fence", "code_block"):
            printed = (
                next_token.content
                if next_token and next_token.type == "fence" and next_token.info == "text"
                else None
            )
            yield Block(token.info.strip(), token.content, where, comment, printed)
        comment = ""


def script(page: list[Block]) -> str:
    """Return one program of all blocks, which prints the number of each block before its output."""
    lines = ["import subprocess"]
    for number, block in enumerate(page):
        shell = f"subprocess.run(['bash', '-euc', {block.code!r}], check=True)"
        lines += [
            f"print(chr(0) + '{number}', flush=True)",
            block.code if block.language == "python" else shell,
        ]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "page",
    [
        # slow: imports several vector databases
        pytest.param(page, marks=pytest.mark.slow if page.name == "search.md" else ())
        for page in PAGES
    ],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_code_blocks_print_what_the_page_shows(
    page: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The code blocks of a page run one after another in an empty folder."""
    runnable = [block for block in blocks(page) if block.runs]
    if not runnable:
        pytest.skip("no code that runs")
    program = script(runnable)
    if SERVER in program:
        program = program.replace(SERVER, request.getfixturevalue("server").url)
    file = tmp_path / "page.py"
    file.write_text(program, encoding="utf-8")
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"

    result = subprocess.run(
        [sys.executable, str(file)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        env={"PATH": path, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8"},
    )

    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
    printed = dict(re.findall(r"\0(\d+)\n([^\0]*)", result.stdout))
    for number, block in enumerate(runnable):
        if block.printed is not None:
            output_here, options = printed[str(number)], doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
            same = doctest.OutputChecker().check_output(block.printed, output_here, options)
            assert same, f"{block.where} prints\n{output_here}"


def test_every_block_runs_or_says_why_not() -> None:
    """Each block runs here, or names the test that runs it; extras in pip commands exist."""
    extras = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for block in (block for page in PAGES for block in blocks(page)):
        assert block.language in ("python", "sh", *SHOWN_ONLY), f"{block.where}: language {block.language!r}"
        if block.language == "python":
            ast.parse(block.code)
        if test := (NOT_RUN.fullmatch(block.comment) or {"test": None})["test"]:
            assert (ROOT / "tests" / test).is_file(), f"{block.where}: {test} is not there"
        for line in block.code.splitlines() if block.installs else ():
            for extra in filter(None, (PIP_COMMAND.sub(r"\1", line)).split(",")):
                assert f"\n{extra} = [" in extras, f"{block.where}: no extra {extra}"

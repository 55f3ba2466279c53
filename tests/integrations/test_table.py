"""The table of libraries in docs/migrating.md: every row runs, and installs what it needs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.processes import python

ROOT = Path(__file__).parents[2]
TABLE = (
    (ROOT / "docs/migrating.md")
    .read_text(encoding="utf-8")
    .partition("| from | install | write |\n")[2]
    .splitlines()
)
ROWS = {
    row[0]: (row[1].strip("`"), [code.strip("`") for code in row[2].split("<br>")])
    for line in TABLE[1 : TABLE.index("")]
    for row in [[cell.strip() for cell in line.strip("|").split(" | ")]]
}

# What makes a row's components work, where making them is all that the row shows.
RUN = {
    "Haystack": "\np = Pipeline(); p.add_component('e', MiniLMTextEmbedder()); p.run({'e': {'text': 'a'}})",
    "LangChain": "\nInMemoryVectorStore(MiniLMEmbeddings()).add_texts(['a'])",
    "LlamaIndex": "\nSettings.embed_model.get_text_embedding('a')",
}

MODULES = {
    "chroma": "chromadb",
    "haystack": "haystack",
    "langchain": "langchain_core",
    "llama-index": "llama_index.core",
    "scikit-learn": "sklearn",
    "sentence-transformers": "sentence_transformers",
}


def test_every_adapter_has_a_row() -> None:
    """What is in ov_minilm.integrations is in the table."""
    shown = set(re.findall(r"ov_minilm\.integrations\.(\w+)", "\n".join(TABLE[: TABLE.index("")])))

    assert {path.stem for path in (ROOT / "ov_minilm" / "integrations").glob("[!_]*.py")} == shown


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.filterwarnings("ignore")  # of the libraries; the tests of each adapter see them
def test_what_a_row_says_works(row: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its lines run as they stand, where the extra that it names is installed."""
    install, lines = ROWS[row]
    extra = install.partition("[")[2].rstrip("]")
    if extra:
        pytest.importorskip(MODULES[extra], reason=f"pip install -e '.[{extra}]'")
    monkeypatch.chdir(tmp_path)

    exec("\n".join(lines), {})  # noqa: S102  # the page is ours


@pytest.mark.parametrize("row", ["LangChain", "LlamaIndex", "Chroma", "Haystack"])
def test_nothing_is_reported(row: str, tmp_path: Path) -> None:
    """With Haystack's reports off, as here, no row looks up a host or opens a connection until it ends."""
    install, lines = ROWS[row]
    pytest.importorskip(MODULES[install.partition("[")[2].rstrip("]")], reason=f"pip install '{install}'")
    hook = (
        "import sys, warnings; warnings.simplefilter('ignore')\n"
        "def hook(event, arguments):\n"
        "    if event in ('socket.connect', 'socket.getaddrinfo', 'socket.gethostbyname'):\n"
        "        print(event, arguments, flush=True)\n"
        "sys.addaudithook(hook)\n"
    )

    done = python(hook + "\n".join(lines) + RUN.get(row, ""), HOME=str(tmp_path))
    assert (0, "") == (done.returncode, done.stdout), done.stderr

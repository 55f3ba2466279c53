"""The README's table for those who come from elsewhere: every row runs, and installs what it needs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TABLE = (
    (ROOT / "README.md").read_text(encoding="utf-8").partition("| from | install | write |\n")[2].splitlines()
)
ROWS = {
    row[0]: (row[1].strip("`"), [code.strip("`") for code in row[2].split("<br>")])
    for line in TABLE[1 : TABLE.index("")]
    for row in [[cell.strip() for cell in line.strip("|").split(" | ")]]
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

    exec("\n".join(lines), {})  # noqa: S102  # the README is ours


MODULES = {
    "chroma": "chromadb",
    "haystack": "haystack",
    "langchain": "langchain_core",
    "llama-index": "llama_index.core",
    "scikit-learn": "sklearn",
    "sentence-transformers": "sentence_transformers",
}

"""The table of libraries in docs/migrating.md: every row runs, and installs what it needs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.processes import python

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/migrating.md").read_text(encoding="utf-8")
TABLE = PAGE.partition("| from | install | write |\n")[2].partition("\n\n")[0].splitlines()[1:]
ROWS = {
    start: (install.strip("`"), "\n".join(code.strip("`") for code in lines.split("<br>")))
    for start, install, lines in ([cell.strip() for cell in line.strip("|").split(" | ")] for line in TABLE)
}
RUN = {  # what a row's components are for: the right text is found, in the library's own words
    "Haystack": """
from haystack import Document
from haystack.components.retrievers import InMemoryEmbeddingRetriever as Retriever
from haystack.document_stores.in_memory import InMemoryDocumentStore
from ov_minilm.integrations.haystack import MiniLMDocumentEmbedder
store = InMemoryDocumentStore()
store.write_documents(MiniLMDocumentEmbedder().run([Document(content=t) for t in TEXTS])["documents"])
pipeline = Pipeline()
pipeline.add_component("embedder", MiniLMTextEmbedder())
pipeline.add_component("retriever", Retriever(store, top_k=1))
pipeline.connect("embedder.embedding", "retriever.query_embedding")
found = pipeline.run({"embedder": {"text": QUESTION}})["retriever"]["documents"][0].content""",
    "LangChain": """
store = InMemoryVectorStore.from_texts(TEXTS, MiniLMEmbeddings())
found = store.similarity_search(QUESTION, k=1)[0].page_content""",
    "LlamaIndex": """
from llama_index.core import Document, VectorStoreIndex
index = VectorStoreIndex.from_documents([Document(text=text) for text in TEXTS])
found = index.as_retriever(similarity_top_k=1).retrieve(QUESTION)[0].get_content()""",
    "Chroma": """
collection = chromadb.Client().get_collection("texts")
collection.add(ids=["0", "1"], documents=TEXTS)
found = collection.query(query_texts=[QUESTION], n_results=1)["documents"][0][0]""",
}
SEARCH = """
TEXTS = ["A cat sleeps on the sofa.", "Interest rates stay where they are."]
QUESTION, found = "a pet indoors", TEXTS[0]
{}{}
assert found == TEXTS[0], found
"""
LISTEN = """
import sys, warnings; warnings.simplefilter("ignore")
def hook(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        print(event, arguments, flush=True)
sys.addaudithook(hook)
"""


def lines_of(row: str) -> str:
    """Return the lines of a row and their search; skip without the extra that it names."""
    install, lines = ROWS[row]
    extra = install.partition("[")[2].rstrip("]")
    module = {"chroma": "chromadb", "langchain": "langchain_core", "scikit-learn": "sklearn"}.get(
        extra, extra
    )
    pytest.importorskip(module.replace("-", "_") or "ov_minilm", reason=f"pip install {install}")
    return SEARCH.format(lines, RUN.get(row, ""))


@pytest.mark.filterwarnings("ignore")  # of the libraries; the tests of each adapter see them
def test_rows_work_and_find_what_is_meant(tmp_path: Path) -> None:
    """Each adapter has a row; its lines run as they stand, and connect to nothing."""
    shown = set(re.findall(r"ov_minilm\.integrations\.(\w+)", "\n".join(TABLE)))
    assert {path.stem for path in (ROOT / "ov_minilm" / "integrations").glob("[!_]*.py")} == shown
    for row in ROWS.keys() - RUN.keys():
        exec(lines_of(row), {})  # noqa: S102  # the page is ours

    done = python(LISTEN + "".join(map(lines_of, RUN)), HOME=str(tmp_path))
    assert (0, "") == (done.returncode, done.stdout), done.stderr

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
    "Haystack": "from haystack import Document\n"
    "from haystack.components.retrievers import InMemoryEmbeddingRetriever as Retriever\n"
    "from haystack.document_stores.in_memory import InMemoryDocumentStore\n"
    "from ov_minilm.integrations.haystack import MiniLMDocumentEmbedder\n"
    "store = InMemoryDocumentStore()\n"
    "store.write_documents(MiniLMDocumentEmbedder().run([Document(content=t) for t in TEXTS])['documents'])\n"
    "pipeline = Pipeline(); pipeline.add_component('embedder', MiniLMTextEmbedder())\n"
    "pipeline.add_component('retriever', Retriever(store, top_k=1))\n"
    "pipeline.connect('embedder.embedding', 'retriever.query_embedding')\n"
    "found = pipeline.run({'embedder': {'text': QUESTION}})['retriever']['documents'][0].content",
    "LangChain": "store = InMemoryVectorStore.from_texts(TEXTS, MiniLMEmbeddings())\n"
    "found = store.similarity_search(QUESTION, k=1)[0].page_content",
    "LlamaIndex": "from llama_index.core import Document, VectorStoreIndex\n"
    "index = VectorStoreIndex.from_documents([Document(text=text) for text in TEXTS])\n"
    "found = index.as_retriever(similarity_top_k=1).retrieve(QUESTION)[0].get_content()",
    "Chroma": "collection = chromadb.Client().get_collection('texts')\n"
    "collection.add(ids=['0', '1'], documents=TEXTS)\n"
    "found = collection.query(query_texts=[QUESTION], n_results=1)['documents'][0][0]",
}
SEARCH = (
    "TEXTS = ['A cat sleeps on the sofa.', 'Interest rates stay where they are.']\n"
    "QUESTION, found = 'a pet indoors', TEXTS[0]\n{}\n{}\nassert found == TEXTS[0], found\n"
)
MODULES = {
    "chroma": "chromadb",
    "langchain": "langchain_core",
    "llama-index": "llama_index",
    "scikit-learn": "sklearn",
}


def lines_of(row: str) -> str:
    """Return the lines of a row and their search; skip without the extra that it names."""
    install, lines = ROWS[row]
    extra = install.partition("[")[2].rstrip("]")
    pytest.importorskip(
        MODULES.get(extra, extra.replace("-", "_")) or "ov_minilm", reason=f"pip install {install}"
    )
    return SEARCH.format(lines, RUN.get(row, ""))


def test_every_adapter_has_a_row() -> None:
    """What is in ov_minilm.integrations is in the table."""
    shown = set(re.findall(r"ov_minilm\.integrations\.(\w+)", "\n".join(TABLE)))

    assert {path.stem for path in (ROOT / "ov_minilm" / "integrations").glob("[!_]*.py")} == shown


@pytest.mark.parametrize("row", sorted(ROWS.keys() - RUN.keys()))
@pytest.mark.filterwarnings("ignore")  # of the libraries; the tests of each adapter see them
def test_what_a_row_says_works(row: str) -> None:
    """Its lines run as they stand, where the extra that it names is installed."""
    exec(lines_of(row), {})  # noqa: S102  # the page is ours


def test_rows_find_what_is_meant_and_nothing_is_reported(tmp_path: Path) -> None:
    """In their library's store; with Haystack's reports off, no row looks up a host or opens a connection."""
    hook = (
        "import sys, warnings; warnings.simplefilter('ignore')\n"
        "def hook(event, arguments):\n"
        "    if event in ('socket.connect', 'socket.getaddrinfo', 'socket.gethostbyname'):\n"
        "        print(event, arguments, flush=True)\n"
        "sys.addaudithook(hook)\n"
    )

    done = python(hook + "".join(map(lines_of, RUN)), HOME=str(tmp_path))
    assert (0, "") == (done.returncode, done.stdout), done.stderr

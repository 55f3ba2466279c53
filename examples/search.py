"""Search a folder of text files by meaning: python examples/search.py FOLDER "what you look for".

Needs pip install 'ov-minilm[examples]'. DuckDB stores texts and vectors in one file, without a server or an
extension, and compares every vector. For millions of passages, use an approximate index.
"""

import argparse
import re
from pathlib import Path

import duckdb

from ov_minilm import Embedder

COLUMNS = "(path TEXT, changed BIGINT, model TEXT, text TEXT, vector FLOAT[384])"
BEST = "FROM passages SELECT array_inner_product(vector, ?::FLOAT[384]), path, text ORDER BY 1 DESC LIMIT 5"
INSERT = "INSERT INTO passages SELECT unnest(?), unnest(?), ?, unnest(?), unnest(?::FLOAT[384][])"
PARAGRAPHS = re.compile(r"\n\s*\n|\n(?=\s*(?:[-*+]|\d+[.)]) )")  # list items are paragraphs too


def passages(text: str) -> list[str]:
    """Put paragraphs together while they stay shorter than 400 characters, about 100 tokens."""
    paragraphs = [""]
    for paragraph in PARAGRAPHS.split(text):
        if len(paragraphs[-1]) + len(paragraph) > 400:
            paragraphs.append("")
        paragraphs[-1] = f"{paragraphs[-1]}\n{paragraph}".strip()
    return [passage for passage in paragraphs if passage]


def update(index: duckdb.DuckDBPyConnection, files: dict[str, int], embedder: Embedder) -> None:
    """Embed files that are new, changed or embedded by another model; remove passages of deleted files."""
    model = embedder.info.fingerprint
    rows = index.execute("SELECT DISTINCT path, changed, model FROM passages").fetchall()
    outdated = [path for path, changed, by in rows if (files.get(path), model) != (changed, by)]
    new = files.keys() - {path for path, _, _ in rows} | files.keys() & outdated
    found = [(path, text) for path in new for text in passages(Path(path).read_text("utf-8", "replace"))]
    paths, texts = [path for path, _ in found], [text for _, text in found]
    vectors = embedder.encode(texts, truncate="mean").tolist()
    index.begin()  # if the program is killed before the commit, the index is unchanged
    index.execute("DELETE FROM passages WHERE list_contains(?, path)", [outdated])
    index.execute(INSERT, [paths, [files[path] for path in paths], model, texts, vectors])
    index.commit()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("query")
    parser.add_argument("--pattern", default="*.txt", help="which files, in subfolders too [*.txt]")
    parser.add_argument("--index", default="search.duckdb", help="kept between calls [search.duckdb]")
    told = parser.parse_args()
    files = {str(path): path.stat().st_mtime_ns for path in told.folder.rglob(told.pattern)}
    with Embedder.open() as embedder, duckdb.connect(told.index) as index:
        index.execute(f"CREATE TABLE IF NOT EXISTS passages {COLUMNS}")
        update(index, files, embedder)
        best = index.execute(BEST, [embedder.encode(told.query).tolist()]).fetchall()
    for cosine, path, text in best:
        print(f"{cosine:.3f}  {path}\n       {' '.join(text.split())[:300]}")

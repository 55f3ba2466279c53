"""Writes files of texts to encode, and reads the outputs."""

import gzip
import json
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ov_minilm.runtime.output import Vectors

WORDS = "river cloud engine market piano storm silver window garden letter".split()


def sentences(count: int, seed: int = 0) -> list[str]:
    """Make short texts, all different."""
    chosen = random.Random(seed)  # noqa: S311  # not for security
    return [f"{number} {' '.join(chosen.choices(WORDS, k=8))}" for number in range(count)]


def write(path: Path, texts: list[str]) -> Path:
    """Write texts and their numbers in the format of the file's ending."""
    rows = [{"id": number, "text": text} for number, text in enumerate(texts)]
    lines = {
        ".txt": "".join(f"{text}\n" for text in texts),
        ".jsonl": "".join(f"{json.dumps(row)}\n" for row in rows),
        ".csv": "id,text\n" + "".join(f'{row["id"]},"{row["text"]}"\n' for row in rows),
    }
    kind = next(suffix for suffix in path.suffixes if suffix in (*lines, ".parquet"))
    if kind == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=70)
    else:
        content = lines[kind].encode()
        if path.suffix == ".gz":
            content = gzip.compress(content)
        elif path.suffix == ".zst":
            content = pa.compress(content, codec="zstd", asbytes=True)
        path.write_bytes(content)
    return path


def vectors(path: Path) -> Vectors:
    """Read the vectors of any output."""
    if path.suffix == ".npy":
        loaded: Vectors = np.load(path)
        return loaded
    if path.suffix == ".jsonl":
        lines = path.read_text(encoding="utf-8").splitlines()
        return np.array([json.loads(line)["embedding"] for line in lines], np.float32)
    column = pq.read_table(path)["embedding"].combine_chunks()
    table: Vectors = column.flatten().to_numpy().reshape(len(column), -1)
    return table


def content(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file."""
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def shards(folder: Path) -> list[Path]:
    """Return the files of a folder that hold vectors."""
    return sorted(folder.glob("part-*"))

"""Find texts that say nearly the same: python examples/duplicates.py FILE, one text per line.

Needs nothing but ov-minilm. Prints groups; a line alone in its group is not printed.
"""

import argparse
from pathlib import Path

import numpy as np

from ov_minilm import encode
from ov_minilm.spec import FloatArray

BLOCK = 1024  # rows compared at a time, so that memory grows with the number of texts and not with its square


def groups(vectors: FloatArray, threshold: float) -> list[list[int]]:
    """Return groups: texts whose cosine reaches the threshold are in one group."""
    group = np.arange(len(vectors))  # group[i] is the index of the first text in the group of text i
    for start in range(0, len(vectors), BLOCK):
        rows, columns = np.nonzero(vectors[start : start + BLOCK] @ vectors.T >= threshold)
        for a, b in zip(rows + start, columns, strict=True):
            if group[a] != group[b]:
                low, high = sorted((group[a], group[b]))
                group[group == high] = low
    return [list(np.flatnonzero(group == first)) for first in np.unique(group)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument(
        "--threshold", type=float, default=0.8, help="the least cosine of near-duplicates [0.8]"
    )
    arguments = parser.parse_args()
    texts = [t.rpartition("\t")[2] for t in arguments.file.read_text("utf-8").splitlines() if t.strip()]
    for members in groups(encode(texts), arguments.threshold):
        if len(members) > 1:
            print(*(texts[member] for member in members), "", sep="\n")

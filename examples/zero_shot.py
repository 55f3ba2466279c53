"""Sort texts into classes that are only described: python examples/zero_shot.py FILE "class: description" ...

Needs nothing but ov-minilm. FILE has one text per line; if a line starts with its true class and a tab, the
share of right answers is printed too.
"""

import argparse
from pathlib import Path

from ov_minilm import Embedder

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("classes", nargs="+", metavar="class: description")
    arguments = parser.parse_args()
    names = [described.partition(":")[0].strip() for described in arguments.classes]
    lines = [t.rpartition("\t") for t in arguments.file.read_text("utf-8").splitlines() if t.strip()]
    with Embedder.open() as embedder:
        texts = embedder.encode([text for _, _, text in lines])
        cosines = embedder.similarity(texts, embedder.encode(arguments.classes))
    found = [names[best] for best in cosines.argmax(1)]
    for (_, _, text), name, row in zip(lines, found, cosines, strict=True):
        low, high = sorted([-1.0, *row])[-2:]
        # the margin to the second class; a small margin means that the class is uncertain
        print(f"{name}\t{high - low:.3f}\t{text}")
    judged = [truth == name for (truth, _, _), name in zip(lines, found, strict=True) if truth]
    if judged:
        print(f"{sum(judged)} of {len(judged)} right")

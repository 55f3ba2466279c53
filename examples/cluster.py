"""Cluster texts and draw them: python examples/cluster.py FILE -k 5 -o clusters.png, one text per line.

Needs pip install 'ov-minilm[examples]'. The name of a cluster is the text nearest to its centre.
"""

import argparse
from pathlib import Path
from textwrap import shorten

import matplotlib
import numpy as np
from sklearn.cluster import AgglomerativeClustering
from sklearn.manifold import TSNE

from ov_minilm import encode

matplotlib.use("Agg")
import matplotlib.pyplot as plt

MARKERS = "osD^vP*X"  # with ten colours, so that clusters differ in black and white too

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("-k", type=int, default=5, help="how many clusters [5]")
    parser.add_argument("-o", "--output", type=Path, default=Path("clusters.png"))
    arguments = parser.parse_args()
    texts = [t.rpartition("\t")[2] for t in arguments.file.read_text("utf-8").splitlines() if t.strip()]
    vectors = encode(texts)
    # Ward's method; beyond 20,000 texts use KMeans
    labels = AgglomerativeClustering(arguments.k).fit_predict(vectors)
    perplexity = min(30, (len(texts) - 1) / 3)
    plane = TSNE(metric="cosine", perplexity=perplexity, init="pca", random_state=0).fit_transform(vectors)
    figure, axes = plt.subplots(figsize=(10, 7), layout="constrained")
    for cluster in range(arguments.k):
        members = np.flatnonzero(labels == cluster)
        name = texts[members[(vectors[members] @ vectors[members].mean(0)).argmax()]]
        marker = MARKERS[cluster % len(MARKERS)]
        axes.scatter(*plane[members].T, marker=marker, label=f"{len(members)}: {shorten(name, 80)}")
        print(f"{name}\n" + "".join(f"    {texts[member]}\n" for member in members))
    axes.set(xticks=[], yticks=[], title=f"{len(texts)} texts in {arguments.k} clusters")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.02), frameon=False)
    figure.savefig(arguments.output, dpi=120)

"""Contenders that cost nothing: small adapters, written where the real worker can load them."""

from __future__ import annotations

import sys
from pathlib import Path

from ov_minilm.measure.contender import WORKER, Contender

LENGTHS = """
import time
import numpy as np
SORTED = {sorted}
BATCHES = (1, 4)
def load(variant, models, threads):
    print("chatter of a library")
    if variant == "broken":
        raise OSError("no\\nmodel")
    if variant == "dies":
        import os, sys
        print("last words", file=sys.stderr); sys.stderr.flush(); os._exit(3)
    def encode(texts, batch=None):
        if texts[0] == "fail":
            raise ValueError("cannot encode")
        time.sleep(0.002)  # each call has a cost, as those of real libraries
        return np.array([[len(text), 1] for text in texts]) / 10
    return encode
"""


def contender(
    folder: Path, variant: str = "plain", *, name: str = "toy", in_order: bool = False
) -> Contender:
    """Make a contender whose vectors are (length / 10, 0.1)."""
    path = folder / f"{name}.py"
    path.write_text(LENGTHS.format(sorted=in_order), encoding="utf-8")
    return Contender(name, "a toy", (sys.executable, "-I", str(WORKER), str(path)), variant)

"""Write texts.json and vectors.npy: sentence-transformers' vectors for every length and unusual text.

Run by hand when the list of texts changes: python tests/golden/make.py
"""

import json
from pathlib import Path

import numpy as np

from ov_minilm.artefact.manifest import TOKENIZER
from ov_minilm.convert.check import original_vectors
from ov_minilm.convert.source import PACKAGE, find
from ov_minilm.runtime.tokens import Tokens

# words of one word piece each
WORDS = (
    "the river turns north below old stone bridge where two boats wait for morning light and a man sells "
    "bread apples cheese warm milk while children run along green fields past small white houses"
).split()
PIECES = (1, 2, 3, 61, 62, 63, 64, 65, 125, 126, 127, 128, 129, 253, 254, 255, 256, 257, 600)
AWKWARD = [
    "",
    " ",
    "a",
    "hello world",
    "naïve café, déjà vu",
    "안녕하세요 😉",
    "مرحبا بالعالم",
    "今日は良い天気です。",
    "👩‍👩‍👧‍👦 🇫🇷 1️⃣",
    "tab\tnewline\nreturn\rnul\x00end",
    "ALL CAPS AND MiXeD",
    "x" * 300,
    "https://example.com/a?b=c&d=%20#e",
    "def f(x): return x ** 2  # square",
    "3.14159 2,718 -40 °C €9.99 1/2",
    "[CLS] [SEP] [PAD] [MASK] are plain words here",
    "…—–“”‘’",
    "word " * 400,
]


def main() -> None:
    """Encode with the official checkpoint and write both files."""
    texts = [" ".join(WORDS[i % len(WORDS)] for i in range(n)) for n in PIECES] + AWKWARD
    checkpoint = find(PACKAGE, None, None)
    tokens = Tokens.open(checkpoint.folder / TOKENIZER, checkpoint.spec)
    vectors = original_vectors(checkpoint, texts, tokens)
    here = Path(__file__).parent
    (here / "texts.json").write_text(json.dumps(texts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    np.save(here / "vectors.npy", vectors.astype(np.float32))


if __name__ == "__main__":
    main()

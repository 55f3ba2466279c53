"""Any Unicode text has a unit vector, which is the same alone and in a list."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ov_minilm import Embedder, TruncationWarning
from ov_minilm.runtime.texts import mend_surrogates

UNUSUAL_TEXTS = [
    *["👩‍👩‍👧‍👦", "🏳️‍🌈", "🇫🇷", "1️⃣", "👍🏽", "❤️‍🔥", "‍", "️"],  # emoji and joiners
    # Control and invisible characters.
    *["\0", "\x7f", "\x1b[31m", "\r\n", "\u2028", "\ufeff", "\u00ad", "\u200b"],
    *["مرحبا", "שלום", "\u202e", "\u2067", "\u2069"],  # right to left, directional marks
    *["\ud83d", "\ude00", "\udcff", "\ud83d\ude00"],  # surrogates, alone and as a pair
    *["Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢", "é", "é", "ﬃ", "Ⅷ", "İ", "ß", "ŉ"],  # marks, ligatures, case
    *"안녕 今日は 你好 ไทย हिन्दी 𝔘𝔫𝔦 \U0010ffff \ufffe".split(" "),  # scripts, planes, noncharacters
    *["[CLS]", "[SEP]", "[MASK]", "##ing", "x" * 101, "word " * 300],  # special tokens, long words and texts
]
pieces = (
    st.text(max_size=40)
    | st.text(st.characters(), max_size=20)
    | st.text(st.characters(categories=("Cs", "Cc", "Cf", "Co", "Mn", "Zs")))
    | st.sampled_from(UNUSUAL_TEXTS)
)
texts = st.lists(pieces, max_size=6).map("".join)
pytestmark = pytest.mark.filterwarnings(f"ignore::{TruncationWarning.__module__}.TruncationWarning")


@pytest.mark.parametrize("examples", [20, pytest.param(700, marks=pytest.mark.slow)])
def test_any_text_has_a_vector(shipped: Embedder, examples: int) -> None:
    """Each vector has length 1, and is the same if surrogates were repaired before."""

    def check(batch: list[str]) -> None:
        vectors = shipped.encode(batch)
        repaired = shipped.encode([mend_surrogates(text) for text in reversed(batch)])[::-1]

        assert (len(batch), 384) == vectors.shape
        np.testing.assert_allclose(1, np.linalg.norm(vectors, axis=1), atol=1e-5)
        assert vectors.tobytes() == repaired.tobytes()
        assert vectors[0].tobytes() == shipped.encode(batch[0]).tobytes()
        assert min(shipped.count_tokens(batch)) >= 2

    run_examples = settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    run_examples(given(st.lists(texts, min_size=15, max_size=30))(check))()
    check(UNUSUAL_TEXTS)


@pytest.mark.slow
def test_huge_texts_and_a_million_texts(shipped: Embedder) -> None:
    """Only the first 256 tokens of a text of 10 MB count; each of a million texts gets its own vector."""
    for piece in ("word ", "x", "\0", "😉", "\u0627\u0644 ", "\ud800"):
        size = 10_000_000 // len(piece.encode("utf-8", "surrogatepass"))
        assert shipped.encode(piece * size).tobytes() == shipped.encode(piece * 2000).tobytes()

    short_texts = ["", "a", "b c", "é", "😉", "안", "\0", "\ud800", "1", "?!"]
    vectors = np.stack([shipped.encode(text) for text in short_texts])
    count = 0
    for block in shipped.encode_iter(short_texts[i % len(short_texts)] for i in range(1_000_000)):
        order = np.arange(count, count + len(block)) % len(short_texts)
        assert block.tobytes() == vectors[order].tobytes()
        count += len(block)
    assert 1_000_000 == count

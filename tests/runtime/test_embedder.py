"""The main path on the real model: exactness, order, reproducible bits, bad input, life cycle."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import warnings
from collections.abc import Iterator
from typing import Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.processes import left_by_twenty, python, until

from ov_minilm import (
    Embedder,
    PrecisionUnavailable,
    TextTooLong,
    TruncationWarning,
    encode,
)
from ov_minilm.artefact.manifest import SHIPPED, Manifest
from ov_minilm.runtime.engine import Engine
from ov_minilm.runtime.output import DTYPES, Dtype, cast, shrink
from ov_minilm.runtime.packing import Text, fill
from ov_minilm.runtime.plan import Options
from ov_minilm.spec import GRIDS, FloatArray

POOL = [
    " ".join(["river", "stone", "light", "bread"][(i + j) % 4] for j in range(n))
    for i, n in enumerate(
        [1, 2, 3, 5, 8, 13, 14, 15, 20, 30, 40, 61, 62, 63, 100, 125, 126, 127, 200, 253, 254]
    )
] + ["", "a", "naïve café", "안녕하세요 😉"]


@pytest.fixture(scope="module")
def alone(shipped: Embedder) -> FloatArray:
    """Each text of POOL encoded on its own."""
    return np.stack([shipped.encode(text) for text in POOL])


def test_a_text_gives_one_unit_vector(shipped: Embedder) -> None:
    """A str gives float32 (384,) of length one."""
    vector = shipped.encode("one text")

    assert ((384,), np.float32) == (vector.shape, vector.dtype.type)
    assert abs(float(np.linalg.norm(vector)) - 1) < 1e-6


def test_texts_give_rows_and_none_give_no_rows(shipped: Embedder) -> None:
    """N texts give (N, 384); no text gives (0, 384)."""
    assert [(2, 384), (0, 384), (1, 384)] == [
        shipped.encode(texts).shape for texts in (["a", "b"], [], ("only",))
    ]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.lists(st.integers(0, len(POOL) - 1), max_size=120))
def test_same_text_same_bits_in_any_company(shipped: Embedder, alone: FloatArray, order: list[int]) -> None:
    """A vector does not depend on what else is in the call, nor on the order: not in one bit."""
    together = shipped.encode([POOL[i] for i in order])

    assert together.tobytes() == alone[order].tobytes()


@pytest.mark.parametrize("lowering", ["native", "conv"])
@pytest.mark.parametrize("precision", ["auto", "f32", "bf16"])
def test_same_bits_in_every_way_to_run(precision: str, lowering: str) -> None:
    """120 texts of 1 to 250 words, shuffled, alone and together, in every precision, lowered or not."""
    rng = np.random.default_rng(0)
    words = " ".join(POOL).split()
    texts = [" ".join(rng.choice(words, rng.integers(1, 250 if i % 4 == 0 else 40))) for i in range(120)]
    try:
        embedder = Embedder.open(precision=precision, lowering=lowering)  # type: ignore[arg-type]
    except PrecisionUnavailable as reason:
        pytest.skip(str(reason))
    with embedder:
        together = embedder.encode(texts)
        order = rng.permutation(len(texts))

        assert embedder.encode([texts[i] for i in order]).tobytes() == together[order].tobytes()
        for i in range(0, len(texts), 3):
            assert embedder.encode(texts[i]).tobytes() == together[i].tobytes()


@pytest.mark.parametrize("lowering", ["native", "conv"])
def test_same_bits_in_every_grid(shipped: Embedder, lowering: Literal["native", "conv"]) -> None:
    """A text has the same bits in every grid that holds it and in every row of it."""
    engine = Engine(SHIPPED, Manifest.read(SHIPPED), Options("CPU", "f32", lowering, 2), None)
    texts = ["a", "A man is slicing an onion.", "stone " * 50, "light " * 100]
    for ((ids,),) in zip(shipped.tokenize(texts).windows, strict=True):
        vectors = set()
        for grid in GRIDS:
            for row in {0, grid.rows - 1} if grid.width >= len(ids) else ():
                rows: list[list[Text]] = [*[[]] * row, [Text(ids)]]
                vectors.add(engine.run(fill(grid, rows))[0].tobytes())

        assert 1 == len(vectors)


def test_threads_change_no_bits(alone: FloatArray) -> None:
    """One thread gives the bits that two give."""
    with Embedder.open(threads=1) as one:
        assert one.encode(POOL).tobytes() == alone.tobytes()


def test_small_batches_change_no_bits(alone: FloatArray) -> None:
    """With a bound to the tokens of a batch no larger grid is used, and every text has the same bits."""
    with Embedder.open(max_batch_tokens=511) as small:
        assert small.encode(POOL).tobytes() == alone.tobytes()
        assert {"1x256", "1x64", "2x64"} <= set(small.info.grids)
        assert "8x64" not in small.info.grids


def test_memory_budgets_change_no_bits(shipped: Embedder, alone: FloatArray) -> None:
    """The smallest set of grids, and one of a few, give the same bits; `info` says what there is."""
    for budget in (190, 400):
        with Embedder.open(memory_mb=budget) as small:
            assert small.encode(POOL).tobytes() == alone.tobytes()
            assert set(small.info.grids) < set(shipped.info.grids)
            assert set(small.info.compiled) <= set(small.info.grids)
            assert small.info.memory_used_mb <= small.info.memory_mb <= budget < shipped.info.memory_mb


@pytest.mark.parametrize("chars", ["word ", ".", "你", "😉", "x", "[SEP]", "…", "a\u0301"])
def test_a_long_text_is_cut_like_a_short_one(shipped: Embedder, chars: str) -> None:
    """A text of a megabyte has the vector of its beginning, without being tokenized to its end."""
    vectors = []
    for text in (chars * (1_000_000 // len(chars)), chars * (4000 // len(chars))):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TruncationWarning)
            vectors.append(shipped.encode(text).tobytes())

    assert vectors[0] == vectors[1]


@pytest.mark.convert
def test_fp32_equals_sentence_transformers(fp32: Embedder, golden: tuple[list[str], FloatArray]) -> None:
    """FP32 differs from the original only by the order of summation, from 1 to 600 tokens."""
    texts, expected = golden
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncationWarning)
        found = fp32.encode(texts)

    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_int8_stays_near_sentence_transformers(
    shipped: Embedder, golden: tuple[list[str], FloatArray]
) -> None:
    """The shipped model keeps a cosine of 0.97 to the original even on awkward text, 0.995 on the whole."""
    texts, expected = golden
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncationWarning)
        cosines = (shipped.encode(texts) * expected).sum(1)

    assert cosines.min() > 0.97
    assert cosines.mean() > 0.995


def test_wrong_texts_and_options_are_named(shipped: Embedder) -> None:
    """A text by its index and type, an option's value with those that exist, a typo in a name."""
    with pytest.raises(TypeError, match="text 1 is NoneType"):
        shipped.encode(["a", None])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="truncate='cut'; choose one of end, error, mean"):
        shipped.encode("a", truncate="cut")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="precision='fp32'"):
        Embedder.open(precision="fp32")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="threads=0"):
        Embedder.open(threads=0)
    with pytest.raises(ValueError, match="max_batch_tokens is 255, but one text may have 256"):
        Embedder.open(max_batch_tokens=255)
    with pytest.raises(TypeError):
        shipped.encode("a", truncat="end")  # type: ignore[call-arg]


def test_a_cut_is_warned_of_once_and_counted() -> None:
    """The first long text warns with both numbers; later ones only count."""
    with Embedder.open() as embedder:
        with pytest.warns(TruncationWarning, match="text 1 has 402 tokens, the model reads 256"):
            embedder.encode(["short", "word " * 400])
        embedder.encode(["word " * 400, "word " * 255])

        assert 3 == embedder.truncated


def test_a_cut_can_be_refused(shipped: Embedder) -> None:
    """truncate="error" names the index, both numbers and the way out of a text in any place."""
    texts = ["short"] * 700 + ["word " * 300]

    with pytest.raises(TextTooLong, match="text 700 has 302 tokens, the model reads 256") as caught:
        shipped.encode(texts, truncate="error")
    assert (700, 302, 256) == (caught.value.index, caught.value.tokens, caught.value.limit)


def test_mean_averages_the_windows_of_long_texts(shipped: Embedder) -> None:
    """truncate="mean" equals the token-weighted mean of windows of 254 word pieces, short texts unchanged."""
    words = [["river", "stone", "light"][i % 3] for i in range(600)]
    windows = [" ".join(words[i : i + 254]) for i in (0, 254, 508)]
    mean = np.array([254, 254, 92], np.float32) @ shipped.encode(windows)

    found = shipped.encode(["short", " ".join(words)], truncate="mean")

    assert np.array_equal(shipped.encode("short"), found[0])
    np.testing.assert_allclose(found[1], mean / np.linalg.norm(mean), atol=1e-6)


def test_tokens_are_counted_uncut(shipped: Embedder) -> None:
    """count_tokens includes [CLS] and [SEP] and does not stop at 256."""
    assert (3, [2, 402]) == (shipped.count_tokens("a"), shipped.count_tokens(["", "word " * 400]))


def test_encode_iter_equals_encode(shipped: Embedder) -> None:
    """Blocks laid end to end are what encode returns, and an endless stream is never drained."""
    texts = [f"text number {i}" for i in range(300)]

    assert np.array_equal(shipped.encode(texts), np.concatenate(list(shipped.encode_iter(texts))))

    drawn = 0

    def endless() -> Iterator[str]:
        nonlocal drawn
        while True:
            drawn += 1
            yield "again and again"

    next(shipped.encode_iter(endless()))
    assert 64 == drawn


def test_encode_iter_refuses_a_str(shipped: Embedder) -> None:
    """A str is not taken for a stream of characters."""
    with pytest.raises(TypeError, match="encode takes a single str"):
        next(shipped.encode_iter("abc"))


def test_similarity_is_the_cosine(shipped: Embedder) -> None:
    """Related texts are closer than others; a single vector counts as one row; shapes must agree."""
    a = shipped.encode(["A man plays the guitar.", "The stock market fell."])

    cosines = shipped.similarity(a[0], shipped.encode(["Someone is playing guitar.", "Shares lost value."]))

    assert (1, 2) == cosines.shape
    assert cosines[0, 0] > 0.6 > 0.3 > cosines[0, 1]
    with pytest.raises(ValueError, match="384 and 3 components"):
        shipped.similarity(a, np.zeros((1, 3), np.float32))


def test_progress_reaches_the_total(shipped: Embedder) -> None:
    """The callback hears of every text exactly once."""
    heard: list[tuple[int, int]] = []

    shipped.encode(["some text"] * 1000, progress=lambda done, total: heard.append((done, total)))

    assert (1000, 1000) == heard[-1]
    assert heard == sorted(heard)


def test_sixty_four_threads_get_what_one_gets(shipped: Embedder, alone: FloatArray) -> None:
    """Single texts, small lists and long ones from 64 threads at once: every bit is right."""
    wrong: list[int] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for size in (1, 3, 40 if seed % 8 == 0 else 8):
            order = rng.integers(0, len(POOL), size)
            found = shipped.encode(POOL[order[0]] if size == 1 else [POOL[i] for i in order])
            if found.tobytes() != alone[order].tobytes():
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [] == wrong


def test_coroutines_share_an_embedder(shipped: Embedder, alone: FloatArray) -> None:
    """A hundred awaited calls at once give what encode gives, and one that is cancelled harms no other."""

    async def all_at_once() -> list[object]:
        calls = [asyncio.ensure_future(shipped.aencode(POOL[i % len(POOL)])) for i in range(100)]
        await asyncio.sleep(0)
        calls[7].cancel()
        return list(await asyncio.gather(*calls, return_exceptions=True))

    found = asyncio.run(all_at_once())

    assert isinstance(found.pop(7), asyncio.CancelledError)
    expected = [alone[i % len(POOL)].tobytes() for i in range(100) if i != 7]
    assert expected == [vector.tobytes() for vector in found if isinstance(vector, np.ndarray)]


def test_aencode_is_encode(shipped: Embedder) -> None:
    """The same shapes, bits and errors."""
    texts = ["a", "word " * 600]

    assert np.array_equal(
        shipped.encode(texts, truncate="mean"), asyncio.run(shipped.aencode(texts, truncate="mean"))
    )
    assert ((384,), (0, 384)) == (
        asyncio.run(shipped.aencode("a")).shape,
        asyncio.run(shipped.aencode([])).shape,
    )
    with pytest.raises(TextTooLong, match="text 1 has 602 tokens"):
        asyncio.run(shipped.aencode(texts, truncate="error"))


def test_what_is_tokenized_can_be_submitted(shipped: Embedder, alone: FloatArray) -> None:
    """Texts, their ids, and their ids without [CLS] and [SEP] are the same thing; tokens are counted."""
    tokenized = shipped.tokenize(POOL)
    ids = [windows[0].tolist() for windows in tokenized.windows]

    assert shipped.count_tokens(POOL) == tokenized.tokens
    for texts in (POOL, ids, [text[1:-1] for text in ids]):
        assert alone.tobytes() == shipped.submit(shipped.tokenize(texts)).result().tobytes()


def test_an_event_loop_can_wait_for_what_is_submitted(shipped: Embedder, alone: FloatArray) -> None:
    """The vectors come into the loop, for no texts too; who cancels leaves the queue, and others do not."""

    async def scenario() -> tuple[FloatArray, FloatArray, bool]:
        tokenized = shipped.tokenize(POOL)
        left = shipped.asubmit(tokenized)
        left.cancel()
        found = await shipped.asubmit(tokenized)
        return found, await shipped.asubmit(shipped.tokenize([])), left.cancelled()

    vectors, none, cancelled = asyncio.run(scenario())

    assert alone.tobytes() == vectors.tobytes()
    assert (0, 384) == none.shape
    assert cancelled


def test_a_call_that_is_over_leaves_no_cycles(shipped: Embedder) -> None:
    """What was submitted and answered is freed at once: nothing is left for the garbage collector."""

    async def one_of_each() -> None:
        await shipped.asubmit(shipped.tokenize(["one text"]))
        shipped.submit(shipped.tokenize(["one text"])).result()

    assert left_by_twenty(one_of_each) < 20


def test_tokenize_says_what_it_cut(shipped: Embedder) -> None:
    """The indices of texts that lose their ends, and the tokens that are left; with "mean" none does."""
    long = "word " * 400

    assert ([1], [3, 256]) == (
        (cut := shipped.tokenize(["a", long])).truncated,
        cut.tokens,
    )
    assert ([], [3, 404]) == ((mean := shipped.tokenize(["a", long], truncate="mean")).truncated, mean.tokens)
    assert [1] == shipped.tokenize([[5], [2204] * 400]).truncated


@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        ([[5], [30522]], ValueError, "token 0 of text 1 is 30522; ids end at 30521"),
        ([[5, -1]], ValueError, "token 1 of text 0 is -1"),
        ([[5, 1.5]], TypeError, "token 1 of text 0 is float"),
        ([[True]], TypeError, "token 0 of text 0 is bool"),
        ([[5], "a"], TypeError, "text 1 is str, expected a list of token ids"),
        ([None], TypeError, "text 0 is NoneType"),
        (["a", [5]], TypeError, "text 1 is list"),
    ],
)
def test_ids_that_are_none_are_named(
    shipped: Embedder, texts: list[object], error: type[Exception], message: str
) -> None:
    """What is not an id of the vocabulary is refused with its place."""
    with pytest.raises(error, match=message):
        shipped.tokenize(texts)  # type: ignore[arg-type]


def test_an_embedder_that_is_dropped_leaves_no_thread() -> None:
    """Without close, too: the threads end when nobody can call it any more."""
    before = set(threading.enumerate())
    embedder = Embedder.open()
    embedder.encode(POOL * 4)
    assert 1 + min(4, embedder.info.threads) == len(set(threading.enumerate()) - before)
    del embedder
    gc.collect()

    until(lambda: not set(threading.enumerate()) - before)


def test_an_interrupted_call_leaves_a_usable_embedder(shipped: Embedder, alone: FloatArray) -> None:
    """An exception in the middle (Ctrl-C is one) loses that call and nothing else."""

    def interrupt(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shipped.encode(["some text"] * 3000, progress=interrupt)
    assert np.array_equal(alone, shipped.encode(POOL))


def test_info_says_what_runs(shipped: Embedder) -> None:
    """Info names device, precision, lowering, threads, fingerprint and versions, ready for JSON."""
    info = shipped.info.as_dict()

    assert ("CPU", "int8", "sentence-transformers/all-MiniLM-L6-v2") == (
        info["device"],
        info["weights"],
        info["model"],
    )
    assert info["precision"] in ("f32", "bf16")
    assert info["lowering"] in ("native", "conv")
    assert 16 == len(info["fingerprint"])
    assert {"ov-minilm", "openvino", "tokenizers", "numpy", "python"} == set(info["versions"])


def test_a_closed_embedder_says_so() -> None:
    """Use after close is an error, not a crash."""
    with Embedder.open() as embedder:
        pass

    with pytest.raises(ValueError, match="closed"):
        embedder.encode("a")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("use", ["e.encode('a')", "encode('a')", "Embedder.open()"])
def test_a_fork_is_noticed(use: str) -> None:
    """A child of fork gets a clear error instead of a hang, can close, and exits as any process does."""
    done = python(
        "import os, sys, warnings\n"
        "warnings.simplefilter('ignore', DeprecationWarning)\n"
        "from ov_minilm import Embedder, ForkedProcess, encode\n"
        "e = Embedder.open(); e.encode('a'); encode('a')\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        f"    try: {use}\n"
        "    except ForkedProcess: e.close(); sys.exit(7)\n"
        "    sys.exit(1)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    )

    assert (7, "") == (done.returncode, done.stderr)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_in_the_middle_of_a_call_is_noticed() -> None:
    """Where another thread was encoding at the fork, the child still gets the error, and no deadlock."""
    done = python(
        "import os, sys, threading, warnings\n"
        "warnings.simplefilter('ignore', DeprecationWarning)\n"
        "from ov_minilm import Embedder, ForkedProcess\n"
        "e = Embedder.open()\n"
        "begun = threading.Event()\n"
        "texts = [f'text {i}' for i in range(5000)]\n"
        "run = lambda: e.encode(texts, progress=lambda *_: begun.set())\n"
        "threading.Thread(target=run).start(); begun.wait(60)\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    try: e.encode('a')\n"
        "    except ForkedProcess: e.close(); sys.exit(7)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    )

    assert (7, "") == (done.returncode, done.stderr)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize(("before", "expected"), [("", 7), ("with Embedder.open(): pass", 8)])
def test_a_fork_before_the_first_use_may_open_its_own(before: str, expected: int) -> None:
    """A child of a process that only imported the package encodes; one of a process that used it may not."""
    done = python(
        "import os, sys\n"
        "from ov_minilm import Embedder, ForkedProcess\n"
        f"{before}\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    try: sys.exit(7 if Embedder.open().encode('a').shape == (384,) else 1)\n"
        "    except ForkedProcess: sys.exit(8)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    )

    assert (expected, "") == (done.returncode, done.stderr)


def test_closing_twice_is_closing_once(shipped: Embedder) -> None:
    """close() may be called again, inside the with block too, and info still says what ran."""
    with Embedder.open() as embedder:
        embedder.close()

    embedder.close()
    assert shipped.info.fingerprint == embedder.info.fingerprint


def test_a_progress_callback_may_encode(shipped: Embedder) -> None:
    """The callback runs in the middle of a call and may make another."""
    inner: list[FloatArray] = []

    shipped.encode(["a", "b"], progress=lambda *_: inner.append(shipped.encode("c")))

    assert np.array_equal(shipped.encode("c"), inner[0])


def test_encode_works_without_stderr() -> None:
    """Services and windowed programs have no stderr; that is no reason to fail."""
    done = python("import sys; sys.stderr = None; from ov_minilm import encode; print(encode('a').shape)")

    assert (0, "(384,)\n") == (done.returncode, done.stdout)


def test_encode_iter_counts_through_the_stream(shipped: Embedder) -> None:
    """An error in a later block names the text by its number in the whole stream."""
    texts = ["short"] * 100

    with pytest.raises(TypeError, match="text 100 is NoneType"):
        list(shipped.encode_iter([*texts, None]))  # type: ignore[list-item]
    with pytest.raises(TextTooLong, match="text 100 has 302 tokens"):
        list(shipped.encode_iter([*texts, "word " * 300], truncate="error"))
    with pytest.raises(ValueError, match="truncate='cut'"):
        shipped.encode_iter(["a"], truncate="cut")  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", DTYPES)
def test_smaller_vectors_are_those_of_the_float_ones(shipped: Embedder, dtype: Dtype) -> None:
    """Dimensions and dtype are the last step of encode, encode_iter, aencode and the module's encode."""
    texts = [f"text number {i}" for i in range(70)]
    expected = cast(shrink(shipped.encode(texts), 100), dtype)

    iterated = shipped.encode_iter(texts, dimensions=100, dtype=dtype)

    assert np.array_equal(expected, shipped.encode(texts, dimensions=100, dtype=dtype))
    assert np.array_equal(expected, np.concatenate(list(iterated)))
    assert np.array_equal(expected, asyncio.run(shipped.aencode(texts, dimensions=100, dtype=dtype)))
    assert np.array_equal(expected[0], encode(texts[0], dimensions=100, dtype=dtype))
    assert expected.dtype == shipped.encode([], dimensions=100, dtype=dtype).dtype


def test_a_wrong_form_is_refused_before_the_work(shipped: Embedder) -> None:
    """No text is drawn from an iterable for a dtype or a number of dimensions that does not exist."""
    for encode_any in (shipped.encode, shipped.encode_iter):
        texts = iter(["a"])
        with pytest.raises(ValueError, match="dimensions=385; a vector has 1 to 384"):
            encode_any(texts, dimensions=385)
        with pytest.raises(ValueError, match="dtype='int4'"):
            encode_any(texts, dtype="int4")  # type: ignore[arg-type]

        assert ["a"] == list(texts)


def test_similarity_refuses_integers(shipped: Embedder) -> None:
    """Products of int8 overflow silently in numpy, so they are not taken."""
    vectors = shipped.encode(["a"], dtype="int8")

    with pytest.raises(TypeError, match="float vectors, not int8"):
        shipped.similarity(vectors, vectors)

"""The embedder on the real model: exact vectors, equal bits with all options, clear errors, a clean end."""

import asyncio
import gc
import os
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.fakes import FakeEngine
from support.processes import objects_left_by_20, python, wait_until

from ov_minilm import Embedder, PrecisionUnavailable, TextTooLong, TruncationWarning, encode
from ov_minilm.artefact.manifest import SHIPPED, TOKENIZER, Manifest
from ov_minilm.runtime.embedder import CHUNK_TEXTS
from ov_minilm.runtime.engine import Engine
from ov_minilm.runtime.output import DTYPES, cast, shrink
from ov_minilm.runtime.packing import Text, fill
from ov_minilm.runtime.plan import Options
from ov_minilm.runtime.scheduler import CHUNK_TOKENS, LOOKAHEAD_CELLS
from ov_minilm.runtime.tokens import Tokenized, Tokens
from ov_minilm.spec import GRIDS, FloatArray, Grid

LENGTHS = [1, 2, 3, 5, 8, 13, 14, 15, 20, 30, 40, 61, 62, 63, 100, 125, 126, 127, 190, 200, 253, 254]
WORDS = ["river", "stone", "light", "bread"] * 65
TEXTS = [" ".join(WORDS[i % 4 : i % 4 + n]) for i, n in enumerate(LENGTHS)]
TEXTS += ["", "a", "naïve café", "안녕하세요 😉"]
LONG_TEXT = "word " * 400


@pytest.fixture(scope="module")
def reference(shipped: Embedder) -> FloatArray:
    """The vectors of TEXTS, each encoded in a call of its own."""
    return np.stack([shipped.encode(text) for text in TEXTS])


def test_encode_returns_unit_vectors_of_the_model_that_info_describes(shipped: Embedder) -> None:
    """A str gives float32 [D], N texts give [N, D]; related texts are similar; `info` can be JSON."""
    vector, info = shipped.encode("one text"), shipped.info.as_dict()
    vectors = shipped.encode(
        ["A man plays the guitar.", "Someone is playing guitar.", "The stock market fell."]
    )

    assert ((384,), np.float32) == (vector.shape, vector.dtype.type)
    assert abs(float(np.linalg.norm(vector)) - 1) < 1e-6
    assert [(2, 384), (0, 384), (1, 384)] == [shipped.encode(t).shape for t in (["a", "b"], [], ("only",))]
    assert (3, [2, 402]) == (shipped.count_tokens("a"), shipped.count_tokens(["", LONG_TEXT]))
    cosines = shipped.similarity(vectors[0], vectors[1:])
    assert cosines[0, 0] > 0.6 > 0.3 > cosines[0, 1]
    assert (shipped.spec.dim, {}) == (384, shipped.prompts)
    expected = "CPU", "int8", "sentence-transformers/all-MiniLM-L6-v2", "3760c8c857a0f71e"
    assert expected == tuple(info[name] for name in ("device", "weights", "model", "fingerprint"))
    assert info["precision"] in ("f32", "bf16")
    assert info["lowering"] in ("native", "conv")
    assert {"ov-minilm", "openvino", "tokenizers", "numpy", "python"} == set(info["versions"])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, len(TEXTS) - 1), max_size=120))
def test_other_texts_in_a_call_change_no_bit(
    shipped: Embedder, reference: FloatArray, order: list[int]
) -> None:
    """The vector of a text is the same to the bit whatever else is in the call, in any order."""
    assert reference[order].tobytes() == shipped.encode([TEXTS[i] for i in order]).tobytes()


@pytest.mark.parametrize(
    "options",
    [
        {"threads": 1, "max_batch_tokens": 511},
        {"memory_mb": 190},
        {"precision": "bf16", "lowering": "native"},
        pytest.param({"precision": "bf16", "lowering": "conv"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_options_change_no_bit(shipped: Embedder, reference: FloatArray, options: dict[str, Any]) -> None:
    """With any options, a text has the same bits alone and in a list; memory and grid limits hold."""
    some = TEXTS[::3]
    try:
        embedder = Embedder.open(**options)
    except PrecisionUnavailable as reason:
        pytest.skip(str(reason))
    with embedder:
        vectors = embedder.encode(some)
        order = np.random.default_rng(0).permutation(len(some))
        assert vectors[order].tobytes() == embedder.encode([some[i] for i in order]).tobytes()
        for i in range(0, len(some), 2):
            assert vectors[i].tobytes() == embedder.encode(some[i]).tobytes()
        small_info, full_info = embedder.info, shipped.info
    if "precision" not in options:
        assert reference[::3].tobytes() == vectors.tobytes()
        assert set(small_info.compiled) <= set(small_info.grids) <= set(full_info.grids)
    if "memory_mb" in options:
        assert small_info.memory_used_mb <= small_info.memory_mb <= options["memory_mb"] < full_info.memory_mb
    assert ("8x64" in small_info.grids) == (
        options.get("max_batch_tokens", 512) >= 512 and small_info.memory_mb > 190
    )


@pytest.mark.parametrize(
    "grids", [GRIDS[1:4], pytest.param(GRIDS, marks=pytest.mark.slow)], ids=["some", "all"]
)
def test_every_grid_and_row_gives_the_same_bits(shipped: Embedder, grids: tuple[Grid, ...]) -> None:
    """A text has the same bits in the first and last row of every grid, in the other lowering too."""
    lowering: Any = "native" if shipped.info.lowering == "conv" else "conv"
    engine = Engine(SHIPPED, Manifest.read(SHIPPED), Options("CPU", "f32", lowering, 2), None)
    texts = ["a", "A man is slicing an onion.", "stone " * 50, "light " * 100]
    for ids in shipped.tokenize(texts).flat:
        vectors = set()
        for grid in grids:
            for row in {0, grid.rows - 1} if grid.width >= len(ids) else ():
                rows: list[list[Text]] = [*[[]] * row, [Text(ids)]]
                vectors.add(engine.run(fill(grid, rows))[0].tobytes())
        assert 1 == len(vectors)


@pytest.mark.convert
@pytest.mark.filterwarnings("ignore::ov_minilm.TruncationWarning")
def test_fp32_equals_sentence_transformers(
    shipped: Embedder, fp32: Embedder, golden: tuple[list[str], FloatArray]
) -> None:
    """FP32 agrees to 1e-5; the cosine of INT8 is at least 0.97 for every text, 0.995 on average."""
    texts, expected = golden
    np.testing.assert_allclose(fp32.encode(texts), expected, rtol=0, atol=1e-5)
    cosines = (shipped.encode(texts) * expected).sum(1)
    assert cosines.min() > 0.97
    assert cosines.mean() > 0.995


def unread() -> Iterator[str]:
    """Yield texts; fail if any is requested."""
    pytest.fail("a text was read")
    yield ""


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e: e.encode(["a", None]), "TypeError: text 1 is NoneType"),
        (lambda e: next(e.encode_iter("abc")), "TypeError: .*encode takes a single str"),
        (lambda e: [*e.encode_iter([*["a"] * 100, None])], "TypeError: text 100 is NoneType"),
        (lambda e: [*e.encode_iter([*["a"] * 99, LONG_TEXT], truncate="error")], "TextTooLong: text 99 has"),
        (lambda e: asyncio.run(e.aencode(["a", LONG_TEXT], truncate="error")), "TextTooLong: text 1 has 402"),
        (lambda e: e.encode("a", truncate="cut"), "ValueError: truncate='cut'; choose one of end, error, m"),
        (lambda e: e.encode("a", truncat="end"), "TypeError: .*unexpected keyword argument 'truncat'"),
        (lambda e: e.encode(unread(), dimensions=385), "ValueError: dimensions=385; a vector has 1 to 384"),
        (lambda e: e.encode_iter(unread(), dimensions=385), "ValueError: dimensions=385; a vector has 1 to"),
        (lambda e: e.encode(unread(), dtype="int4"), "ValueError: dtype='int4'"),
        (lambda e: e.encode("x", dimensions=2.0), "TypeError: dimensions=2.0 is float"),
        (lambda e: e.tokenize(["a", [5]]), "TypeError: text 1 is list"),
        (lambda e: e.open(precision="fp32"), "ValueError: precision='fp32'"),
        (lambda e: e.open(cache_dir=""), "ValueError: cache_dir='' is empty; name a folder, or pass None"),
        (lambda e: e.open(threads=0), "ValueError: threads=0"),
        (lambda e: e.open(threads=True), "TypeError: threads=True is bool; pass an integer"),
        (lambda e: e.open(cache_mb=0), "ValueError: cache_mb=0; at least 1"),
        (lambda e: e.open(max_batch_tokens=255), "ValueError: max_batch_tokens is 255, but .* have 256"),
    ],
)
def test_errors_name_the_text_or_the_option(
    shipped: Embedder, call: Callable[[Any], object], message: str
) -> None:
    """The error has the text's index or the option's value; options are checked before texts."""
    with pytest.raises((TypeError, ValueError, TextTooLong)) as caught:
        call(shipped)
    assert re.match(message, f"{caught.type.__name__}: {caught.value}")


def test_truncation_warns_once_is_counted_or_is_an_error(shipped: Embedder) -> None:
    """The warning has the caller's line and both lengths; the error also has the index of the text."""
    with Embedder.open() as embedder:
        with pytest.warns(TruncationWarning, match="text 1 has 402 tokens, the model reads 256") as warned:
            embedder.encode(["short", LONG_TEXT])
        embedder.encode([LONG_TEXT, "word " * 255])
        assert (3, __file__) == (embedder.truncated, warned[0].filename)
    with pytest.raises(TextTooLong, match="text 700 has 402 tokens, the model reads 256") as caught:
        shipped.encode([*["short"] * 700, LONG_TEXT], truncate="error")
    assert (700, 402, 256) == (caught.value.index, caught.value.tokens, caught.value.limit)


def test_all_ways_to_encode_agree(shipped: Embedder) -> None:
    """All functions that encode agree in every dtype; encode_iter reads one block at a time."""
    texts = [f"text number {i}" for i in range(80)]  # more than the first block of encode_iter
    vectors = shipped.encode(texts)
    for dimensions, dtype in ((None, DTYPES[0]), *((100, dtype) for dtype in DTYPES)):
        options: dict[str, Any] = {"dimensions": dimensions, "dtype": dtype}
        expected = cast(shrink(vectors, dimensions or 384), dtype)
        assert np.array_equal(expected, shipped.encode(texts, **options))
        assert np.array_equal(expected, np.concatenate(list(shipped.encode_iter(texts, **options))))
        assert np.array_equal(expected, asyncio.run(shipped.aencode(texts, **options)))
        assert np.array_equal(expected[0], encode(texts[0], **options))
        assert expected.dtype == shipped.encode([], **options).dtype
    numbers = iter(range(10**6))
    next(shipped.encode_iter("again and again" for _ in numbers))
    assert 64 == next(numbers)


def test_a_progress_callback_may_encode_and_may_interrupt(shipped: Embedder, reference: FloatArray) -> None:
    """The callback gets (done, total) until all is done; its exception ends only its own call."""
    received: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        received.append((done, total))
        assert reference[-3].tobytes() == shipped.encode(TEXTS[-3]).tobytes()
        if total == 3000:
            raise KeyboardInterrupt

    shipped.encode(["some text"] * 1000, progress=progress)
    assert (1000, 1000) == received[-1]
    assert received == sorted(received)
    with pytest.raises(KeyboardInterrupt):
        shipped.encode(["some text"] * 3000, progress=progress)
    assert np.array_equal(reference, shipped.encode(TEXTS))


def test_an_interrupt_cancels_texts_that_were_submitted_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """After an interrupt, of the next chunk only the batches run that are packed already."""
    engine, manifest = FakeEngine(threads=1, gated=True), Manifest.read(SHIPPED)
    tokens = Tokens.open(SHIPPED / TOKENIZER, manifest.spec)
    tokenize, batches = tokens.tokenize, CHUNK_TEXTS // 8
    texts = [f"{i} " + "a " * 58 for i in range(3 * CHUNK_TEXTS)]  # one text per row, eight rows per batch
    chunks = count()

    def after_the_first_chunk(*arguments: Any) -> Tokenized:
        if next(chunks):  # so that no batch has texts of two chunks
            wait_until(lambda: len(engine.ran) == batches, 60)
        return tokenize(*arguments)

    def interrupt(*_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tokens, "tokenize", after_the_first_chunk)
    embedder = Embedder(manifest, tokens, engine)  # type: ignore[arg-type]  # a stand-in
    engine.release(batches)
    with pytest.raises(KeyboardInterrupt):
        embedder.encode(texts, progress=interrupt)
    engine.release(1000)
    embedder.close()

    rows_ahead = (CHUNK_TOKENS + LOOKAHEAD_CELLS) // 64
    assert CHUNK_TEXTS <= embedder.stats.texts <= CHUNK_TEXTS + rows_ahead + 2 * 8 < 2 * CHUNK_TEXTS


def test_threads_share_an_embedder(shipped: Embedder, reference: FloatArray) -> None:
    """64 threads that encode single texts and lists at the same time get the bits of one thread."""

    def differences(seed: int) -> int:
        rng = np.random.default_rng(seed)
        calls = [rng.integers(0, len(TEXTS), size) for size in (1, 3, 40 if seed % 16 == 0 else 4)]
        actual = [shipped.encode([TEXTS[i] for i in call]) for call in calls]
        return sum(reference[call].tobytes() != actual[i].tobytes() for i, call in enumerate(calls))

    with ThreadPoolExecutor(64) as threads:
        assert [0] * 64 == list(threads.map(differences, range(64)))


def test_texts_and_their_token_ids_give_the_same_vectors(shipped: Embedder, reference: FloatArray) -> None:
    """Ids may lack [CLS] and [SEP]; `truncated` lists the texts that were cut."""
    tokenized = shipped.tokenize(TEXTS)
    ids = [text.tolist() for text in tokenized.flat]

    assert shipped.count_tokens(TEXTS) == tokenized.tokens
    for texts, short in ((TEXTS, None), (ids, True), ([text[1:-1] for text in ids], False)):
        assert (
            reference.tobytes() == shipped.submit(shipped.tokenize(texts), short=short).result(30).tobytes()
        )
    cut, mean = (shipped.tokenize(["a", LONG_TEXT], truncate=truncate) for truncate in ("end", "mean"))
    assert ([1], [3, 256], [], [3, 404]) == (cut.truncated, cut.tokens, mean.truncated, mean.tokens)
    assert [1] == shipped.tokenize([[5], [2204] * 400]).truncated


def test_coroutines_share_an_embedder(shipped: Embedder, reference: FloatArray) -> None:
    """Awaited calls get the bits of encode, a cancelled one affects no other, and no call leaves a cycle."""
    order = [i % len(TEXTS) for i in range(100)]

    async def scenario() -> list[Any]:
        calls: list[asyncio.Future[Any]] = [asyncio.ensure_future(shipped.aencode(TEXTS[i])) for i in order]
        calls += [shipped.asubmit(shipped.tokenize(texts)) for texts in (TEXTS, TEXTS, [])]
        await asyncio.sleep(0)
        assert calls[7].cancel() == calls[100].cancel() is True
        return await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 60)

    async def submit_twice() -> None:
        await shipped.asubmit(shipped.tokenize(["one text"]))
        shipped.submit(shipped.tokenize(["one text"])).result(30)

    actual = asyncio.run(scenario())

    expected = [*reference[order], reference, reference, reference[:0]]
    for i, (result, vectors) in enumerate(zip(actual, expected, strict=True)):
        if i in (7, 100):
            assert isinstance(result, asyncio.CancelledError)
        else:
            assert (vectors.shape, vectors.tobytes()) == (result.shape, result.tobytes())
    assert objects_left_by_20(submit_twice) < 20  # objects that only the garbage collector frees


def test_a_closed_or_deleted_embedder_leaves_no_thread() -> None:
    """A closed embedder refuses texts and keeps its `info`; a second close() does nothing."""
    threads_before = set(threading.enumerate())
    with Embedder.open() as closed:
        closed.close()
    closed.close()
    with pytest.raises(ValueError, match="closed"):
        closed.encode("a")
    assert "CPU" == closed.info.device

    embedder = Embedder.open()
    embedder.encode(["a few words"] * 100)
    assert 1 + min(4, embedder.info.threads) == len(set(threading.enumerate()) - threads_before)
    del embedder
    gc.collect()
    wait_until(lambda: not set(threading.enumerate()) - threads_before)


FORKS = """
import os, sys, threading, warnings
from ov_minilm import Embedder, ForkedProcess, encode
warnings.simplefilter("ignore", DeprecationWarning)

def child(when, *uses):
    pid = os.fork()
    if pid == 0:
        for use in uses:
            try:
                when += " ok" if use() is not None else ""
            except ForkedProcess:
                when += " refused"
        if when.startswith("opened"):
            embedder.close()
        print(when, flush=True)
        sys.exit()
    assert os.waitpid(pid, 0)[1] == 0

child("unused", lambda: Embedder.open().encode("a"))
with Embedder.open() as embedder:
    uses = [lambda: embedder.encode("a"), lambda: encode("a"), Embedder.open]
    embedder.encode("a"), encode("a")
    child("opened", *uses)
    started, texts = threading.Event(), [f"text {i}" for i in range(1000)]
    run = lambda: embedder.encode(texts, progress=lambda *_: started.set())
    busy = threading.Thread(target=run)
    busy.start()
    assert started.wait(60)
    child("opened and busy", *uses)
    busy.join()
child("closed", Embedder.open)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_gets_an_error_instead_of_a_hang() -> None:
    """A forked child may open an embedder if its parent had none; else it gets an error, and can exit."""
    result = python(FORKS)

    expected = "unused ok\nopened{0}\nopened and busy{0}\nclosed refused\n".format(" refused" * 3)
    assert (0, "", expected) == (result.returncode, result.stderr, result.stdout)

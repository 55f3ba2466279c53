"""The main path on the real model: exactness, order, reproducible bits, bad input, life cycle."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.fakes import FakeEngine
from support.processes import left_by_twenty, python, until

from ov_minilm import Embedder, PrecisionUnavailable, TextTooLong, TruncationWarning, encode
from ov_minilm.artefact.manifest import SHIPPED, TOKENIZER, Manifest
from ov_minilm.runtime.embedder import CHUNK_TEXTS
from ov_minilm.runtime.engine import Engine
from ov_minilm.runtime.output import DTYPES, cast, shrink
from ov_minilm.runtime.packing import Text, fill
from ov_minilm.runtime.plan import Options
from ov_minilm.runtime.scheduler import CHUNK_TOKENS, LOOKAHEAD_CELLS
from ov_minilm.runtime.tokens import Tokens
from ov_minilm.spec import GRIDS, FloatArray

LENGTHS = [1, 2, 3, 5, 8, 13, 14, 15, 20, 30, 40, 61, 62, 63, 100, 125, 126, 127, 190, 200, 253, 254]
WORDS = ["river", "stone", "light", "bread"] * 65
POOL = [" ".join(WORDS[i % 4 : i % 4 + n]) for i, n in enumerate(LENGTHS)]
POOL += ["", "a", "naïve café", "안녕하세요 😉"]
LONG = "word " * 400
SOME = [i % len(POOL) for i in range(100)]


@pytest.fixture(scope="module")
def alone(shipped: Embedder) -> FloatArray:
    """Each text of POOL encoded on its own."""
    return np.stack([shipped.encode(text) for text in POOL])


def test_what_goes_in_and_what_comes_out(shipped: Embedder) -> None:
    """A str gives a unit vector, N texts N rows; related texts are near; tokens are counted uncut."""
    vector = shipped.encode("one text")
    near = shipped.encode(["A man plays the guitar.", "Someone is playing guitar.", "The stock market fell."])

    assert ((384,), np.float32) == (vector.shape, vector.dtype.type)
    assert abs(float(np.linalg.norm(vector)) - 1) < 1e-6
    assert [(2, 384), (0, 384), (1, 384)] == [shipped.encode(t).shape for t in (["a", "b"], [], ("only",))]
    assert (3, [2, 402]) == (shipped.count_tokens("a"), shipped.count_tokens(["", LONG]))
    cosines = shipped.similarity(near[0], near[1:])
    assert cosines[0, 0] > 0.6 > 0.3 > cosines[0, 1]
    assert (shipped.spec.dim, {}) == (384, shipped.prompts)


def test_info_says_what_runs(shipped: Embedder) -> None:
    """Device, precision, lowering, fingerprint and versions, ready for JSON."""
    info = shipped.info.as_dict()

    expected = "CPU", "int8", "sentence-transformers/all-MiniLM-L6-v2", "3760c8c857a0f71e"
    assert expected == tuple(info[name] for name in ("device", "weights", "model", "fingerprint"))
    assert info["precision"] in ("f32", "bf16")
    assert info["lowering"] in ("native", "conv")
    assert {"ov-minilm", "openvino", "tokenizers", "numpy", "python"} == set(info["versions"])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, len(POOL) - 1), max_size=120))
def test_same_text_same_bits_in_any_company(shipped: Embedder, alone: FloatArray, order: list[int]) -> None:
    """A vector does not depend on what else is in the call, nor on the order: not in one bit."""
    assert alone[order].tobytes() == shipped.encode([POOL[i] for i in order]).tobytes()


@pytest.mark.parametrize(
    "options",
    [
        {"threads": 1, "max_batch_tokens": 511},
        {"memory_mb": 190},
        {"precision": "bf16", "lowering": "native"},
        {"precision": "bf16", "lowering": "conv"},
    ],
    ids=str,
)
def test_same_bits_in_every_way_to_run(shipped: Embedder, alone: FloatArray, options: dict[str, Any]) -> None:
    """Alone, together and shuffled; threads and bounds change no bit, and the bounds hold."""
    try:
        embedder = Embedder.open(**options)
    except PrecisionUnavailable as reason:
        pytest.skip(str(reason))
    with embedder:
        together = embedder.encode(POOL)
        order = np.random.default_rng(0).permutation(len(POOL))
        assert together[order].tobytes() == embedder.encode([POOL[i] for i in order]).tobytes()
        for i in range(0, len(POOL), 2):
            assert together[i].tobytes() == embedder.encode(POOL[i]).tobytes()
        small, whole = embedder.info, shipped.info
    if "precision" not in options:
        assert alone.tobytes() == together.tobytes()
        assert set(small.compiled) <= set(small.grids) <= set(whole.grids)
    if "memory_mb" in options:
        assert small.memory_used_mb <= small.memory_mb <= options["memory_mb"] < whole.memory_mb
    assert ("8x64" in small.grids) == (options.get("max_batch_tokens", 512) >= 512 and small.memory_mb > 190)


def test_same_bits_in_every_grid(shipped: Embedder) -> None:
    """In the lowering that other tests do not run: in every grid that holds a text and in every row of it."""
    lowering: Any = "native" if shipped.info.lowering == "conv" else "conv"
    engine = Engine(SHIPPED, Manifest.read(SHIPPED), Options("CPU", "f32", lowering, 2), None)
    texts = ["a", "A man is slicing an onion.", "stone " * 50, "light " * 100]
    for ids in shipped.tokenize(texts).flat:
        vectors = set()
        for grid in GRIDS:
            for row in {0, grid.rows - 1} if grid.width >= len(ids) else ():
                rows: list[list[Text]] = [*[[]] * row, [Text(ids)]]
                vectors.add(engine.run(fill(grid, rows))[0].tobytes())
        assert 1 == len(vectors)


@pytest.mark.convert
@pytest.mark.filterwarnings("ignore::ov_minilm.TruncationWarning")
def test_fp32_equals_sentence_transformers(
    shipped: Embedder, fp32: Embedder, golden: tuple[list[str], FloatArray]
) -> None:
    """But for the order of summation; INT8 keeps a cosine of 0.97 even on awkward text, 0.995 in all."""
    texts, expected = golden
    np.testing.assert_allclose(fp32.encode(texts), expected, rtol=0, atol=1e-5)
    cosines = (shipped.encode(texts) * expected).sum(1)
    assert cosines.min() > 0.97
    assert cosines.mean() > 0.995


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e: e.encode(["a", None]), "TypeError: text 1 is NoneType"),
        (lambda e: next(e.encode_iter("abc")), "TypeError: .*encode takes a single str"),
        (lambda e: [*e.encode_iter([*["a"] * 100, None])], "TypeError: text 100 is NoneType"),
        (lambda e: [*e.encode_iter([*["a"] * 99, LONG], truncate="error")], "TextTooLong: text 99 has 402"),
        (lambda e: asyncio.run(e.aencode(["a", LONG], truncate="error")), "TextTooLong: text 1 has 402 tok"),
        (lambda e: e.encode("a", truncate="cut"), "ValueError: truncate='cut'; choose one of end, error, m"),
        (lambda e: e.encode_iter(["a"], truncate="cut"), "ValueError: truncate='cut'"),
        (lambda e: e.encode("a", truncat="end"), "TypeError: .*unexpected keyword argument 'truncat'"),
        (lambda _: Embedder.open(precision="fp32"), "ValueError: precision='fp32'"),  # type: ignore[arg-type]
        (lambda _: Embedder.open(threads=0), "ValueError: threads=0"),
        (lambda _: Embedder.open(threads=True), "TypeError: threads=True is bool; pass an integer"),
        (lambda _: Embedder.open(memory_mb="400"), "TypeError: memory_mb='400' is str"),  # type: ignore[arg-type]
        (lambda e: e.encode("x", dimensions=2.0), "TypeError: dimensions=2.0 is float"),
        (lambda _: Embedder.open(cache_mb=0), "ValueError: cache_mb=0; at least 1"),
        (
            lambda _: Embedder.open(max_batch_tokens=255),
            "ValueError: max_batch_tokens is 255, but .* have 256",
        ),
        (lambda e: e.tokenize(["a", [5]]), "TypeError: text 1 is list"),
    ],
)
def test_what_is_wrong_is_named(shipped: Embedder, call: Callable[[Any], object], message: str) -> None:
    """A text by its number in the whole call, an option's value with those that exist, an id by its place."""
    with pytest.raises((TypeError, ValueError, TextTooLong)) as caught:
        call(shipped)
    assert re.match(message, f"{caught.type.__name__}: {caught.value}")


def test_a_wrong_form_is_refused_before_the_work(shipped: Embedder) -> None:
    """No text is drawn from an iterable for a dtype or a number of dimensions that does not exist."""
    for encode_any in (shipped.encode, shipped.encode_iter):
        texts = iter(["a"])
        with pytest.raises(ValueError, match="dimensions=385; a vector has 1 to 384"):
            encode_any(texts, dimensions=385)
        with pytest.raises(ValueError, match="dtype='int4'"):
            encode_any(texts, dtype="int4")  # type: ignore[arg-type]
        assert ["a"] == list(texts)


def test_a_cut_is_said_once_counted_or_refused(shipped: Embedder) -> None:
    """The first long text warns with both numbers, later ones count; "error" names a text in any place."""
    with Embedder.open() as embedder:
        with pytest.warns(TruncationWarning, match="text 1 has 402 tokens, the model reads 256") as said:
            embedder.encode(["short", LONG])
        embedder.encode([LONG, "word " * 255])
        assert (3, __file__) == (embedder.truncated, said[0].filename)
    with pytest.raises(TextTooLong, match="text 700 has 402 tokens, the model reads 256") as caught:
        shipped.encode([*["short"] * 700, LONG], truncate="error")
    assert (700, 402, 256) == (caught.value.index, caught.value.tokens, caught.value.limit)


def test_every_way_to_encode_gives_the_same(shipped: Embedder) -> None:
    """encode_iter in blocks, aencode and the module's encode, in every dtype; a stream is never drained."""
    texts = [f"text number {i}" for i in range(200)]
    vectors = shipped.encode(texts)
    for dimensions, dtype in ((None, DTYPES[0]), *((100, dtype) for dtype in DTYPES)):
        form: dict[str, Any] = {"dimensions": dimensions, "dtype": dtype}
        expected = cast(shrink(vectors, dimensions or 384), dtype)
        assert np.array_equal(expected, shipped.encode(texts, **form))
        assert np.array_equal(expected, np.concatenate(list(shipped.encode_iter(texts, **form))))
        assert np.array_equal(expected, asyncio.run(shipped.aencode(texts, **form)))
        assert np.array_equal(expected[0], encode(texts[0], **form))
        assert expected.dtype == shipped.encode([], **form).dtype
    drawn = iter(range(10**6))
    next(shipped.encode_iter("again and again" for _ in drawn))
    assert 64 == next(drawn)


def test_a_callback_may_encode_and_may_interrupt(shipped: Embedder, alone: FloatArray) -> None:
    """It hears how far a call is, to the total; an exception in it loses that call and nothing else."""
    heard: list[tuple[int, int]] = []

    def interrupt(done: int, total: int) -> None:
        heard.append((done, total))
        assert alone[-3].tobytes() == shipped.encode(POOL[-3]).tobytes()
        if total == 3000:
            raise KeyboardInterrupt

    shipped.encode(["some text"] * 1000, progress=interrupt)
    assert (1000, 1000) == heard[-1]
    assert heard == sorted(heard)
    with pytest.raises(KeyboardInterrupt):
        shipped.encode(["some text"] * 3000, progress=interrupt)
    assert np.array_equal(alone, shipped.encode(POOL))


def test_an_interrupt_takes_back_what_was_submitted() -> None:
    """Of a list whose caller is interrupted, the chunk that was tokenized ahead is not run to its end."""
    engine = FakeEngine(threads=1, gated=True)
    manifest = Manifest.read(SHIPPED)
    tokens = Tokens.open(SHIPPED / TOKENIZER, manifest.spec)
    embedder = Embedder(manifest, tokens, engine)  # type: ignore[arg-type]  # a stand-in
    texts = [
        f"{number} " + "a " * 58 for number in range(3 * CHUNK_TEXTS)
    ]  # a row each, so a batch has eight

    def interrupt(*_: int) -> None:
        raise KeyboardInterrupt

    engine.let(CHUNK_TEXTS // 8)
    with pytest.raises(KeyboardInterrupt):
        embedder.encode(texts, progress=interrupt)
    engine.let(1000)
    embedder.close()

    rows_ahead = (CHUNK_TOKENS + LOOKAHEAD_CELLS) // 64
    assert CHUNK_TEXTS <= embedder.stats.texts <= CHUNK_TEXTS + rows_ahead + 2 * 8 < 2 * CHUNK_TEXTS


def test_sixty_four_threads_get_what_one_gets(shipped: Embedder, alone: FloatArray) -> None:
    """Single texts, small lists and long ones from 64 threads at once: every bit is right."""

    def right(seed: int) -> bool:
        rng = np.random.default_rng(seed)
        for size in (1, 3, 40 if seed % 8 == 0 else 8):
            order = rng.integers(0, len(POOL), size)
            found = shipped.encode(POOL[order[0]] if size == 1 else [POOL[i] for i in order])
            if found.tobytes() != alone[order].tobytes():
                return False
        return True

    with ThreadPoolExecutor(64) as threads:
        assert all(threads.map(right, range(64)))


def test_tokenized_texts_can_be_submitted(shipped: Embedder, alone: FloatArray) -> None:
    """Texts, their ids, and their ids without [CLS] and [SEP] are the same; what was cut is said."""
    tokenized = shipped.tokenize(POOL)
    ids = [one.tolist() for one in tokenized.flat]

    assert shipped.count_tokens(POOL) == tokenized.tokens
    for texts in (POOL, ids, [text[1:-1] for text in ids]):
        assert alone.tobytes() == shipped.submit(shipped.tokenize(texts)).result(30).tobytes()
    cut, mean = shipped.tokenize(["a", LONG]), shipped.tokenize(["a", LONG], truncate="mean")
    assert ([1], [3, 256], [], [3, 404]) == (cut.truncated, cut.tokens, mean.truncated, mean.tokens)
    assert [1] == shipped.tokenize([[5], [2204] * 400]).truncated


def test_coroutines_share_an_embedder(shipped: Embedder, alone: FloatArray) -> None:
    """A hundred awaited calls give what encode gives, none too; one that is cancelled harms no other."""

    async def scenario() -> list[Any]:
        calls: list[asyncio.Future[Any]] = [asyncio.ensure_future(shipped.aencode(POOL[i])) for i in SOME]
        calls += [shipped.asubmit(shipped.tokenize(texts)) for texts in (POOL, POOL, [])]
        await asyncio.sleep(0)
        assert calls[7].cancel() == calls[100].cancel() is True
        return await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 60)

    found = asyncio.run(scenario())

    expected = [*alone[SOME], alone, alone, alone[:0]]
    for number, (one, vectors) in enumerate(zip(found, expected, strict=True)):
        if number in (7, 100):
            assert isinstance(one, asyncio.CancelledError)
        else:
            assert (vectors.shape, vectors.tobytes()) == (one.shape, one.tobytes())


def test_a_call_that_is_over_leaves_no_cycles(shipped: Embedder) -> None:
    """What was submitted and answered is freed at once: nothing is left for the garbage collector."""

    async def one_of_each() -> None:
        await shipped.asubmit(shipped.tokenize(["one text"]))
        shipped.submit(shipped.tokenize(["one text"])).result(30)

    assert left_by_twenty(one_of_each) < 20


def test_the_end_of_an_embedder() -> None:
    """Closed once or twice, it refuses work and `info` stays; one that is dropped leaves no thread either."""
    before = set(threading.enumerate())
    with Embedder.open() as closed:
        closed.close()
    closed.close()
    with pytest.raises(ValueError, match="closed"):
        closed.encode("a")
    assert "CPU" == closed.info.device

    embedder = Embedder.open()
    embedder.encode(POOL * 4)
    assert 1 + min(4, embedder.info.threads) == len(set(threading.enumerate()) - before)
    del embedder
    gc.collect()
    until(lambda: not set(threading.enumerate()) - before)


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
    begun, texts = threading.Event(), [f"text {i}" for i in range(2000)]
    run = lambda: embedder.encode(texts, progress=lambda *_: begun.set())
    busy = threading.Thread(target=run)
    busy.start()
    assert begun.wait(60)
    child("opened and busy", *uses)
    busy.join()
child("closed", Embedder.open)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_is_noticed() -> None:
    """A child may open its own before the first use; later it gets an error, no hang, and can exit."""
    done = python(FORKS)

    expected = "unused ok\nopened{0}\nopened and busy{0}\nclosed refused\n".format(" refused" * 3)
    assert (0, "", expected) == (done.returncode, done.stderr, done.stdout)

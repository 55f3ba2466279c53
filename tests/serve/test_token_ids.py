"""Token ids are read in the vocabulary they are of, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.clients import ranks

from ov_minilm import Embedder
from ov_minilm.serve.errors import ApiError
from ov_minilm.serve.settings import TokenIds
from ov_minilm.serve.token_ids import TokenIdReader, ranks_path

OURS, OPENAIS = "all-MiniLM-L6-v2", "text-embedding-ada-002"
HELLO = [15339, 1917]  # "hello world" in cl100k; possible in both vocabularies
NATIVE = [101, 7592, 2088, 102]  # the same in the model's


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take cl100k's ranks from where they are."""
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(ranks()))


@pytest.mark.parametrize(
    ("lists", "model", "expected"),
    [
        ([HELLO], OPENAIS, ["hello world"]),
        ([[791, 8415, 13]], OURS, ["The cat."]),  # 791 and 13 are unused in the model's vocabulary
        ([HELLO, [9906, 100_000]], OURS, ["hello world", "HelloIClient"]),  # one proves all
        ([NATIVE], OURS, [NATIVE]),
        ([NATIVE], OPENAIS, [NATIVE]),
        ([[101, 102], NATIVE], None, [[101, 102], NATIVE]),
    ],
)
def test_auto_tells_vocabularies_apart(
    lists: list[list[int]], model: str | None, expected: list[str] | list[list[int]]
) -> None:
    """By ids that only one has, by [CLS] and [SEP], or by the model that is named."""
    assert expected == TokenIdReader("auto", NATIVE).read(lists, model)


@pytest.mark.parametrize(
    ("policy", "lists", "model", "said"),
    [
        ("reject", [NATIVE], OURS, "does not accept token ids"),
        ("auto", [HELLO], OURS, "fit both this model's vocabulary and OpenAI's"),
        ("auto", [HELLO], None, "fit both this model"),
        ("auto", [[7592, 2088]], OURS, "fit both this model"),
        ("auto", [NATIVE, HELLO], OURS, "fit both this model"),
        ("auto", [NATIVE, [791]], OPENAIS, "fit both this model"),  # contradicts itself
        ("auto", [[101]], OURS, "fit both this model"),
        ("native", [[101, 7592, 102, 0]], OURS, "without padding"),
    ],
)
def test_what_is_unclear_is_refused(
    policy: TokenIds, lists: list[list[int]], model: str | None, said: str
) -> None:
    """No ids are embedded in the wrong vocabulary; LangChain's users are told what to set."""
    with pytest.raises(ApiError) as refused:
        TokenIdReader(policy, NATIVE).read(lists, model)

    assert 400 == refused.value.status
    assert said in refused.value.message
    if policy in ("reject", "auto"):
        assert "check_embedding_ctx_length=False" in refused.value.message


def test_another_vocabulary_is_not_guessed_about() -> None:
    """With a model whose tokenizer is another, `auto` takes no ids; told what they are, it does."""
    with pytest.raises(ApiError, match="vocabulary of these token ids is unclear"):
        TokenIdReader("auto", [1, 5, 6, 2]).read([[791, 8415, 13]], OURS)

    assert [[791, 8415, 13]] == TokenIdReader("native", [1, 5, 6, 2]).read([[791, 8415, 13]], OURS)


def test_native_ids_need_no_frame() -> None:
    """Told that ids are native, any are taken; the embedder adds [CLS] and [SEP] where they are missing."""
    assert [NATIVE, [7592, 2088]] == TokenIdReader("native", NATIVE).read([NATIVE, [7592, 2088]], None)


def test_cl100k_decodes_whatever_it_is() -> None:
    """Told that ids are cl100k, there is nothing to guess; half a character becomes U+FFFD."""
    assert ["hello world", "\ufffd"] == TokenIdReader("cl100k", NATIVE).read([HELLO, [101]], OURS)


@given(st.lists(st.text(min_size=1), min_size=1, max_size=4))
def test_langchains_ids_are_never_taken_for_native(texts: list[str]) -> None:
    """Any text, as LangChain sends it, comes back as it was, or is refused; it is never read as native."""
    import tiktoken

    encoding = tiktoken.get_encoding("cl100k_base")
    lists = [encoding.encode(text, disallowed_special=()) for text in texts]
    reader = TokenIdReader("auto", NATIVE)

    assert [encoding.decode(ids) for ids in lists] == reader.read(lists, OPENAIS)
    assert _read(reader, lists, OURS) in ([encoding.decode(ids) for ids in lists], "ambiguous_token_ids")


def _read(reader: TokenIdReader, lists: list[list[int]], model: str) -> object:
    """Return what the lists are read as, or the code of the refusal."""
    try:
        return reader.read(lists, model)
    except ApiError as refused:
        return refused.code


@given(st.lists(st.text(), min_size=1, max_size=4))
def test_native_ids_are_never_taken_for_cl100k(shipped: Embedder, texts: list[str]) -> None:
    """What the model's own tokenizer makes of any text is recognised as such."""
    lists = [ids.tolist() for text in shipped.tokenize(texts).windows for ids in text]

    assert lists == TokenIdReader("auto", NATIVE).read(lists, OPENAIS)


def test_ranks_are_fetched_for_no_request(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without ranks on this machine cl100k ids are refused: a request makes the server load nothing."""
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))

    with pytest.raises(ApiError) as refused:
        TokenIdReader("auto", NATIVE).read([HELLO], OPENAIS)

    assert "cl100k_unavailable" == refused.value.code
    assert tmp_path == ranks_path().parent
    assert [] == list(tmp_path.iterdir())

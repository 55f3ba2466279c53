"""Token ids are read in the vocabulary they are of, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.serving import cl100k_folder

from ov_minilm import Embedder
from ov_minilm.serve.errors import ApiError
from ov_minilm.serve.settings import TokenIds
from ov_minilm.serve.token_ids import TokenIdReader, ranks_path

OURS, OPENAIS = "all-MiniLM-L6-v2", "text-embedding-ada-002"
HELLO = [15339, 1917]  # "hello world" in cl100k; possible in both vocabularies
NATIVE = [101, 7592, 2088, 102]  # the same in the model's
OTHER = [1, 5, 6, 2]  # the same in another model's
Lists = list[list[int]]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take cl100k's ranks from where they are."""
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(cl100k_folder()))


@pytest.mark.parametrize(
    ("policy", "lists", "model", "expected"),
    [
        ("auto", [HELLO], OPENAIS, ["hello world"]),
        ("auto", [[791, 8415, 13]], OURS, ["The cat."]),  # 791 and 13 are unused in the model's vocabulary
        ("auto", [HELLO, [9906, 100_000]], OURS, ["hello world", "HelloIClient"]),  # one proves all
        ("auto", [NATIVE], OURS, [NATIVE]),
        ("auto", [NATIVE], OPENAIS, [NATIVE]),
        ("native", [[791, 8415, 13]], OURS, [[791, 8415, 13]]),
        ("native", [NATIVE, [7592, 2088]], None, [NATIVE, [7592, 2088]]),  # the embedder adds the frame
        ("cl100k", [HELLO, [101]], OURS, ["hello world", "\ufffd"]),  # half a character
    ],
)
def test_vocabularies_are_told_apart(
    policy: TokenIds, lists: Lists, model: str | None, expected: object
) -> None:
    """By ids that only one has, by [CLS] and [SEP], or by the model that is named; or the policy says it."""
    assert expected == TokenIdReader(policy, NATIVE).read(lists, model)


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
        ("auto", [[791, 8415, 13]], OURS, "is unclear"),
        ("cl100k", [[100_256]], OURS, "an id that is not in cl100k"),
    ],
)
def test_what_is_unclear_is_refused(policy: TokenIds, lists: Lists, model: str | None, said: str) -> None:
    """No ids are embedded in the wrong vocabulary; LangChain's users are told what to set."""
    with pytest.raises(ApiError, match=said) as refused:
        TokenIdReader(policy, OTHER if said == "is unclear" else NATIVE).read(lists, model)

    assert 400 == refused.value.status
    assert (policy in ("reject", "auto")) == ("check_embedding_ctx_length=False" in refused.value.message)


@given(st.lists(st.text(min_size=1), min_size=1, max_size=4))
def test_ids_are_never_taken_for_those_of_another_vocabulary(shipped: Embedder, texts: list[str]) -> None:
    """Any text, as LangChain sends it, is read right or refused; as our tokenizer makes it, it is native."""
    import tiktoken

    encoding = tiktoken.get_encoding("cl100k_base")
    theirs = [encoding.encode(text, disallowed_special=()) for text in texts]
    ours = [ids.tolist() for text in shipped.tokenize(texts).windows for ids in text]
    decoded = [encoding.decode(ids) for ids in theirs]
    reader = TokenIdReader("auto", NATIVE)

    assert (decoded, ours) == (reader.read(theirs, OPENAIS), reader.read(ours, OPENAIS))
    try:
        found: object = reader.read(theirs, OURS)
    except ApiError as refused:
        found = refused.code
    assert found in (decoded, "ambiguous_token_ids")


def test_ranks_are_fetched_for_no_request(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without ranks on this machine cl100k ids are refused: a request makes the server load nothing."""
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))

    with pytest.raises(ApiError) as refused:
        TokenIdReader("auto", NATIVE).read([HELLO], OPENAIS)

    assert ("cl100k_unavailable", tmp_path) == (refused.value.code, ranks_path().parent)
    assert [] == list(tmp_path.iterdir())

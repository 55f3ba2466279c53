"""Token ids are decoded with the vocabulary that they belong to, or refused."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.serving import cl100k_folder

from ov_minilm import Embedder
from ov_minilm.serve.errors import ApiError
from ov_minilm.serve.settings import TokenIds
from ov_minilm.serve.token_ids import TokenIdReader, ranks_path

MINILM, ADA = "all-MiniLM-L6-v2", "text-embedding-ada-002"
CL100K_IDS = [15339, 1917]  # "hello world" in cl100k; these ids exist in the model's vocabulary too
MODEL_IDS = [101, 7592, 2088, 102]  # "hello world" in the model's vocabulary
OTHER_MODEL_IDS = [1, 5, 6, 2]  # in the vocabulary of another model
Lists = list[list[int]]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let tiktoken read cl100k from this machine, without a network."""
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(cl100k_folder()))


@pytest.mark.parametrize(
    ("policy", "lists", "model", "expected"),
    [
        ("auto", [CL100K_IDS], ADA, ["hello world"]),
        ("auto", [[791, 8415, 13]], MINILM, ["The cat."]),  # 791 and 13 are unused in the model's vocabulary
        # an id that only cl100k has decides for all lists
        ("auto", [CL100K_IDS, [9906, 100_000]], MINILM, ["hello world", "HelloIClient"]),
        ("auto", [MODEL_IDS], MINILM, [MODEL_IDS]),
        ("auto", [MODEL_IDS], ADA, [MODEL_IDS]),
        ("native", [[791, 8415, 13]], MINILM, [[791, 8415, 13]]),
        ("native", [MODEL_IDS, [7592, 2088]], None, [MODEL_IDS, [7592, 2088]]),  # [CLS] and [SEP] are added
        ("cl100k", [CL100K_IDS, [101]], MINILM, ["hello world", "\ufffd"]),  # id 101 is half of a character
    ],
)
def test_ids_are_read(policy: TokenIds, lists: Lists, model: str | None, expected: object) -> None:
    """The vocabulary follows from the policy, [CLS] and [SEP], unknown ids, or the model's name."""
    assert expected == TokenIdReader(policy, MODEL_IDS).read(lists, model)


@pytest.mark.parametrize(
    ("policy", "lists", "model", "message"),
    [
        ("reject", [MODEL_IDS], MINILM, "does not accept token ids"),
        ("auto", [CL100K_IDS], MINILM, "fit both this model's vocabulary and OpenAI's"),
        ("auto", [CL100K_IDS], None, "fit both this model"),
        ("auto", [[7592, 2088]], MINILM, "fit both this model"),
        ("auto", [MODEL_IDS, CL100K_IDS], MINILM, "fit both this model"),
        ("auto", [MODEL_IDS, [791]], ADA, "fit both this model"),  # lists of different vocabularies
        ("auto", [[101]], MINILM, "fit both this model"),
        ("native", [[101, 7592, 102, 0]], MINILM, "without padding"),
        ("auto", [[791, 8415, 13]], MINILM, "is unclear"),
        ("cl100k", [[100_256]], MINILM, "an id that is not in cl100k"),
    ],
)
def test_ids_are_refused(policy: TokenIds, lists: Lists, model: str | None, message: str) -> None:
    """Ids that fit both vocabularies are refused; the error tells users of LangChain what to set."""
    with pytest.raises(ApiError, match=message) as refused:
        TokenIdReader(policy, OTHER_MODEL_IDS if message == "is unclear" else MODEL_IDS).read(lists, model)

    assert 400 == refused.value.status
    assert (policy in ("reject", "auto")) == ("check_embedding_ctx_length=False" in refused.value.message)


@settings(deadline=None)  # no deadline: a busy machine is not a bug
@given(st.lists(st.text(min_size=1), min_size=1, max_size=4))
def test_ids_of_any_text(shipped: Embedder, texts: list[str]) -> None:
    """Ids from LangChain are decoded to the text or refused; ids of our tokenizer are recognized."""
    import tiktoken

    encoding = tiktoken.get_encoding("cl100k_base")
    cl100k_ids = [encoding.encode(text, disallowed_special=()) for text in texts]
    native_ids = [ids.tolist() for text in shipped.tokenize(texts).windows for ids in text]
    decoded = [encoding.decode(ids) for ids in cl100k_ids]
    reader = TokenIdReader("auto", MODEL_IDS)

    assert (decoded, native_ids) == (reader.read(cl100k_ids, ADA), reader.read(native_ids, ADA))
    try:
        outcome: object = reader.read(cl100k_ids, MINILM)
    except ApiError as refused:
        outcome = refused.code
    assert outcome in (decoded, "ambiguous_token_ids")


def test_requests_download_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """If cl100k is not on this machine, its ids are refused, and no file is created."""
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))

    with pytest.raises(ApiError) as refused:
        TokenIdReader("auto", MODEL_IDS).read([CL100K_IDS], ADA)

    assert ("cl100k_unavailable", tmp_path) == (refused.value.code, ranks_path().parent)
    assert [] == list(tmp_path.iterdir())

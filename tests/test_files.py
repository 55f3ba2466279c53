"""Files: every text and every bit comes back, and a file is there whole or not at all."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ov_minilm.files import read, write_jsonl, write_npy
from ov_minilm.spec import FloatArray

TEXTS = ["", "naïve café 😉", 'a "quoted"\ttext\\', "line\nbreak\r\u2028end"]
TINY, HUGE = float(np.finfo(np.float32).smallest_subnormal), float(np.finfo(np.float32).max)
# The second number of the third vector needs all nine digits.
VECTORS = np.array([[0.1, -1 / 3], [TINY, -TINY], [HUGE, 0.0107473135], [0.0, 1.0]], np.float32)

numbers = st.floats(width=32, allow_nan=False, allow_infinity=False).map(lambda x: x or 0.0)  # no -0.0


def parse(lines: str) -> tuple[list[str], FloatArray]:
    """Read JSON lines with Python's own parser."""
    records = [json.loads(line) for line in lines.removesuffix("\n").split("\n")]
    assert all(list(record) == ["text", "embedding"] for record in records)
    return [record["text"] for record in records], np.array(
        [record["embedding"] for record in records], np.float32
    )


def bits(vectors: FloatArray) -> list[list[int]]:
    """Return the bit patterns: equal numbers may differ in them, as 0.0 and -0.0 do."""
    patterns: list[list[int]] = vectors.view(np.uint32).tolist()
    return patterns


def test_npy_holds_the_same_bits(tmp_path: Path) -> None:
    """What numpy loads is what was written, as float32."""
    vectors = np.vstack([VECTORS, np.array([[-0.0, np.nan]], np.float32)])

    write_npy(tmp_path / "v.npy", [], vectors)

    loaded = np.load(tmp_path / "v.npy", allow_pickle=False)
    assert np.float32 == loaded.dtype
    assert bits(vectors) == bits(loaded)


def test_jsonl_holds_the_same_texts_and_bits(tmp_path: Path) -> None:
    """One UTF-8 line a text, letters as they are, line breaks escaped."""
    write_jsonl(tmp_path / "v.jsonl", TEXTS, VECTORS)

    written = (tmp_path / "v.jsonl").read_bytes().decode("utf-8")
    texts, vectors = parse(written)
    assert texts == TEXTS
    assert bits(VECTORS) == bits(vectors)
    assert '"naïve café 😉"' in written


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.text(), numbers), min_size=1, max_size=8))
def test_every_float32_survives_jsonl(rows: list[tuple[str, float]]) -> None:
    """Nine digits are enough for any float32, and any text can stand beside it."""
    texts, vectors = [text for text, _ in rows], np.array([[number] for _, number in rows], np.float32)
    stream = io.BytesIO()

    write_jsonl(stream, texts, vectors)

    found_texts, found = parse(stream.getvalue().decode())
    assert texts == found_texts
    assert bits(vectors) == bits(found)


def test_negative_zero_survives_jsonl() -> None:
    """Its sign is one of the bits."""
    stream = io.BytesIO()
    vectors = np.array([[-0.0]], np.float32)

    write_jsonl(stream, ["x"], vectors)

    assert bits(vectors) == bits(parse(stream.getvalue().decode())[1])


def test_a_lone_surrogate_can_be_written(tmp_path: Path) -> None:
    r"""JSON has \ud800 for what UTF-8 cannot hold, so a text that was encoded can be written."""
    write_jsonl(tmp_path / "v.jsonl", ["\ud800"], VECTORS[:1])

    assert parse((tmp_path / "v.jsonl").read_text(encoding="utf-8"))[0] == ["\ud800"]


class Unwritable:
    """What numpy finds that it cannot write only after the header is written."""

    def __reduce__(self) -> str:
        """Fail as a full disk does."""
        raise OSError


@pytest.mark.parametrize("before", [{"v": b"old"}, {}], ids=["over a file", "new"])
@pytest.mark.parametrize(
    ("write", "vectors", "error"),
    [(write_jsonl, VECTORS, ValueError), (write_npy, np.array([Unwritable()]), OSError)],
    ids=["jsonl", "npy"],
)
def test_a_failed_write_leaves_nothing(
    tmp_path: Path,
    before: dict[str, bytes],
    write: Callable[[Path, list[str], FloatArray], None],
    vectors: FloatArray,
    error: type[Exception],
) -> None:
    """Half way through (two texts, four vectors), the old file is untouched and no temporary file stays."""
    for name, content in before.items():
        (tmp_path / name).write_bytes(content)

    with pytest.raises(error):
        write(tmp_path / "v", TEXTS[:2], vectors)

    assert before == {file.name: file.read_bytes() for file in tmp_path.iterdir()}


def test_a_new_file_replaces_the_old(tmp_path: Path) -> None:
    """Nothing of a longer file before is left, and nothing beside it."""
    path = tmp_path / "v.jsonl"
    write_jsonl(path, TEXTS, VECTORS)

    write_jsonl(path, ["a"], VECTORS[:1])

    assert parse(path.read_text(encoding="utf-8"))[0] == ["a"]
    assert [path] == list(tmp_path.iterdir())


def test_a_file_has_the_usual_permissions(tmp_path: Path) -> None:
    """Others may read it as far as the umask allows: it is no private temporary file."""
    (tmp_path / "plain").write_bytes(b"")

    write_npy(tmp_path / "v.npy", [], VECTORS)

    assert (tmp_path / "plain").stat().st_mode == (tmp_path / "v.npy").stat().st_mode


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        (b"a\nb\n", ["a", "b"]),
        (b"a\nb", ["a", "b"]),
        (b"a\r\nb\r\n", ["a", "b"]),
        (b"a\n\n \n", ["a", "", " "]),
        (b"", []),
        (b'{"text": "a"}\n', ['{"text": "a"}']),
        ("a\u2028b\x85c\rd\n".encode(), ["a\u2028b\x85c\rd"]),
    ],
)
def test_text_is_read_by_lines(tmp_path: Path, content: bytes, texts: list[str]) -> None:
    """Only newlines end a line, and an empty line is an empty text: line n is row n."""
    (tmp_path / "in.txt").write_bytes(content)

    assert texts == list(read(str(tmp_path / "in.txt"), None, "text"))


def test_jsonl_is_read_by_field(tmp_path: Path) -> None:
    """The field named is the text, whatever else the line holds."""
    path = tmp_path / "in.jsonl"
    path.write_bytes('{"id": 1, "body": "naïve\\nb"}\r\n{"body": "", "text": 3}\n'.encode())

    assert list(read(str(path), None, "body")) == ["naïve\nb", ""]


def test_the_kind_given_wins_over_the_name(tmp_path: Path) -> None:
    """JSON lines under any name, and plain lines in a file called .jsonl."""
    named, other = tmp_path / "in.jsonl", tmp_path / "in.log"
    for path in (named, other):
        path.write_bytes(b'{"text": "a"}\n')

    assert list(read(str(named), "text", "text")) == ['{"text": "a"}']
    assert list(read(str(other), "jsonl", "text")) == ["a"]


@pytest.mark.parametrize("kind", [None, "jsonl"])
def test_a_dash_is_stdin(kind: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stdin is text unless said otherwise, and UTF-8 whatever the locale."""
    content = '{"text": "naïve"}\n' if kind else "naïve\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode()), encoding="ascii"))

    assert list(read("-", kind, "text")) == ["naïve"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "no JSON object with a field 'text'"),
        (b"", "no JSON object with a field 'text'"),
        (b'{"body": "a"}', "no JSON object with a field 'text'"),
        (b'["a"]', "no JSON object with a field 'text'"),
        (b'"text"', "no JSON object with a field 'text'"),
        (b"null", "no JSON object with a field 'text'"),
        (b'{"text": null}', "'text' is NoneType, expected a string"),
        (b'{"text": 3}', "'text' is int, expected a string"),
        (b'{"text": "caf\xe9"}', "not UTF-8 (invalid continuation byte)"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: bytes, message: str) -> None:
    """The lines before it are read; the error says file, line and reason."""
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"text": "good"}\n' + line + b"\n")
    texts = read(str(path), None, "text")

    assert next(texts) == "good"
    with pytest.raises(ValueError, match=f"^{re.escape(f'{path}, line 2: {message}')}$"):
        next(texts)


def test_a_bad_line_of_stdin_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stdin has a name in errors too."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\n\xff\n")))

    with pytest.raises(ValueError, match=r"^stdin, line 2: not UTF-8 \(invalid start byte\)$"):
        list(read("-", "text", "text"))

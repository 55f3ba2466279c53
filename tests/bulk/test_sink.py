"""What is written: every text and every bit comes back, and the same rows make the same bytes."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ov_minilm.bulk.rows import Block
from ov_minilm.bulk.sink import FORMS, Form, Sink, json_lines
from ov_minilm.spec import FloatArray

TEXTS = ["", "naïve café 😉", 'a "quoted"\ttext\\', "line\nbreak\r\u2028end"]
TINY, HUGE = float(np.finfo(np.float32).smallest_subnormal), float(np.finfo(np.float32).max)
# The second number of the third vector needs all nine digits.
VECTORS = np.array([[0.1, -1 / 3], [TINY, -TINY], [HUGE, 0.0107473135], [-0.0, 1.0]], np.float32)

numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)


def parse(lines: Iterable[str]) -> tuple[list[str], FloatArray]:
    """Read JSON lines with Python's own parser."""
    records = [json.loads(line) for line in lines]
    assert all(list(record) == ["text", "embedding"] for record in records)
    return [record["text"] for record in records], np.array(
        [record["embedding"] for record in records], np.float32
    )


def bits(vectors: FloatArray) -> list[list[int]]:
    """Return the bit patterns: equal numbers may differ in them, as 0.0 and -0.0 do."""
    patterns: list[list[int]] = vectors.view(np.uint32).tolist()
    return patterns


def sink(form: Form, schema: pa.Schema | None = None) -> Sink:
    """Write vectors of two components."""
    return Sink(form, VECTORS[:0], schema, {"model": "m"})


def written(form: Form, blocks: list[Block]) -> bytes:
    """Return the bytes of one file."""
    file = io.BytesIO()
    columns = blocks[0].columns
    sink(form, columns.schema if isinstance(columns, pa.RecordBatch) else None).write(file, blocks)
    return file.getvalue()


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.text(), numbers), min_size=1, max_size=8))
def test_every_float32_survives_jsonl(rows: list[tuple[str, float]]) -> None:
    """Nine digits are enough for any float32, and any text can stand beside it."""
    texts, vectors = [text for text, _ in rows], np.array([[number] for _, number in rows], np.float32)

    found_texts, found = parse(json_lines(Block(texts, None, vectors)))

    assert texts == found_texts
    assert bits(vectors) == bits(found)


def test_jsonl_is_utf8_a_line_a_row() -> None:
    r"""Letters stay as they are; line breaks and unpaired surrogates (\ud800) are escaped."""
    texts = [*TEXTS[:3], "\ud800\n"]

    content = written("jsonl", [Block(texts, None, VECTORS)]).decode("utf-8")

    found_texts, found = parse(content.removesuffix("\n").split("\n"))
    assert (texts, bits(VECTORS)) == (found_texts, bits(found))
    assert '"naïve café 😉"' in content


def test_npy_holds_the_same_bits() -> None:
    """What numpy loads is what was written, and numpy would have written the same bytes."""
    expected = io.BytesIO()
    np.save(expected, VECTORS)

    content = written("npy", [Block(TEXTS[:1], None, VECTORS[:1]), Block(TEXTS[1:], None, VECTORS[1:])])

    assert expected.getvalue() == content


def test_parquet_holds_texts_bits_and_what_made_them() -> None:
    """A list of fixed size, of floats; who reads the schema finds the model."""
    found = pq.read_table(io.BytesIO(written("parquet", [Block(TEXTS, None, VECTORS)])))

    vectors = found["embedding"].combine_chunks()
    assert pa.list_(pa.field("element", pa.float32()), 2) == found.schema.field("embedding").type
    assert bits(VECTORS) == bits(vectors.flatten().to_numpy().reshape(-1, 2))
    assert TEXTS == found["text"].to_pylist()
    assert b"m" == found.schema.metadata[b"ov_minilm.model"]


@pytest.mark.parametrize("form", FORMS)
def test_portions_do_not_show(form: Form) -> None:
    """The bytes are the same however many rows come at a time."""
    texts = [f"text {number}" for number in range(20_000)]
    vectors = np.random.default_rng(0).normal(size=(20_000, 2)).astype(np.float32)

    def portions(size: int) -> list[Block]:
        return [
            Block(texts[start : start + size], None, vectors[start : start + size])
            for start in range(0, 20_000, size)
        ]

    assert written(form, portions(777)) == written(form, portions(20_000)) == written(form, portions(4096))


def test_parquet_keeps_every_type() -> None:
    """Columns come out as Arrow had them: nested, dates to the nanosecond, nulls."""
    columns = pa.RecordBatch.from_pydict(
        {
            "id": pa.array([1, None, 3, 4], pa.int32()),
            "when": pa.array([1, 2, 3, None], pa.timestamp("ns", "UTC")),
            "tags": pa.array([["a"], [], None, ["b", "c"]]),
        }
    )

    found = pq.read_table(io.BytesIO(written("parquet", [Block(TEXTS, columns, VECTORS)])))

    assert pa.Table.from_batches([columns]).equals(found.drop_columns("embedding"))


def test_jsonl_keeps_columns_in_their_order() -> None:
    """Kept columns, which are JSON already, stand before the vector, and the text only if it is kept."""
    columns = ['"z": 1, "a": ["x"]', '"z": 2, "a": null', '"z": 3, "a": 1e400', '"z": 4, "a": {}']

    lines = written("jsonl", [Block(TEXTS, columns, VECTORS)]).decode().splitlines()

    assert '{"z": 1, "a": ["x"], "embedding": [0.1, -0.33333334]}' == lines[0]
    assert [f"{{{column}, " for column in columns] == [line.split('"embedding"')[0] for line in lines]


def test_a_row_without_text_has_no_vector() -> None:
    """Null in Parquet and JSON, not a number in .npy; the rows around it are whole."""
    blocks = [Block(["a", None], None, VECTORS[:2])]

    table = pq.read_table(io.BytesIO(written("parquet", blocks)))
    loaded = np.load(io.BytesIO(written("npy", blocks)))
    lines = written("jsonl", blocks).decode().splitlines()

    assert [False, True] == table["embedding"].is_null().to_pylist()
    assert np.array_equal(VECTORS[0], loaded[0])
    assert np.isnan(loaded[1]).all()
    assert '{"text": null, "embedding": null}' == lines[1]


@pytest.mark.parametrize("form", FORMS)
def test_joined_files_hold_all_rows(form: Form, tmp_path: Path) -> None:
    """One file of several is what one writer would have made, but for the borders of row groups."""
    blocks = [Block(TEXTS[:1], None, VECTORS[:1]), Block(TEXTS[1:], None, VECTORS[1:])]
    parts = []
    for number, block in enumerate(blocks):
        parts.append(tmp_path / f"{number}")
        parts[-1].write_bytes(written(form, [block]))
    file = io.BytesIO()

    sink(form).join(file, parts)

    if form == "parquet":
        assert pq.read_table(io.BytesIO(written(form, blocks))).equals(pq.read_table(file))
        assert 2 == pq.ParquetFile(file).num_row_groups
    else:
        assert written(form, blocks) == file.getvalue()

"""What is written: every text and every bit comes back, and the same rows make the same bytes."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ov_minilm.bulk import parquet
from ov_minilm.bulk.rows import Block, Kept
from ov_minilm.bulk.sink import FORMS, Form, Sink, json_lines
from ov_minilm.spec import FloatArray

TEXTS = ["", "naïve café 😉", 'a "quoted"\ttext\\', "line\nbreak\r\u2028end"]
TINY, HUGE = float(np.finfo(np.float32).smallest_subnormal), float(np.finfo(np.float32).max)
# The second number of the third vector needs all nine digits.
VECTORS = np.array([[0.1, -1 / 3], [TINY, -TINY], [HUGE, 0.0107473135], [-0.0, 1.0]], np.float32)

numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)


def bits(vectors: FloatArray) -> list[list[int]]:
    """Return the bit patterns: equal numbers may differ in them, as 0.0 and -0.0 do."""
    return [list(map(int, row)) for row in vectors.view(np.uint32)]


def written(form: Form, *blocks: Block) -> bytes:
    """Return the bytes of one file."""
    file, columns = io.BytesIO(), blocks[0].columns
    schema = columns.schema if isinstance(columns, pa.RecordBatch) else None
    rows = Sink(form, VECTORS[:0], schema, {"model": "m"}).write(file, blocks)
    assert sum(len(block.texts) for block in blocks) == rows
    return file.getvalue()


def block(rows: slice = slice(None), columns: Kept = None) -> Block:
    """Return some of the rows."""
    return Block(TEXTS[rows], columns, VECTORS[rows])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.text(), numbers), min_size=1, max_size=8))
def test_every_float32_survives_jsonl(rows: list[tuple[str, float]]) -> None:
    """Nine digits are enough for any float32, and any text can stand beside it, on one line of UTF-8."""
    texts, vectors = [text for text, _ in rows], np.array([[number] for _, number in rows], np.float32)

    content = "".join(json_lines(Block(texts, None, vectors))).encode().decode()
    found = [json.loads(line) for line in content.removesuffix("\n").split("\n")]

    assert texts == [record["text"] for record in found]
    assert all(list(record) == ["text", "embedding"] for record in found)
    assert bits(vectors) == bits(np.array([record["embedding"] for record in found], np.float32))


def test_jsonl_escapes_only_what_it_must() -> None:
    r"""Letters stay as they are, half a pair (\ud800) is escaped; kept columns stay in order."""
    lines = written("jsonl", Block([TEXTS[1], "\ud800"], None, VECTORS[:2])).decode().splitlines()
    kept = written("jsonl", block(slice(1), ['"z": 1e400, "a": ["x"]'])).decode()

    assert ['{"text": "naïve café 😉"', '{"text": "\\ud800"'] == [
        line.split(', "embedding')[0] for line in lines
    ]
    assert '{"z": 1e400, "a": ["x"], "embedding": [0.1, -0.33333334]}\n' == kept


def test_parquet_holds_columns_bits_and_what_made_them() -> None:
    """Columns as Arrow had them, else texts; lists of floats of fixed size; the model in the schema."""
    columns = pa.RecordBatch.from_pydict(
        {
            "when": pa.array([1, 2, 3, None], pa.timestamp("ns", "UTC")),
            "tags": pa.array([["a"], [], None, ["b", "c"]]),
        }
    )
    found = pq.read_table(io.BytesIO(written("parquet", block())))
    kept = pq.read_table(io.BytesIO(written("parquet", block(columns=columns))))

    assert pa.list_(pa.field("element", pa.float32()), 2) == found.schema.field("embedding").type
    assert bits(VECTORS) == bits(found["embedding"].combine_chunks().flatten().to_numpy().reshape(-1, 2))
    assert TEXTS == found["text"].to_pylist()
    assert b"m" == found.schema.metadata[b"ov_minilm.model"]
    assert pa.Table.from_batches([columns]).equals(kept.drop_columns("embedding"))


@pytest.mark.parametrize(
    ("form", "size", "groups"), [*((form, 10, 3) for form in FORMS), ("parquet", 1 << 14, 6)]
)
def test_portions_do_not_show(form: Form, size: int, groups: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many rows come at a time; a row group ends at 8192 rows, or by its bytes; .npy is numpy's."""
    monkeypatch.setattr(parquet, "GROUP_BYTES", 1 << 26 if size == 10 else 10 * size)
    count = 20_000 if size == 10 else 55
    texts = [f"{number}".rjust(size) for number in range(count)]
    vectors = np.random.default_rng(0).normal(size=(count, 2)).astype(np.float32)

    def portions(rows: int) -> list[Block]:
        return [Block(texts[at : at + rows], None, vectors[at : at + rows]) for at in range(0, count, rows)]

    whole = written(form, *portions(count))

    assert whole == written(form, *portions(777)) == written(form, *portions(7 if count == 55 else 4096))
    if form == "npy":
        expected = io.BytesIO()
        np.save(expected, vectors)
        assert expected.getvalue() == whole
    assert form != "parquet" or groups == pq.ParquetFile(io.BytesIO(whole)).num_row_groups


def test_a_row_without_text_has_no_vector() -> None:
    """Null in Parquet and JSON, not a number in .npy; the rows around it are whole."""
    lost = Block(["a", None], None, VECTORS[:2])

    loaded = np.load(io.BytesIO(written("npy", lost)))

    table = pq.read_table(io.BytesIO(written("parquet", lost)))
    assert [False, True] == table["embedding"].is_null().to_pylist()
    assert np.array_equal(VECTORS[0], loaded[0])
    assert np.isnan(loaded[1]).all()
    assert '{"text": null, "embedding": null}' == written("jsonl", lost).decode().splitlines()[1]


@pytest.mark.parametrize("form", FORMS)
def test_joined_files_hold_all_rows(form: Form, tmp_path: Path) -> None:
    """One file of several is what one writer would have made, but for the borders of row groups."""
    blocks, file = [block(slice(1)), block(slice(1, None))], io.BytesIO()
    parts = [tmp_path / f"{number}" for number in range(2)]
    for part, one in zip(parts, blocks, strict=True):
        part.write_bytes(written(form, one))

    Sink(form, VECTORS[:0], None, {"model": "m"}).join(file, parts)

    if form == "parquet":
        assert pq.read_table(io.BytesIO(written(form, *blocks))).equals(pq.read_table(file))
        assert 2 == pq.ParquetFile(file).num_row_groups
    else:
        assert written(form, *blocks) == file.getvalue()

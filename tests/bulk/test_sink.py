"""Output files: every text and every bit can be read back, and equal rows give equal bytes."""

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
    """Return the bit patterns, in which 0.0 and -0.0 differ."""
    return [list(map(int, row)) for row in vectors.view(np.uint32)]


def to_file(form: Form, *blocks: Block) -> io.BytesIO:
    """Return a file to which these blocks were written."""
    file, columns = io.BytesIO(), blocks[0].columns
    schema = columns.schema if isinstance(columns, pa.RecordBatch) else None
    rows = Sink(form, VECTORS[:0], schema, {"model": "m"}).write(file, blocks)
    assert sum(len(block.texts) for block in blocks) == rows
    return io.BytesIO(file.getvalue())


def block(rows: slice = slice(None), columns: Kept = None) -> Block:
    """Return some of the rows of TEXTS and VECTORS."""
    return Block(TEXTS[rows], columns, VECTORS[rows])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.text(), numbers), min_size=1, max_size=8))
def test_json_lines_keep_every_bit_and_every_text(rows: list[tuple[str, float]]) -> None:
    """Any float32 and any text can be read back from one line of UTF-8."""
    texts, vectors = [text for text, _ in rows], np.array([[number] for _, number in rows], np.float32)

    lines = "".join(json_lines(Block(texts, None, vectors))).encode().decode()
    records = [json.loads(line) for line in lines.removesuffix("\n").split("\n")]

    assert texts == [record["text"] for record in records]
    assert all(list(record) == ["text", "embedding"] for record in records)
    assert bits(vectors) == bits(np.array([record["embedding"] for record in records], np.float32))


def test_json_lines_escape_only_what_they_must() -> None:
    r"""Letters are not escaped, half of a surrogate pair (\ud800) is; kept columns keep their order."""
    lines = to_file("jsonl", Block([TEXTS[1], "\ud800"], None, VECTORS[:2])).read().decode().splitlines()
    kept = to_file("jsonl", block(slice(1), ['"z": 1e400, "a": ["x"]'])).read()

    starts = [line.split(', "embedding')[0] for line in lines]
    assert ['{"text": "naïve café 😉"', '{"text": "\\ud800"'] == starts
    assert b'{"z": 1e400, "a": ["x"], "embedding": [0.1, -0.33333334]}\n' == kept


def test_parquet_keeps_columns_bits_and_the_model() -> None:
    """Kept columns have their Arrow types; vectors are lists of fixed size; the schema names the model."""
    when = pa.array([1, 2, 3, None], pa.timestamp("ns", "UTC"))
    columns = pa.RecordBatch.from_pydict({"when": when, "tags": pa.array([["a"], [], None, ["b", "c"]])})

    table = pq.read_table(to_file("parquet", block()))
    table_with_columns = pq.read_table(to_file("parquet", block(columns=columns)))

    assert pa.list_(pa.field("element", pa.float32()), 2) == table.schema.field("embedding").type
    assert bits(VECTORS) == bits(table["embedding"].combine_chunks().flatten().to_numpy().reshape(-1, 2))
    assert TEXTS == table["text"].to_pylist()
    assert b"m" == table.schema.metadata[b"ov_minilm.model"]
    assert pa.Table.from_batches([columns]).equals(table_with_columns.drop_columns("embedding"))


@pytest.mark.parametrize(
    ("form", "count", "text_bytes", "groups"),
    [*((form, 20_000, 10, 3) for form in FORMS), ("parquet", 55, 1 << 14, 6)],
)
def test_the_size_of_blocks_does_not_change_the_bytes(
    form: Form, count: int, text_bytes: int, groups: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row group of Parquet ends at 8192 rows or a number of bytes; .npy has the bytes of numpy.save."""
    monkeypatch.setattr(parquet, "GROUP_BYTES", parquet.GROUP_BYTES if count > 55 else 10 * text_bytes)
    texts = [f"{number}".rjust(text_bytes) for number in range(count)]
    vectors = np.random.default_rng(0).normal(size=(count, 2)).astype(np.float32)

    def in_blocks(rows: int) -> io.BytesIO:
        starts = range(0, count, rows)
        return to_file(form, *(Block(texts[at : at + rows], None, vectors[at : at + rows]) for at in starts))

    whole = in_blocks(count)

    assert whole.getvalue() == in_blocks(777).getvalue() == in_blocks(count // 5 + 1).getvalue()
    if form == "npy":
        np.save(expected := io.BytesIO(), vectors)
        assert expected.getvalue() == whole.getvalue()
    assert form != "parquet" or groups == pq.ParquetFile(whole).num_row_groups


@pytest.mark.parametrize("form", FORMS)
def test_joined_files_have_all_rows(form: Form, tmp_path: Path) -> None:
    """A joined file equals the file of a single writer, except for the borders of row groups."""
    blocks, joined = [block(slice(1)), block(slice(1, None))], io.BytesIO()
    parts = [tmp_path / "0", tmp_path / "1"]
    for part, of_part in zip(parts, blocks, strict=True):
        part.write_bytes(to_file(form, of_part).read())

    Sink(form, VECTORS[:0], None, {"model": "m"}).join(joined, parts)

    if form == "parquet":
        assert pq.read_table(to_file(form, *blocks)).equals(pq.read_table(joined))
        assert 2 == pq.ParquetFile(joined).num_row_groups
    else:
        assert to_file(form, *blocks).read() == joined.getvalue()

"""The recipe for Spark in docs/scaling.md, run as it stands there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.corpora import sentences
from support.recipes import recipe

from ov_minilm import Embedder


@pytest.mark.slow
def test_the_pandas_udf_gives_our_bits(tmp_path: Path, shipped: Embedder) -> None:
    """Vectors that Spark's workers wrote are those of Embedder.encode."""
    pytest.importorskip("pyspark", reason="needs pyspark: pip install pyspark pandas")
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java")
    texts = sentences(300)
    pq.write_table(pa.table({"number": range(300), "text": texts}), tmp_path / "texts.parquet")
    (tmp_path / "job.py").write_text(recipe("test_spark"))
    environment = {**os.environ, "PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}

    done = subprocess.run(
        [sys.executable, "job.py"], cwd=tmp_path, env=environment, capture_output=True, check=False
    )

    assert 0 == done.returncode, done.stderr.decode()[-3000:]
    table = pq.read_table(tmp_path / "vectors.parquet").sort_by("number")
    found = np.array(table["embedding"].to_pylist(), np.float32)
    assert np.array_equal(shipped.encode(texts), found)

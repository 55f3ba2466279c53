"""The programs for Spark and Ray Serve in docs/scaling.md run as they are printed there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.corpora import sentences

from ov_minilm import Embedder

PAGE = Path(__file__).parents[2] / "docs/scaling.md"
ENVIRONMENT = {
    "PYSPARK_PYTHON": sys.executable,
    "SPARK_LOCAL_IP": "127.0.0.1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
SERVE = """
import json, urllib.request
from ray import serve
import job
serve.start(http_options={"port": 18000})
serve.run(job.app)
texts = ["one", "two"]
request = urllib.request.Request("http://127.0.0.1:18000/", json.dumps(texts).encode())
found = json.load(urllib.request.urlopen(request))
serve.shutdown()
from ov_minilm import encode
assert encode(texts).tolist() == found
"""


def run_recipe(folder: Path, library: str, *arguments: str) -> None:
    """Write the page's code block that imports a library to job.py; run Python with these arguments."""
    start = r"<!-- tests/bulk/test_recipes\.py runs this -->\n```python\n"
    blocks = re.findall(f"{start}(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (block,) = (block for block in blocks if f"from {library}" in block)
    (folder / "job.py").write_text(block)
    paths = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": paths}
    command = [sys.executable, *arguments]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)
    assert 0 == result.returncode, result.stderr.decode()[-3000:]


@pytest.mark.slow
def test_ray_serve_answers_with_the_vectors_of_encode(tmp_path: Path) -> None:
    """The deployment receives a JSON list of texts and returns a list of vectors."""
    pytest.importorskip("ray.serve", reason='needs pip install "ray[serve]"')

    run_recipe(tmp_path, "ray", "-c", SERVE)


@pytest.mark.slow
def test_the_pandas_udf_of_spark_has_the_vectors_of_encode(tmp_path: Path, shipped: Embedder) -> None:
    """Workers of Spark write a Parquet file with the vectors of its column."""
    pytest.importorskip("pyspark", reason="needs pyspark: pip install pyspark pandas")
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java")
    texts = sentences(300)
    pq.write_table(pa.table({"number": range(300), "text": texts}), tmp_path / "texts.parquet")

    run_recipe(tmp_path, "pyspark", "job.py")

    table = pq.read_table(tmp_path / "vectors.parquet").sort_by("number")
    assert np.array_equal(shipped.encode(texts), np.array(table["embedding"].to_pylist(), np.float32))

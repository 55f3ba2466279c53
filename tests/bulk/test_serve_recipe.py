"""The recipe for Ray Serve in docs/scaling.md, run as it stands there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.recipes import recipe

CALLER = """
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


@pytest.mark.slow
def test_the_deployment_answers_with_our_bits(tmp_path: Path) -> None:
    """A list of texts in, a list of vectors out, as Embedder.encode gives them."""
    pytest.importorskip("ray.serve", reason='needs pip install "ray[serve]"')
    (tmp_path / "job.py").write_text(recipe("test_serve_recipe"))
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(tmp_path)}

    done = subprocess.run(
        [sys.executable, "-c", CALLER], cwd=tmp_path, env=environment, capture_output=True, check=False
    )

    assert 0 == done.returncode, done.stderr.decode()[-3000:]

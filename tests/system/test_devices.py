"""Devices other than the CPU give nearly the same vectors. See docs/devices.md."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ov_minilm import Embedder
from ov_minilm.runtime.cache import SUFFIX
from ov_minilm.runtime.engine import survey

TEXTS = ["", "a", "A man is slicing an onion.", "stone " * 50, "light " * 100, "bread " * 250]
DEVICES = [
    "HETERO:CPU",
    pytest.param("AUTO:CPU", marks=pytest.mark.slow),  # the CPU plugin by other names
    *(pytest.param(name, marks=getattr(pytest.mark, name.lower())) for name in ("GPU", "NPU")),
]


@pytest.fixture(scope="module", params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    """A device of this machine; each test runs once per device."""
    name: str = request.param
    if name.rpartition(":")[2] not in {found.partition(".")[0] for found in survey()[1]}:
        pytest.skip(f"this machine has no {name}")
    return name


@pytest.mark.slow  # because it compiles a grid for each length
def test_vectors_are_near_those_of_the_cpu(device: str, shipped: Embedder) -> None:
    """The cosine is at least 0.99 for 2 to 252 tokens, alone, in a list and in eight threads."""
    expected = shipped.encode(TEXTS)
    with Embedder.open(device=device) as embedder:
        single = np.stack([embedder.encode(text) for text in TEXTS])
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(embedder.encode, [TEXTS] * 9))
        info, cosine = embedder.info, embedder.self_check()

    assert cosine > 0.99
    for vectors in (single, *together):
        assert (vectors * expected).sum(1).min() > 0.99
        np.testing.assert_allclose(single, vectors, atol=5e-3)  # rounding depends on the position
    precision = "f16" if device in ("GPU", "NPU") else "f32"  # f32, because the CPU may be used
    assert (device, precision, "native") == (info.device, info.precision, info.lowering)


@pytest.mark.slow  # because it compiles all grids
def test_every_grid_computes_the_golden_vector(device: str) -> None:
    """All grids of the device are compiled and give the golden vector."""
    with Embedder.open(device=device) as embedder:
        cosines, info = embedder.warm_up(), embedder.info

    assert set(info.grids) == cosines.keys()
    assert min(cosines.values()) > 0.99


def test_the_second_start_reads_compiled_models_from_the_cache(device: str, tmp_path: Path) -> None:
    """A second start compiles and writes nothing, if the device can export models."""
    if device.startswith("AUTO"):
        pytest.skip("AUTO exports no models; test_cache.py tests what happens then")
    vectors, files = [], []
    for _ in range(2):
        with Embedder.open(device=device, cache_dir=tmp_path) as embedder:
            vectors.append(embedder.encode("a"))
        files.append(sorted((path.name, path.stat().st_mtime_ns) for path in tmp_path.rglob(f"*{SUFFIX}")))

    assert np.array_equal(vectors[0], vectors[1])
    assert files[0] == files[1] != []

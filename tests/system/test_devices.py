"""Devices other than plain CPU: what runs there is near what the CPU gives. See docs/devices.md."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ov_minilm import DeviceUnavailable, Embedder
from ov_minilm.artefact.manifest import SHIPPED, Manifest
from ov_minilm.runtime.cache import SUFFIX
from ov_minilm.runtime.engine import survey
from ov_minilm.runtime.plan import Options, choose_grids

TEXTS = ["", "a", "A man is slicing an onion.", "stone " * 50, "light " * 100, "bread " * 250]
EACH = [
    "HETERO:CPU",
    pytest.param("AUTO:CPU", marks=pytest.mark.slow),  # the same plugin behind another name
    *(pytest.param(name, marks=getattr(pytest.mark, name.lower())) for name in ("GPU", "NPU")),
]


@pytest.fixture(scope="module", params=EACH)
def device(request: pytest.FixtureRequest) -> str:
    """Each device that this machine has."""
    name: str = request.param
    if name.rpartition(":")[2] not in {found.partition(".")[0] for found in survey()[1]}:
        pytest.skip(f"this machine has no {name}")
    return name


def test_vectors_are_near_those_of_the_cpu(device: str, shipped: Embedder) -> None:
    """A cosine of 0.99 or more for texts of 2 to 252 tokens, alone, together and from eight threads."""
    expected = shipped.encode(TEXTS)
    with Embedder.open(device=device) as elsewhere:
        alone = np.stack([elsewhere.encode(text) for text in TEXTS])
        with ThreadPoolExecutor(8) as pool:
            every = list(pool.map(elsewhere.encode, [TEXTS] * 9))
        info, cosine = elsewhere.info, elsewhere.self_check()

    assert cosine > 0.99
    for together in (alone, *every):
        assert (together * expected).sum(1).min() > 0.99
        np.testing.assert_allclose(alone, together, atol=5e-3)  # half precision rounds by position
    precision = "f16" if device in ("GPU", "NPU") else "f32"  # f32 where the CPU may be used
    assert (device, precision, "native") == (info.device, info.precision, info.lowering)


@pytest.mark.slow  # compiles every grid
def test_every_grid_proves_itself(device: str) -> None:
    """The golden vector comes out of every grid."""
    with Embedder.open(device=device) as elsewhere:
        cosines, info = elsewhere.warm_up(), elsewhere.info

    assert set(info.grids) == cosines.keys()
    assert min(cosines.values()) > 0.99


def test_the_second_start_takes_from_the_cache(device: str, tmp_path: Path) -> None:
    """What one process compiled the next one loads, unless the device exports nothing."""
    if device.startswith("AUTO"):
        pytest.skip("AUTO exports no models; test_cache.py has what happens then")
    vectors, made = [], []
    for _ in range(2):
        with Embedder.open(device=device, cache_dir=tmp_path) as embedder:
            vectors.append(embedder.encode("a"))
        made.append(sorted((path.name, path.stat().st_mtime_ns) for path in tmp_path.rglob(f"*{SUFFIX}")))

    assert np.array_equal(vectors[0], vectors[1])
    assert made[0] == made[1] != []


@pytest.mark.parametrize("device", ["NPU", "NPU.0", "AUTO:NPU,CPU", "HETERO:NPU,CPU"])
def test_an_npu_gets_grids_of_one_row(device: str) -> None:
    """It serves one request at a time, so no grid has more than one row, and any text still fits."""
    grids = choose_grids(Options(device, "auto", "auto", 2), Manifest.read(SHIPPED))

    assert {1} == {grid.rows for grid in grids}
    assert 256 == max(grid.width for grid in grids)


def test_what_is_not_there_is_listed() -> None:
    """The error has what was asked for and every device of this machine; OpenVINO is not asked to compile."""
    there = tuple(survey()[1])
    names = "GPU.99 cpu.0 CPU.1 CPU:0 AUTO:CPU.0 AUTO:CPU, HETERO MULTI MULTI: BATCH CUDA".split()
    for name in (*names, "AUTO:" + ",".join(f"-{one}" for one in there), "", " CPU "):
        with pytest.raises(DeviceUnavailable) as caught:
            Embedder.open(device=name)

        assert (name.upper(), there) == (caught.value.asked, caught.value.available)

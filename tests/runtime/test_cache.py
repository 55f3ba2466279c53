"""The cache of compiled models: damaged files and unusable folders cause a warning, never a wrong vector."""

import hashlib
import json
import os
import shutil
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ov_minilm import CacheWarning, Embedder, SelfCheckFailed
from ov_minilm.artefact.golden import Golden
from ov_minilm.artefact.manifest import SHIPPED, Manifest
from ov_minilm.files import atomic_write
from ov_minilm.runtime.backend import ops, ov
from ov_minilm.runtime.cache import STALE_S, SUFFIX, Cache
from ov_minilm.runtime.cpus import threads
from ov_minilm.runtime.engine import Engine
from ov_minilm.runtime.plan import Options
from ov_minilm.spec import Grid

FACTS = {"grid": "1x16"}
BLOB = bytes(range(256)) * 100


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """A cache with one model in it."""
    cache = Cache(tmp_path / "cache", {"machine": "this"})
    cache.store("1x16", FACTS, BLOB)
    return cache


def only_file(folder: Path) -> Path:
    """The only compiled model under a folder."""
    (path,) = folder.rglob(f"*{SUFFIX}")
    return path


def flip_bit(path: Path, offset: int) -> None:
    """Change one bit of a file."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def replace_by_folder(path: Path) -> None:
    """Replace a file by a folder with the same name."""
    path.unlink()
    path.mkdir()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "first byte": lambda path: flip_bit(path, 0),
    "middle byte": lambda path: flip_bit(path, path.stat().st_size // 2),
    "last byte": lambda path: flip_bit(path, -1),
    "another kind of file": lambda path: path.write_bytes(b"PK\x03\x04" * 1000),
    "a folder": replace_by_folder,
}


def test_a_stored_model_is_loaded_only_for_the_same_facts(cache: Cache) -> None:
    """Another process loads the model, unless its options or its machine are different."""
    this_machine, other_machine = (Cache(cache.folder, {"machine": machine}) for machine in ("this", "that"))

    assert BLOB == this_machine.load("1x16", FACTS)
    assert cache.load("1x16", {"grid": "1x16", "threads": 2}) is None
    assert other_machine.load("1x16", FACTS) is None
    only_file(cache.folder).rename(other_machine.path("1x16", FACTS))
    with pytest.warns(CacheWarning, match="belongs to another model or machine"):
        assert other_machine.load("1x16", FACTS) is None


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_not_loaded(cache: Cache, damage: str) -> None:
    """Damaged files count as missing and are removed, with a single warning."""
    DAMAGE[damage](only_file(cache.folder))
    cache.store("8x64", FACTS, BLOB)
    DAMAGE[damage](cache.path("8x64", FACTS))

    with pytest.warns(CacheWarning, match="1x16-") as warned:
        assert [None, None] == [cache.load(name, FACTS) for name in ("1x16", "8x64")]

    assert 1 == len(warned)
    assert [] == [path for path in cache.folder.iterdir() if path.is_file()]


def test_old_unfinished_files_are_removed(cache: Cache) -> None:
    """Unfinished files of killed processes are removed after an hour; no other file is removed."""
    with atomic_write(cache.path("8x64", FACTS)):
        (unfinished,) = cache.folder.glob(".*")
        abandoned = Path(f"{unfinished}2")
        other_file = cache.folder / ".keep"
        for path in (abandoned, other_file):
            path.touch()
            os.utime(path, (0, time.time() - STALE_S - 1))

        cache.store("1x32", FACTS, BLOB)

        assert [False, True, True] == [path.exists() for path in (abandoned, unfinished, other_file)]


def write_model(path: Path, blob: bytes) -> None:
    """Replace the model in a file of the cache, so that the hash in the file is correct."""
    rest = path.read_bytes().split(b"\n", 2)[1] + b"\n" + blob
    path.write_bytes(hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest)


def wrong_model(grid: Grid) -> bytes:
    """Compile a graph whose unit vectors have their components shifted by one index."""
    engine = Engine(SHIPPED, Manifest.read(SHIPPED), Options("CPU", "auto", "auto", threads(None)), None)
    graph = engine.graph(grid)
    result = graph.get_results()[0].input(0)
    moved = ops.gather(result.get_source_output(), np.roll(np.arange(384), 1), np.int32(2))
    result.replace_source_output(moved.output(0))
    exported: bytes = (
        ov.Core().compile_model(graph, "CPU", engine.plan.config(grid)).export_model().getvalue()
    )
    return exported


def test_a_damaged_cache_changes_no_vector(tmp_path: Path, shipped: Embedder) -> None:
    """`encode` warns once, gives the same bits, and repairs the cache if possible."""
    expected = shipped.encode("a").tobytes()
    with Embedder.open(cache_dir=tmp_path) as embedder:
        assert expected == embedder.encode("a").tobytes()
    damages: dict[str, Callable[[Path], object]] = {
        "its hash is wrong": DAMAGE["middle byte"],
        "is not used: ": lambda path: write_model(path, BLOB),
        "gives wrong vectors": lambda path: write_model(path, wrong_model(Grid(1, 8))),
    }
    for message, damage in damages.items():
        damage(only_file(tmp_path))
        with Embedder.open(cache_dir=tmp_path) as embedder, pytest.warns(CacheWarning, match=message) as w:
            assert expected == embedder.encode("a").tobytes()
        assert 1 == len([warning for warning in w if warning.category is CacheWarning])
        assert only_file(tmp_path).is_file()
    (tmp_path / "file").touch()
    with Embedder.open(cache_dir=tmp_path / "file") as embedder, pytest.warns(CacheWarning, match="file"):
        assert expected == embedder.encode("a").tobytes()


def test_a_newly_compiled_model_with_wrong_vectors_is_an_error(tmp_path: Path) -> None:
    """If the golden vector does not match, SelfCheckFailed has the grid and the cosine."""
    folder = tmp_path / "model"
    shutil.copytree(SHIPPED, folder)
    golden = Manifest.read(SHIPPED).golden
    raw = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    raw["golden"]["vector"] = Golden.of("", [], golden.array()[::-1]).vector
    (folder / "manifest.json").write_text(json.dumps(raw), encoding="utf-8")

    with Embedder.open(folder) as embedder:
        for use in (embedder.self_check, lambda: embedder.encode("a"), embedder.warm_up):
            with pytest.raises(SelfCheckFailed, match=r"1x\d+ on CPU gives wrong vectors: cosine") as caught:
                use()
            assert abs(caught.value.cosine) < 0.5


@pytest.mark.skipif(sys.platform != "linux", reason="needs a folder that not even root can write")
@pytest.mark.parametrize("where", ["file", "/proc/ov_minilm", "full"])
def test_an_unusable_folder_is_one_warning(tmp_path: Path, where: str) -> None:
    """If a model cannot be stored, nothing is changed and no unfinished file stays."""
    import resource  # Windows has no such module

    (tmp_path / "file").write_text("mine")
    cache = Cache(tmp_path / where, {})
    soft_limit, hard_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(BLOB) if where == "full" else soft_limit, hard_limit))
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            for name in ("1x16", "8x64"):
                cache.store(name, FACTS, BLOB * 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft_limit, hard_limit))

    assert ([CacheWarning], "mine") == (
        [warning.category for warning in warned],
        (tmp_path / "file").read_text(),
    )
    assert f"{Path(where).name} " in str(warned[0].message)
    assert [tmp_path / "file"] == [path for path in tmp_path.rglob("*") if path.is_file()]
    assert cache.load("1x16", FACTS) is None


def test_each_set_of_options_has_its_own_file(tmp_path: Path, shipped: Embedder) -> None:
    """The next Embedder loads the models; other lowerings or threads have other files."""
    folder = tmp_path / "new/Bücher 缓存 📦 with 'quotes' and $"
    created = set()
    for options in ({}, {}, {"lowering": "native"}, {"lowering": "conv"}, {"threads": 1}):
        with Embedder.open(precision="f32", cache_dir=folder, **options) as embedder:
            assert 0.99 < float(shipped.encode("a") @ embedder.encode("a"))
        created |= {path.stat().st_mtime_ns for path in folder.rglob(f"*{SUFFIX}")}

    assert 3 == len(created) == len(list(folder.rglob(f"*{SUFFIX}")))  # "auto" is native or conv


def test_a_device_without_export_is_one_warning(tmp_path: Path, shipped: Embedder) -> None:
    """AUTO cannot export models: no file is written, and vectors are near those of the CPU."""
    with pytest.warns(CacheWarning, match="AUTO:CPU cannot export"):
        embedder = Embedder.open(device="AUTO:CPU", cache_dir=tmp_path)
    with embedder, warnings.catch_warnings():
        warnings.simplefilter("error")

        assert float(embedder.encode("a") @ shipped.encode("a")) > 0.995
        assert ("f32", []) == (embedder.info.precision, list(tmp_path.rglob("*")))

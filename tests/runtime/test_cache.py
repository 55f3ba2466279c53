"""The cache of compiled models: what is wrong with it is said once and worked around."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.processes import python

from ov_minilm import CacheWarning, Embedder, SelfCheckFailed
from ov_minilm.artefact.golden import Golden
from ov_minilm.artefact.manifest import SHIPPED, Manifest
from ov_minilm.runtime.backend import ops, ov
from ov_minilm.runtime.cache import STALE, SUFFIX, Cache
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


def entry(folder: Path) -> Path:
    """The only compiled model under a folder."""
    (path,) = folder.rglob(f"*{SUFFIX}")
    return path


def change(path: Path, at: int) -> None:
    """Flip one bit of a file."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def put_a_folder(path: Path) -> None:
    """Replace a file by a folder of its name."""
    path.unlink()
    path.mkdir()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "first byte": lambda path: change(path, 0),
    "in the middle": lambda path: change(path, path.stat().st_size // 2),
    "last byte": lambda path: change(path, -1),
    "another kind of file": lambda path: path.write_bytes(b"PK\x03\x04" * 1000),
    "a folder": put_a_folder,
}


def test_what_was_stored_is_loaded(cache: Cache) -> None:
    """The same facts give the same bytes, to another process too; other facts give nothing."""
    again = Cache(cache.folder, {"machine": "this"})

    assert BLOB == again.load("1x16", FACTS)
    assert cache.load("1x16", {"grid": "1x16", "threads": 2}) is None
    assert Cache(cache.folder, {"machine": "that"}).load("1x16", FACTS) is None


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_not_loaded(cache: Cache, damage: str) -> None:
    """Whatever happened to a file, it counts as absent, with one warning; a file is removed."""
    DAMAGE[damage](entry(cache.folder))

    with pytest.warns(CacheWarning, match="1x16-") as said:
        assert cache.load("1x16", FACTS) is None

    assert 1 == len(said)
    assert [] == [path for path in cache.folder.iterdir() if path.is_file()]


def test_a_file_of_other_facts_is_not_loaded(cache: Cache) -> None:
    """A whole file under a name that is not its own, as a careless copy leaves it, is foreign."""
    other = Cache(cache.folder, {"machine": "that"})
    entry(cache.folder).rename(other.path("1x16", FACTS))

    with pytest.warns(CacheWarning, match="belongs to another model or machine"):
        assert other.load("1x16", FACTS) is None


def test_the_rest_is_silent(cache: Cache) -> None:
    """A folder full of damage warns once, not for every file."""
    cache.store("8x64", FACTS, BLOB)
    for path in cache.folder.iterdir():
        path.write_bytes(b"")

    with pytest.warns(CacheWarning) as said:
        assert [None, None] == [cache.load(name, FACTS) for name in ("1x16", "8x64")]

    assert 1 == len(said)


def test_what_killed_processes_left_is_swept(cache: Cache) -> None:
    """Unfinished files go once they are old; fresh ones may be in work, and others are not ours."""
    old, fresh, foreign = (cache.folder / name for name in (f".a{SUFFIX}.x", f".b{SUFFIX}.y", ".keep"))
    for path in (old, fresh, foreign):
        path.touch()
    for path in (old, foreign):
        os.utime(path, (0, time.time() - STALE - 1))

    cache.store("8x64", FACTS, BLOB)

    assert [False, True, True] == [path.exists() for path in (old, fresh, foreign)]


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL on Windows")
def test_a_process_killed_while_it_writes_leaves_nothing_wrong(tmp_path: Path) -> None:
    """After kill -9 at any moment a model is there whole or not at all, and the cache goes on."""
    code = (
        "import sys; from pathlib import Path; from ov_minilm.runtime.cache import Cache\n"
        f"cache = Cache(Path({str(tmp_path)!r}), {{}})\n"
        "blob = bytes(30_000_000); print('ready', flush=True)\n"
        "while True: cache.store('1x16', {}, blob)"
    )
    cache = Cache(tmp_path, {})

    for wait in (0.0, 0.01, 0.03, 0.05, 0.08, 0.13):
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(wait)
            process.kill()
        assert cache.load("1x16", {}) in (None, bytes(30_000_000))  # a CacheWarning would be an error

    cache.store("1x16", {}, BLOB)
    assert BLOB == cache.load("1x16", {})


@pytest.mark.parametrize("damage", ["cut", "in the middle", "a folder"])
def test_the_model_is_compiled_without_what_is_damaged(
    tmp_path: Path, shipped: Embedder, damage: str
) -> None:
    """Encode warns once, gives the same bits, and the next process finds the cache mended."""
    expected = shipped.encode("a")
    with Embedder.open(cache_dir=tmp_path) as embedder:
        embedder.encode("a")
    DAMAGE[damage](entry(tmp_path))

    with Embedder.open(cache_dir=tmp_path) as embedder, pytest.warns(CacheWarning):
        found = embedder.encode("a")

    assert np.array_equal(expected, found)
    if damage != "a folder":
        with Embedder.open(cache_dir=tmp_path) as embedder:
            assert np.array_equal(expected, embedder.encode("a"))


@pytest.mark.parametrize("kind", ["garbage", "another graph"])
def test_a_whole_file_that_holds_a_wrong_model_is_found_out(
    tmp_path: Path, shipped: Embedder, kind: str
) -> None:
    """What OpenVINO cannot read, and what it reads but computes something else, is dropped and replaced."""
    expected = shipped.encode("a")
    with Embedder.open(cache_dir=tmp_path) as embedder:
        embedder.encode("a")
    engine = Engine(SHIPPED, Manifest.read(SHIPPED), Options("CPU", "auto", "auto", threads(None)), None)
    graph = engine.graph(Grid(1, 8))
    result = graph.get_results()[0].input(0)  # every component one place too far: unit vectors still
    order = np.roll(np.arange(384), 1)
    moved = ops.gather(result.get_source_output(), order, np.int32(2))
    result.replace_source_output(moved.output(0))
    wrong = ov.Core().compile_model(graph, "CPU", engine.plan.config(Grid(1, 8))).export_model().getvalue()
    path = entry(tmp_path)
    header = path.read_bytes().split(b"\n", 2)[1]
    rest = header + b"\n" + (BLOB if kind == "garbage" else wrong)
    path.write_bytes(hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest)

    with Embedder.open(cache_dir=tmp_path) as embedder, pytest.warns(CacheWarning, match="is not used"):
        assert np.array_equal(expected, embedder.encode("a"))
    with Embedder.open(cache_dir=tmp_path) as embedder:
        assert np.array_equal(expected, embedder.encode("a"))


def test_what_gives_wrong_vectors_when_just_compiled_is_an_error(tmp_path: Path) -> None:
    """Without a cache to blame, a wrong golden vector is SelfCheckFailed with the grid and the cosine."""
    folder = tmp_path / "model"
    shutil.copytree(SHIPPED, folder)
    golden = Manifest.read(SHIPPED).golden
    raw = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    raw["golden"]["vector"] = Golden.of("", [], golden.array()[::-1]).vector
    (folder / "manifest.json").write_text(json.dumps(raw), encoding="utf-8")

    with Embedder.open(folder) as embedder:
        for use in (embedder.self_check, lambda: embedder.encode("a")):
            with pytest.raises(
                SelfCheckFailed, match=r"1x(8|16) on CPU gives wrong vectors: cosine"
            ) as caught:
                use()

    assert abs(caught.value.cosine) < 0.5


def test_a_file_instead_of_a_folder(tmp_path: Path, shipped: Embedder) -> None:
    """cache_dir may be anything; what cannot be a folder is said, and left as it is."""
    path = tmp_path / "file"
    path.write_text("mine")

    with Embedder.open(cache_dir=path) as embedder, pytest.warns(CacheWarning, match=r"\bfile\b"):
        assert np.array_equal(shipped.encode("a"), embedder.encode("a"))

    assert "mine" == path.read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="needs a folder that not even root can write")
def test_a_folder_that_cannot_be_written(shipped: Embedder) -> None:
    """It is said once, not for each grid."""
    with (
        Embedder.open(cache_dir="/proc/ov_minilm") as embedder,
        pytest.warns(CacheWarning, match=r"cannot be kept in /proc/ov_minilm") as said,
    ):
        found = embedder.encode("a"), embedder.encode("stone " * 20)

    assert 1 == len(said)
    assert np.array_equal(shipped.encode(["a", "stone " * 20]), found)


@pytest.mark.skipif(sys.platform == "win32", reason="no file size limit on Windows")
def test_a_full_disk(tmp_path: Path, shipped: Embedder) -> None:
    """Where a file cannot grow, nothing half-written stays and encoding goes on."""
    done = python(
        "import resource, warnings, numpy as np\n"
        "from ov_minilm import Embedder\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))\n"
        "warnings.simplefilter('always')\n"
        f"with Embedder.open(cache_dir={str(tmp_path / 'cache')!r}) as e: vector = e.encode('a')\n"
        f"np.save({str(tmp_path / 'a.npy')!r}, vector)"
    )

    assert 0 == done.returncode, done.stderr
    assert 1 == done.stderr.count("CacheWarning")
    assert "File too large" in done.stderr
    assert np.array_equal(shipped.encode("a"), np.load(tmp_path / "a.npy"))
    assert [] == [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", ["Bücher 缓存 📦", "new/nested/folder", "with 'quotes' and $"])
def test_any_name_will_do(tmp_path: Path, shipped: Embedder, name: str) -> None:
    """Folders are made, whatever they are called; the second process starts from the cache."""
    folder = tmp_path / name
    for _ in range(2):
        with Embedder.open(cache_dir=folder) as embedder:
            assert np.array_equal(shipped.encode("a"), embedder.encode("a"))
            made = entry(folder).stat().st_mtime_ns

    assert made == entry(folder).stat().st_mtime_ns


def test_other_options_have_entries_of_their_own(tmp_path: Path) -> None:
    """Lowering, precision and threads decide the compiled model, and so its name."""
    for options in ({}, {"lowering": "native"}, {"lowering": "conv"}, {"threads": 1}):
        with Embedder.open(precision="f32", cache_dir=tmp_path, **options) as embedder:
            embedder.encode("a")

    assert len(list(tmp_path.rglob(f"*{SUFFIX}"))) >= 3  # "auto" is one of the two


def test_a_device_without_export_says_so(tmp_path: Path, shipped: Embedder) -> None:
    """AUTO has no models to export: one warning, no file, the right vectors."""
    with pytest.warns(CacheWarning, match="AUTO:CPU cannot export"):
        embedder = Embedder.open(device="AUTO:CPU", cache_dir=tmp_path)
    with embedder, warnings.catch_warnings():
        warnings.simplefilter("error")

        assert float(embedder.encode("a") @ shipped.encode("a")) > 0.995
        assert [] == list(tmp_path.rglob("*"))


def test_self_check_returns_the_cosine(shipped: Embedder) -> None:
    """The model in the package keeps 0.998 of the original's vector, through tokenizer and packing."""
    assert 0.998 < shipped.self_check() <= 1

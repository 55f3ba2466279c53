"""Files: one is there whole or not at all."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from support.processes import python

from ov_minilm.files import atomic_write, check_writable


def contents(folder: Path) -> dict[str, bytes]:
    """Read every file of a folder."""
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("before", [{"v": b"old"}, {}], ids=["over a file", "new"])
def test_a_failed_write_leaves_nothing(tmp_path: Path, before: dict[str, bytes]) -> None:
    """Half way through, the old file is untouched and no temporary file stays."""
    for name, content in before.items():
        (tmp_path / name).write_bytes(content)

    def write() -> None:
        with atomic_write(tmp_path / "v") as file:
            file.write(b"half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write()

    assert before == contents(tmp_path)


def test_a_new_file_replaces_the_old(tmp_path: Path) -> None:
    """Nothing of a longer file before is left, and nothing beside it."""
    (tmp_path / "v").write_bytes(b"a long one")

    with atomic_write(tmp_path / "v") as file:
        file.write(b"new")

    assert {"v": b"new"} == contents(tmp_path)


def test_what_a_killed_process_left_is_taken_over(tmp_path: Path) -> None:
    """Where a lock keeps other writers away: after kill -9 in the middle, the next run leaves one file."""
    path = tmp_path / "v"
    code = (
        "import os, pathlib, signal; from ov_minilm.files import atomic_write\n"
        f"with atomic_write(pathlib.Path({str(path)!r}), locked=True) as file:\n"
        "    file.write(b'a long half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert -signal.SIGKILL == python(code).returncode
    assert {".v.unfinished": b"a long half"} == contents(tmp_path)

    with atomic_write(path, locked=True) as file:
        file.write(b"new")

    assert {"v": b"new"} == contents(tmp_path)


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    """The file that a link points to is replaced, not the link."""
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")

    with atomic_write(tmp_path / "link") as file:
        file.write(b"new")

    assert (True, b"new") == ((tmp_path / "link").is_symlink(), (tmp_path / "real").read_bytes())


def test_a_file_has_the_usual_permissions(tmp_path: Path) -> None:
    """Others may read it as far as the umask allows: it is no private temporary file."""
    (tmp_path / "plain").write_bytes(b"")

    with atomic_write(tmp_path / "v"):
        pass

    assert (tmp_path / "plain").stat().st_mode == (tmp_path / "v").stat().st_mode


def test_an_output_is_checked_before_the_work(tmp_path: Path) -> None:
    """A folder in its place, or none to hold it, is said at once; nothing is left of the trial."""
    check_writable(tmp_path / "v")

    with pytest.raises(IsADirectoryError, match="is a folder"):
        check_writable(tmp_path)
    with pytest.raises(FileNotFoundError):
        check_writable(tmp_path / "no" / "v")
    assert [] == list(tmp_path.iterdir())

"""Files are replaced completely or not at all."""

import contextlib
import signal
from pathlib import Path

import pytest
from support.processes import python

from ov_minilm.files import atomic_write, check_writable


def contents(folder: Path) -> dict[str, bytes]:
    """Read every file of a folder."""
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("existing", [{"v": b"a long old one"}, {}], ids=["over a file", "new"])
def test_a_file_is_replaced_completely_or_not_at_all(tmp_path: Path, existing: dict[str, bytes]) -> None:
    """An error keeps the old file; no temporary file stays; permissions are those of a new file."""
    path = tmp_path / "v"
    for content in existing.values():
        path.write_bytes(content)

    with contextlib.suppress(KeyError), atomic_write(path) as file:
        file.write(b"half")
        raise KeyError
    assert existing == contents(tmp_path)

    with atomic_write(path) as file:
        file.write(b"new")
    assert {"v": b"new"} == contents(tmp_path)
    (tmp_path / "plain").write_bytes(b"")
    assert (tmp_path / "plain").stat().st_mode == path.stat().st_mode  # as far as the umask allows


def test_the_unfinished_file_of_a_killed_process_is_reused(tmp_path: Path) -> None:
    """With locked=True, the next run after SIGKILL leaves one file."""
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


def test_links_are_followed_and_folders_refused(tmp_path: Path) -> None:
    """The target of a link is replaced; a folder at the path, or a missing parent, is refused early."""
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")

    check_writable(tmp_path / "link")
    with atomic_write(tmp_path / "link") as file:
        file.write(b"new")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        check_writable(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"/no'$"):  # the user's name, not the temporary one
        check_writable(tmp_path / "no" / "v")

    assert (tmp_path / "link").is_symlink()
    assert {"real": b"new", "link": b"new"} == contents(tmp_path)

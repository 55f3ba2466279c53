"""The journal: what was written down is kept, what was half written is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from ov_minilm.bulk.journal import NAME, Done, Journal
from ov_minilm.bulk.rows import Position
from ov_minilm.errors import JobRefused

JOB = {"model": "m", "keep": ["a"], "rows": 3}
DONE = [Done(shard, Position(0, 3 * shard + 3, 40), 3, 17, 0, 1) for shard in range(3)]


def written(folder: Path) -> bytes:
    """Write a journal of three shards."""
    with Journal.open(folder) as journal:
        journal.resume(JOB)
        for done in DONE:
            journal.add(done)
    return (folder / NAME).read_bytes()


def test_what_was_added_is_found_again(tmp_path: Path) -> None:
    """Shards, with all that is known of them."""
    written(tmp_path)

    with Journal.open(tmp_path) as journal:
        journal.resume(JOB)

        assert dict(enumerate(DONE)) == journal.done


def test_it_may_be_cut_at_any_byte(tmp_path: Path) -> None:
    """Wherever a crash cuts the file, whole lines count, and what is added next is whole too."""
    content = written(tmp_path)

    for length in range(len(content)):
        (tmp_path / NAME).write_bytes(content[:length])
        with Journal.open(tmp_path) as journal:
            journal.resume(JOB)
            found = len(journal.done)
            for done in DONE[found:]:
                journal.add(done)

        assert max(0, content[:length].count(b"\n") - 1) == found
        assert content == (tmp_path / NAME).read_bytes()


def test_another_job_is_refused_with_all_that_differs(tmp_path: Path) -> None:
    """Values that changed, came or went; the file stays as it was."""
    content = written(tmp_path)

    with Journal.open(tmp_path) as journal, pytest.raises(JobRefused) as refused:
        journal.resume({"model": "n", "new": 1})

    assert "is None; 1 more)" in str(refused.value)
    assert (
        "model was 'm', is 'n'",
        "keep was ['a'], is None",
        "rows was 3, is None",
        "new was None, is 1",
    ) == refused.value.differences
    assert content == (tmp_path / NAME).read_bytes()


def test_it_has_one_holder(tmp_path: Path) -> None:
    """A second one is refused until the first lets go."""
    with Journal.open(tmp_path), pytest.raises(BlockingIOError, match="another process is working on it"):
        Journal.open(tmp_path)

    Journal.open(tmp_path).__exit__(None, None, None)


def test_it_can_be_cleared(tmp_path: Path) -> None:
    """Begun anew, it is of the new job and nothing is done."""
    written(tmp_path)

    with Journal.open(tmp_path) as journal:
        journal.clear()
        journal.resume({"model": "n"})

        assert {} == journal.done
    assert b'{"model": "n"}\n' == (tmp_path / NAME).read_bytes()

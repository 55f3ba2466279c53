"""The journal: what was written down is kept, what was half written is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from ov_minilm.bulk.journal import NAME, Done, Header, Journal, compare
from ov_minilm.bulk.rows import Position
from ov_minilm.errors import JobRefused

JOB = Header({"model": "m", "keep": ["a"], "rows": 3}, [["a", "1 byte"], ["b", "2 bytes"]], "stop")
DONE = [Done(shard, Position(0, 3 * shard + 3, 40), 3, 17, 0, 1, f"d{shard}") for shard in range(3)]


def written(folder: Path) -> bytes:
    """Write a journal of three shards."""
    with Journal.open(folder) as journal:
        journal.write(JOB, {})
        for done in DONE:
            journal.add(done)
    return (folder / NAME).read_bytes()


def test_what_was_added_is_found_again(tmp_path: Path) -> None:
    """Shards, with all that is known of them."""
    written(tmp_path)

    with Journal.open(tmp_path) as journal:
        assert JOB == journal.read()

        assert dict(enumerate(DONE)) == journal.done


def test_it_may_be_cut_at_any_byte(tmp_path: Path) -> None:
    """Cut by a crash at any byte, whole lines count, and what is added next is whole too."""
    content = written(tmp_path)

    for length in range(len(content)):
        (tmp_path / NAME).write_bytes(content[:length])
        with Journal.open(tmp_path) as journal:
            if journal.read() is None:
                journal.write(JOB, {})
            found = len(journal.done)
            for done in DONE[found:]:
                journal.add(done)

        assert max(0, content[:length].count(b"\n") - 1) == found
        assert content == (tmp_path / NAME).read_bytes()


def test_another_job_is_refused_with_all_that_differs() -> None:
    """Values that changed, came or went."""
    with pytest.raises(JobRefused) as refused:
        compare(Path("out"), JOB, Header({"model": "n", "new": 1}, JOB.inputs, "stop"))

    assert "is None; 1 more)" in str(refused.value)
    assert (
        "model was 'm', is 'n'",
        "keep was ['a'], is None",
        "rows was 3, is None",
        "new was None, is 1",
    ) == refused.value.differences


@pytest.mark.parametrize(
    ("inputs", "missing"),
    [
        ([["a", "9 bytes"], ["b", "2 bytes"]], []),
        ([["0", "1 byte"], ["a", "1 byte"], ["b", "2 bytes"], ["c", "1 byte"]], []),
        ([["a", "1 byte"]], ["b"]),
        ([["b", "2 bytes"], ["a", "1 byte"]], ["b"]),
        ([["c", "1 byte"]], ["a", "b"]),
    ],
)
def test_inputs_may_change_and_be_added(inputs: list[list[str]], missing: list[str]) -> None:
    """One that is gone, or stands elsewhere, makes it another job: its rows would vanish from the output."""
    now = Header(JOB.facts, inputs, "skip")
    if not missing:
        compare(Path("out"), JOB, now)
        return

    with pytest.raises(JobRefused) as refused:
        compare(Path("out"), JOB, now)

    said = tuple(f"input {name} is missing, or in another place" for name in missing)
    assert said == refused.value.differences


def test_a_journal_of_an_earlier_version_is_another_job(tmp_path: Path) -> None:
    """It is refused and not misread."""
    (tmp_path / NAME).write_text('{"format": 1, "model": "m"}\n{"shard": 0, "rows": 3}\n')

    with Journal.open(tmp_path) as journal:
        header = journal.read()

    assert header is not None
    with pytest.raises(JobRefused, match="format was 1, is 2"):
        compare(tmp_path, header, Header({"format": 2}, JOB.inputs, "stop"))


def test_it_has_one_holder(tmp_path: Path) -> None:
    """A second one is refused until the first lets go."""
    with Journal.open(tmp_path), pytest.raises(BlockingIOError, match="another process is working on it"):
        Journal.open(tmp_path)

    Journal.open(tmp_path).__exit__(None, None, None)


def test_it_can_begin_with_what_is_still_right(tmp_path: Path) -> None:
    """Written again, it is of the job as it is now, and of the shards given."""
    written(tmp_path)
    now = Header({"model": "n"}, [], "stop")

    with Journal.open(tmp_path) as journal:
        journal.read()
        journal.write(now, {2: DONE[2]})

        assert {2: DONE[2]} == journal.done
    first, second = (tmp_path / NAME).read_text().splitlines()
    assert now.to_json() == first
    assert DONE[2] == Done.parse(second)

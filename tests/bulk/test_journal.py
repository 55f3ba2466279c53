"""The journal: what was written down is kept, what was half written is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from ov_minilm.bulk.journal import NAME, Done, Header, Journal, compare
from ov_minilm.bulk.rows import Position
from ov_minilm.errors import JobRefused

FACTS = {"model": "m", "keep": ["a"], "rows": 3}
JOB = Header(FACTS, [["a", "1 byte"], ["b", "2 bytes"]], "stop")
DONE = [Done(shard, Position(0, 3 * shard + 3, 40), 3, 17, 0, 1, f"d{shard}") for shard in range(3)]


def written(folder: Path) -> bytes:
    """Write a journal of three shards."""
    with Journal.open(folder) as journal:
        journal.write(JOB, {})
        for done in DONE:
            journal.add(done)
    return (folder / NAME).read_bytes()


def test_it_may_be_cut_at_any_byte(tmp_path: Path) -> None:
    """Cut by a crash at any byte, whole lines count, and what is added next is whole too."""
    content = written(tmp_path)

    for length in range(len(content) + 1):
        (tmp_path / NAME).write_bytes(content[:length])
        with Journal.open(tmp_path) as journal:
            header = journal.read()
            if header is None:
                journal.write(JOB, {})
            found = dict(journal.done)
            for done in DONE[len(found) :]:
                journal.add(done)

        assert header in (None, JOB)
        assert dict(enumerate(DONE[: max(0, content[:length].count(b"\n") - 1)])) == found
        assert content == (tmp_path / NAME).read_bytes()


@pytest.mark.parametrize(
    ("facts", "inputs", "differences"),
    [
        (FACTS, [["a", "9 bytes"], ["b", "2 bytes"]], []),
        (FACTS, [["0", "1 byte"], ["a", "1 byte"], ["b", "2 bytes"], ["c", "1 byte"]], []),
        (FACTS, [["a", "1 byte"]], ["input b is missing, or in another place"]),
        (FACTS, [["b", "2 bytes"], ["a", "1 byte"]], ["input b is missing, or in another place"]),
        (
            {"model": "n", "new": 1},
            JOB.inputs,
            ["model was 'm', is 'n'", "keep was ['a'], is None", "rows was 3, is None", "new was None, is 1"],
        ),
    ],
)
def test_another_job_is_refused(
    facts: dict[str, object], inputs: list[list[str]], differences: list[str]
) -> None:
    """All that differs is said; inputs may change and be added, but none may be gone."""
    now = Header(facts, inputs, "skip")
    if not differences:
        compare(Path("out"), JOB, now)
        return

    with pytest.raises(JobRefused) as refused:
        compare(Path("out"), JOB, now)

    assert tuple(differences) == refused.value.differences
    assert ("1 more)" in str(refused.value)) == (len(differences) > 3)


def test_a_journal_of_an_earlier_version_is_another_job(tmp_path: Path) -> None:
    """It is refused and not misread."""
    (tmp_path / NAME).write_text('{"format": 1, "model": "m"}\n{"shard": 0, "rows": 3}\n')

    with Journal.open(tmp_path) as journal:
        header = journal.read()

    assert header is not None
    with pytest.raises(JobRefused, match="format was 1, is 2"):
        compare(tmp_path, header, Header({"format": 2}, JOB.inputs, "stop"))


def test_it_has_one_holder_and_can_begin_with_what_is_still_right(tmp_path: Path) -> None:
    """A second holder is refused; written again, it is of the job as it is now, and of the shards given."""
    written(tmp_path)
    now = Header({"model": "n"}, [], "stop")

    with Journal.open(tmp_path) as journal:
        with pytest.raises(BlockingIOError, match="another process is working on it"):
            Journal.open(tmp_path)
        journal.read()
        journal.write(now, {2: DONE[2]})

        assert {2: DONE[2]} == journal.done
    first, second = (tmp_path / NAME).read_text().splitlines()
    assert (now.to_json(), DONE[2]) == (first, Done.parse(second))

"""The journal: what was written down is kept, what was half written is not."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from ov_minilm.bulk.journal import NAME, Done, Header, Journal, compare
from ov_minilm.bulk.rows import Position
from ov_minilm.errors import JobRefused

FACTS = {"model": "m", "keep": ["a"], "rows": 3}
JOB = Header(FACTS, [["a", "1 byte"], ["b", "2 bytes"]], "stop")
DONE = [Done(shard, Position(0, 3 * shard + 3, 40), 3, 17, 0, 1, f"d{shard}") for shard in range(3)]


def test_it_may_be_cut_at_any_byte(tmp_path: Path) -> None:
    """Cut by a crash at any byte, whole lines count, and what is added next is whole too.

    A second holder is refused. Written again, it is of the job as it is now, and of the shards given.
    """
    lines = [JOB.to_json(), *(json.dumps(asdict(done)) for done in DONE)]
    content = "".join(f"{line}\n" for line in lines).encode()

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

    now = Header({"model": "n"}, [], "stop")
    with Journal.open(tmp_path) as journal:
        with pytest.raises(BlockingIOError, match="another process is working on it"):
            Journal.open(tmp_path)
        journal.read()
        journal.write(now, {2: DONE[2]})
        assert {2: DONE[2]} == journal.done
    assert [now.to_json(), lines[3]] == (tmp_path / NAME).read_text().splitlines()


@pytest.mark.parametrize(
    ("facts", "inputs", "differences"),
    [
        (FACTS, "a9 b2", []),
        (FACTS, "01 a1 b2 c1", []),
        (FACTS, "a1", ["input b is missing, or in another place"]),
        (FACTS, "b2 a1", ["input b is missing, or in another place"]),
        (
            {"model": "n", "new": 1},
            "a1 b2",
            ["model was 'm', is 'n'", "keep was ['a'], is None", "rows was 3, is None", "new was None, is 1"],
        ),
    ],
)
def test_another_job_is_refused(facts: dict[str, object], inputs: str, differences: list[str]) -> None:
    """All that differs is said; inputs may change and be added, but none may be gone."""
    now = Header(facts, [[file[0], f"{file[1]} bytes"] for file in inputs.split()], "skip")
    refused: JobRefused | None = None
    try:
        compare(Path("out"), JOB, now)
    except JobRefused as error:
        refused = error

    assert tuple(differences) == (refused.differences if refused else ())
    assert ("1 more)" in str(refused)) == (len(differences) > 3)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b'{"format": 1, "model": "m"}\n{"shard": 0, "rows": 3}\n', "1"),
        (b"other\n", "'unreadable'"),
        (b"\xff\xfe\n", "'unreadable'"),
        (b"[1]\n", "'unreadable'"),
        (JOB.to_json().encode() + b'\n{"x": 1}\n', "'unreadable'"),
    ],
)
def test_a_journal_of_another_version_is_another_job(tmp_path: Path, content: bytes, found: str) -> None:
    """It is refused and not misread, nor is a file that is no journal."""
    (tmp_path / NAME).write_bytes(content)

    with Journal.open(tmp_path) as journal:
        header = journal.read()

    assert header is not None
    with pytest.raises(JobRefused, match=f"format was {found}, is 2.*--overwrite"):
        compare(tmp_path, header, Header({"format": 2}, JOB.inputs, "stop"))
    assert {} == journal.done

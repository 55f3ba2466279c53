"""The journal of a job: complete lines count, also after a crash, and another job is refused."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from ov_minilm.bulk.journal import JOURNAL_NAME, Done, Header, Journal, compare
from ov_minilm.bulk.rows import Position
from ov_minilm.errors import JobRefused

FACTS = {"model": "m", "keep": ["a"], "rows": 3}
HEADER = Header(FACTS, [["a", "1 byte"], ["b", "2 bytes"]], "stop")
FINISHED = [Done(shard, Position(0, 3 * shard + 3, 40), 3, 17, 0, 1, f"d{shard}") for shard in range(3)]


def test_complete_lines_survive_a_crash_at_any_byte(tmp_path: Path) -> None:
    """Lines that are added after a crash are complete too. A second process is refused.

    A journal that is replaced has the new header and the given shards.
    """
    lines = [HEADER.to_json(), *(json.dumps(asdict(done)) for done in FINISHED)]
    content = "".join(f"{line}\n" for line in lines).encode()
    for length in range(len(content) + 1):
        (tmp_path / JOURNAL_NAME).write_bytes(content[:length])
        with Journal.open(tmp_path) as journal:
            header = journal.read()
            if header is None:
                journal.write(HEADER, {})
            actual = dict(journal.done)
            for done in FINISHED[len(actual) :]:
                journal.add(done)

        assert header in (None, HEADER)
        assert dict(enumerate(FINISHED[: max(0, content[:length].count(b"\n") - 1)])) == actual
        assert content == (tmp_path / JOURNAL_NAME).read_bytes()

    other = Header({"model": "n"}, [], "stop")
    with Journal.open(tmp_path) as journal:
        with pytest.raises(BlockingIOError, match="another process is working on it"):
            Journal.open(tmp_path)
        journal.read()
        journal.write(other, {2: FINISHED[2]})
        assert {2: FINISHED[2]} == journal.done
    assert [other.to_json(), lines[3]] == (tmp_path / JOURNAL_NAME).read_text().splitlines()


OTHER_FACTS = {"model": "n", "new": 1}
CHANGES = ["model was 'm', is 'n'", "keep was ['a'], is None", "rows was 3, is None", "new was None, is 1"]


@pytest.mark.parametrize(
    ("facts", "inputs", "differences"),
    [
        (FACTS, "a9 b2", []),
        (FACTS, "01 a1 b2 c1", []),
        (FACTS, "a1", ["input b is missing, or in another place"]),
        (FACTS, "b2 a1", ["input b is missing, or in another place"]),
        (OTHER_FACTS, "a1 b2", CHANGES),
    ],
)
def test_only_inputs_may_change_or_be_added(
    facts: dict[str, object], inputs: str, differences: list[str]
) -> None:
    """After other changes the job is refused; the error has all differences, the message three of them."""
    new_header = Header(facts, [[file[0], f"{file[1]} bytes"] for file in inputs.split()], "skip")
    if not differences:
        compare(Path("out"), HEADER, new_header)
        return
    with pytest.raises(JobRefused) as caught:
        compare(Path("out"), HEADER, new_header)
    assert tuple(differences) == caught.value.differences
    assert ("1 more)" in str(caught.value)) == (len(differences) > 3)


@pytest.mark.parametrize(
    ("content", "version"),
    [
        (b'{"format": 1, "model": "m"}\n{"shard": 0, "rows": 3}\n', "1"),
        *((text, "'unreadable'") for text in (b"other\n", b"\xff\xfe\n", b"[1]\n")),
        (HEADER.to_json().encode() + b'\n{"x": 1}\n', "'unreadable'"),
    ],
)
def test_a_journal_of_another_version_is_refused(tmp_path: Path, content: bytes, version: str) -> None:
    """No shard is read from such a journal, or from a file that is not a journal."""
    (tmp_path / JOURNAL_NAME).write_bytes(content)

    with Journal.open(tmp_path) as journal:
        header = journal.read()

    assert header is not None
    with pytest.raises(JobRefused, match=f"format was {version}, is 2.*--overwrite"):
        compare(tmp_path, header, Header({"format": 2}, HEADER.inputs, "stop"))
    assert {} == journal.done

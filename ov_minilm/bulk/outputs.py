"""The output of a job, and the check that it is not an input.

A job must not replace its input, and must not read its own shards. Such jobs are refused before they start,
even if two names lead to the same file by links, or if a pattern would match the output only later.
"""

from __future__ import annotations

import glob
import json
import os
import stat
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import IO, Any

from ov_minilm.bulk.inputs import ERRORS, STDIN, Inputs
from ov_minilm.bulk.journal import JOURNAL_NAME
from ov_minilm.bulk.refusals import refusal
from ov_minilm.bulk.rows import VECTOR, OnError
from ov_minilm.bulk.sink import FORMS, Form
from ov_minilm.errors import check_choice
from ov_minilm.files import check_writable, unfinished_name


@dataclass(frozen=True, slots=True)
class Output:
    """The output of a job: one file, or a folder of shards."""

    path: Path
    form: Form
    folder: bool

    @classmethod
    def parse(cls, name: str | os.PathLike[str], form: Form | None = None) -> Output:
        """Return the output of this name: a file if the ending is known, a folder if the name has no ending.

        Raises:
            ValueError: the ending is unknown or does not fit `form`, or the name is empty.
        """
        if form is not None:
            check_choice("form", form, FORMS)
        name = os.fsdecode(name)
        if name == STDIN:
            raise refusal("output_is_stdout")
        path = Path(name)
        ending = path.suffix.removeprefix(".")
        if name and (name.endswith(("/", os.sep)) or not ending or (path.is_dir() and ending not in FORMS)):
            return cls(path, form or "parquet", folder=True)
        for form_name in FORMS:
            if ending == form_name and form in (None, form_name):
                return cls(path, form_name, folder=False)
        endings = ", ".join(f".{ending}" for ending in ([form] if form else FORMS))
        raise refusal("output_ending", name=name or "-o ''", endings=endings)

    @property
    def parts(self) -> Path:
        """The folder of shards: the output itself, or a temporary folder beside the output file."""
        return self.path if self.folder else self.path_beside("parts")

    def path_beside(self, ending: str) -> Path:
        """Return the path of a file beside the output: its name and another ending."""
        return self.path.with_name(f"{self.path.name}.{ending}")

    @property
    def errors(self) -> Path:
        """The list of bad rows: one file for an output file; for a folder, one for each shard."""
        return self.path / "_errors-*.log" if self.folder else self.path.with_name(self.path.name + ERRORS)

    @property
    def files(self) -> list[Path]:
        """Files that a job writes and that a pattern could match; of the shards, only the first one."""
        shards = [
            self.parts / name for name in (JOURNAL_NAME, f"part-00000.{self.form}", "_errors-00000.log")
        ]
        beside = [] if self.form == "parquet" else [self.path_beside("json")]
        if self.folder:
            return shards
        written = [self.path, *beside]
        return [*written, *map(unfinished_name, written), *shards]


def check_output(inputs: Inputs, output: Output, *, dtype: str, on_error: OnError) -> None:
    """Check the output before any work is done.

    Raises:
        OSError: the output cannot be written, or is a folder with other files.
        ValueError: the output is an input, or its format cannot hold these vectors or columns.
    """
    if output.form == "npy" and on_error == "null" and not dtype.startswith("float"):
        raise refusal("null_integer", dtype=dtype)
    _check_columns(inputs, output.form)
    _check_inputs(inputs, output)
    folder = output.path.parent
    if not folder.is_dir():
        raise refusal("no_folder", folder=folder)
    if output.path.exists() and not output.path.is_file() and not output.path.is_dir():
        raise refusal("output_special", output=output.path)
    if not output.folder:
        if output.path.is_dir():
            raise refusal("output_is_folder", output=output.path)
        check_writable(output.path)
    if not output.parts.exists():
        check_writable(output.parts)
    elif not output.parts.is_dir():
        raise refusal("not_a_folder", folder=output.parts)
    elif any(output.parts.iterdir()) and not (output.parts / JOURNAL_NAME).exists():
        raise refusal("foreign_folder", folder=output.parts)


def check_stdout(inputs: Inputs) -> int:
    """Return the descriptor of stdout, for JSON lines.

    Raises:
        ValueError: stdout is closed, or is redirected to an input.
    """
    if sys.stdout is None:
        raise refusal("stdout_closed")
    check_stream(inputs, sys.stdout, "stdout")
    return sys.stdout.fileno()


def check_stream(inputs: Inputs, stream: IO[Any], name: str) -> None:
    """Check that a stream can take the JSON lines of these inputs.

    Raises:
        ValueError: the file behind it is an input, or the columns cannot be written.
    """
    identity = _identity(stream)
    for file in inputs.files:
        if identity is not None and identity == _identity(file):
            raise refusal("output_is_input", file=file, output=name)
    _check_columns(inputs, "jsonl")


def _check_columns(inputs: Inputs, form: Form) -> None:
    """Refuse columns to keep that a file of this format cannot have."""
    if form == "npy" and inputs.keep:
        raise refusal("npy_columns")
    if VECTOR in inputs.keep:
        raise refusal("column_name", column=VECTOR)
    found, needed = inputs.schema is not None, form == "parquet"
    if inputs.keep and found != needed:
        raise refusal("not_typed", found=found, form=form, wanted=needed)


def _check_inputs(inputs: Inputs, output: Output) -> None:
    """Refuse inputs that are the output or lie in it, and patterns that would match the output.

    Refuse inputs if this command wrote some of them, but not all.
    """
    identities = {_identity(file): file for file in inputs.files}
    existing = [
        path for path in (*output.files, output.errors, *output.parts.glob("part-*")) if path.is_file()
    ]
    for path in existing:
        if (same := identities.get(_identity(str(path)))) is not None:
            raise refusal("output_is_input", file=same, output=path)
    parts = output.parts.resolve()
    for file in inputs.files:
        if file != STDIN and parts in Path(file).resolve().parents:
            raise refusal("input_in_output", file=file, output=output.parts)
    for pattern in inputs.patterns:
        for path in output.files:
            if pattern not in inputs.files and _would_match(pattern, path):
                raise refusal("output_in_pattern", pattern=pattern, output=path)
    written = [_written_by_encode(file) for file in inputs.files]
    if any(written) and not all(written):
        ours, other = inputs.files[written.index(True)], inputs.files[written.index(False)]
        raise refusal("output_again", file=ours, other=other)


def _identity(file: str | IO[Any]) -> tuple[int, int] | None:
    """Return an identity that is equal for all names of a file; None if it is not a regular file."""
    try:
        stream = sys.stdin if file == STDIN else file
        status = Path(stream).stat() if isinstance(stream, str) else os.fstat(stream.fileno())
    except (OSError, ValueError):  # the stream is closed, or is in memory
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None


def _would_match(pattern: str, path: Path) -> bool:
    """Return whether a pattern would match a file, which may not exist yet."""
    parts = Path(pattern).parts
    first_magic = next((place for place, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    root = Path(*parts[:first_magic]).resolve()
    for target in (path.parent.resolve() / path.name, path.resolve()):
        if target.is_relative_to(root) and _match_parts(parts[first_magic:], target.relative_to(root).parts):
            return True
    return False


def _match_parts(pattern: Sequence[str], names: Sequence[str]) -> bool:
    """Match a path like glob: ** matches any number of folders, and * does not match a leading dot."""
    if not pattern or not names:
        return not names and all(part == "**" for part in pattern)
    hidden = names[0].startswith(".") and not pattern[0].startswith(".")
    if pattern[0] == "**":
        return _match_parts(pattern[1:], names) or (not hidden and _match_parts(pattern, names[1:]))
    return not hidden and fnmatch(names[0], pattern[0]) and _match_parts(pattern[1:], names[1:])


def _written_by_encode(file: str) -> bool:
    """Return whether this command wrote a file."""
    path = Path(file)
    if file.lower().endswith(".parquet"):
        from ov_minilm.bulk.parquet import written_by_encode

        return written_by_encode(file)
    if path.name.startswith("part-") and path.with_name(JOURNAL_NAME).is_file():
        return True
    try:
        description = json.loads(path.with_name(f"{path.name}.json").read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(description, dict) and "fingerprint" in description

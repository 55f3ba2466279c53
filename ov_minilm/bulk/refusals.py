"""Every reason for which a job is refused, stops, or goes on without a row: when, and in which words.

Exit codes of `ov-minilm encode`:

    0    every row has its vector
    2    REFUSALS: nothing was encoded.  BAD_ROWS, with --on-error stop: the job stopped at the first of them
    3    BAD_ROWS, with --on-error skip or null: done, and each bad row is named
    130  Ctrl-C.  143: SIGTERM.  Both print what is kept and how to go on
    141  the reader of stdout went away, as `head` does
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Refusal(NamedTuple):
    """One condition that is found before the work begins."""

    when: str
    message: str  # names the file or option, what was found, and what to type
    error: type[Exception] = ValueError


REFUSALS: dict[str, Refusal] = {
    # Which files there are, and in which format.
    "no_match": Refusal("a pattern matches nothing", "{name} matches no file", FileNotFoundError),
    "not_there": Refusal("an input is missing", "{name} does not exist", FileNotFoundError),
    "is_folder": Refusal(
        "an input is a folder", "{name} is a folder; name its files: '{example}'", IsADirectoryError
    ),
    "stdin_closed": Refusal("stdin is closed", "stdin is closed; name a file, or open it: < FILE"),
    "stdout_closed": Refusal("stdout is closed", "stdout is closed; name a file: -o NAME.parquet"),
    "named_twice": Refusal("a pipe is named twice", "{file} is named twice, and can be read once"),
    "unknown_ending": Refusal(
        "the ending of a file says nothing",
        "{file}: the ending {ending!r} is not known; pass --format text, jsonl, csv, tsv or parquet",
    ),
    "not_read": Refusal("a known format that is not read", "{file}: {what} is not read; {instead}"),
    "parquet_stream": Refusal(
        "Parquet, compressed or by a pipe",
        "{file}: Parquet is read from its end and cannot be {how}; write it to a .parquet file first",
    ),
    "looks_like": Refusal(
        "the first bytes belong to another format", "{file} begins like {what}, not {kind}; {instead}"
    ),
    "no_byte_order": Refusal(
        "an encoding that needs a byte order mark, and none is there",
        "{file} has no byte order mark; pass --encoding {encoding}-le or {encoding}-be",
    ),
    "json_document": Refusal(
        "a .json file that is not lines",
        "{file}: its first line is no JSON object; .json is read as JSON lines. "
        "Make it so: jq -c '.[]' {file} > NAME.jsonl",
    ),
    "no_header": Refusal("CSV without a header", "{file}: no CSV header: {error}{hint}"),
    "no_column": Refusal("a column is missing", "{file}: no column {column!r}; it has {names}{hint}"),
    "column_twice": Refusal(
        "a column is ambiguous", "{file}: column {column!r} is there {count} times; rename all but one"
    ),
    "text_columns": Refusal(
        "columns of plain text",
        "{file}: plain text has no columns but its lines, {column!r}; --format names another format: "
        "jsonl, csv, tsv, parquet",
    ),
    "not_text": Refusal(
        "the column is of another type",
        "{file}: column {column!r} is {found}, expected text; --column names it",
    ),
    "no_common_type": Refusal(
        "types of a column in two files that no type holds without loss",
        "{file}: column {column!r} is {found}, in {other} {before}; cast one of them, "
        "or write JSON lines, which keep each: -o NAME.jsonl",
    ),
    "not_written": Refusal(
        "a type that Parquet cannot hold",
        "column {column!r} is {found}, which Parquet cannot hold ({error}); write JSON lines: -o NAME.jsonl",
    ),
    # Options.
    "no_effect": Refusal("an option that changes nothing", "{option} has no effect {where}"),
    "one_character": Refusal(
        "a delimiter, quote or escape of no use", "{option} {value!r}: {rule}; a tab is '\\t'"
    ),
    "no_encoding": Refusal("an unknown encoding", "--encoding {encoding!r} is not known; try utf-16, cp1252"),
    "null_integer": Refusal(
        "--on-error null, .npy and integers",
        ".npy of {dtype} has no number that is none; skip bad rows, or use .parquet",
    ),
    "npy_columns": Refusal(
        "columns in .npy", ".npy holds vectors alone; columns are kept in .parquet and .jsonl"
    ),
    "column_name": Refusal(
        "a kept column has the vectors' name",
        "a column to keep is called {column!r}, as the vectors are; rename it",
    ),
    "ray_stdin": Refusal(
        "--engine ray and a pipe", "other machines do not see {file}; write it to a file that they see first"
    ),
    "ray_stdout": Refusal(
        "--engine ray without an output",
        "--engine ray writes files that every machine sees; name one: -o NAME",
    ),
    # The output.
    "output_ending": Refusal(
        "an output of unknown kind",
        "{name}: the name of a file must end in {endings}, that of a folder in /",
    ),
    "no_folder": Refusal(
        "the output's folder is missing",
        "folder {folder} does not exist; mkdir -p {folder}",
        FileNotFoundError,
    ),
    "foreign_folder": Refusal(
        "the output is a folder with other files",
        "{folder}: a folder with files in it, of no job of ours; name a new one",
        FileExistsError,
    ),
    "output_is_input": Refusal(
        "an output is an input",
        "{file} is an input, and the output {output} would replace it; name another output",
    ),
    "input_in_output": Refusal(
        "an input lies in the output's folder",
        "{file} is an input and lies in the output {output}; name another output",
    ),
    "output_in_pattern": Refusal(
        "a pattern finds the output",
        "the input {pattern} finds the output {output} too; write to where no pattern looks",
    ),
    "output_again": Refusal(
        "some of the inputs are outputs of this command",
        "{file} was written by this command, and {other} was not; name them in two commands",
    ),
}

BAD_ROWS: dict[str, str] = {
    "null": "null",
    "encoding": "not {encoding} ({error}); --encoding names another",
    "long": "longer than {most:,} bytes; split it",
    "not_json": "no JSON object: {error}",
    "no_field": "no field {column!r}; it has {names}; --column names another",
    "not_string": "{column!r} is {found}, expected a string",
    "misfit": "{column!r} is {value:.60}, expected {kind} as in the first rows; -o NAME.jsonl keeps all",
    "no_json": "{column!r} cannot be written as JSON ({error}); -o NAME.parquet keeps it",
    "broken": "{column!r} is not UTF-8",
    "csv": "no CSV record: {error}",
    "fields": "{found} fields, the header has {expected}",
    "tokens": "{tokens} tokens, the model reads {most}; --truncate end or mean",
    "group": "row group {group} is damaged: {error}",
    "damaged": "from here on the file cannot be read: {error}",
}


def refusal(condition: str, /, **facts: Any) -> Exception:
    """Return the error of a condition."""
    found = REFUSALS[condition]
    return found.error(found.message.format(**facts))


def bad_row(condition: str, /, **facts: Any) -> str:
    """Return why a row is bad."""
    return BAD_ROWS[condition].format(**facts)

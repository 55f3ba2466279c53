"""All messages for jobs that are refused and rows that are bad, with the condition of each.

Exit codes of `ov-minilm encode`:

    0    every row has its vector
    2    REFUSALS: nothing was encoded; or BAD_ROWS with --on-error stop: the job stopped at the first bad row
    3    BAD_ROWS with --on-error skip or null: the job is done, and each bad row is listed
    130  Ctrl-C; 143: SIGTERM. The last line says which rows are kept and how to resume
    141  the reader of stdout closed it, as `head` does
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Refusal(NamedTuple):
    """A condition under which a job is refused before it starts."""

    when: str
    message: str  # names the file or option, says what was found, and what to type
    error: type[Exception] = ValueError


REFUSALS: dict[str, Refusal] = {
    # Conditions about which files exist, and in which format.
    "no_match": Refusal("a pattern matches nothing", "{name} matches no file{hint}", FileNotFoundError),
    "not_there": Refusal("an input is missing", "{name} does not exist{hint}", FileNotFoundError),
    "is_url": Refusal("an input is a URL", "{name} is a URL; only files are read: download it first"),
    "is_folder": Refusal(
        "an input is a folder", "{name} is a folder; name its files: '{example}'", IsADirectoryError
    ),
    "stdin_closed": Refusal("stdin is closed", "stdin is closed; name a file, or redirect one: < FILE"),
    "stdout_closed": Refusal("stdout is closed", "stdout is closed; name a file: -o NAME.parquet"),
    "no_files": Refusal("an empty list of inputs", "no input files; pass at least one name or pattern"),
    "not_a_list": Refusal(
        "one name where a list is expected",
        "{option} is {value!r}, one name; pass a list: [{value!r}]",
        TypeError,
    ),
    "named_twice": Refusal("a pipe is named twice", "{file} is named twice, but can be read only once"),
    "unknown_ending": Refusal(
        "a file with an unknown ending",
        "{file}: the ending {ending!r} is not known; pass --format text, jsonl, csv, tsv or parquet",
    ),
    "not_read": Refusal("a known format that cannot be read", "{file}: {what} cannot be read; {instead}"),
    "parquet_stream": Refusal(
        "Parquet, compressed or by a pipe",
        "{file}: Parquet is read from its end, so it cannot be {how}; write it to a .parquet file first",
    ),
    "looks_like": Refusal(
        "the first bytes belong to another format", "{file} begins like {what}, not like {kind}; {instead}"
    ),
    "text_return": Refusal(
        "text has carriage returns and no newline",
        "{file} has carriage returns and no newline; convert it: tr '\\r' '\\n', or pass --format text if "
        "it is one text",
    ),
    "no_byte_order": Refusal(
        "an encoding that needs a byte order mark, and none is there",
        "{file} has no byte order mark; pass --encoding {encoding}-le or {encoding}-be",
    ),
    "json_document": Refusal(
        "a .json file that is not lines",
        "{file}: its first line is not a JSON object; .json is read as JSON lines. "
        "To convert it: jq -c '.[]' {file} > NAME.jsonl",
    ),
    "no_header": Refusal("CSV without a header", "{file}: no CSV header: {error}{hint}"),
    "no_column": Refusal("a column is missing", "{file}: no column {column!r}; it has {names}{hint}"),
    "column_twice": Refusal(
        "a column is ambiguous", "{file}: column {column!r} occurs {count} times; rename all but one"
    ),
    "text_columns": Refusal(
        "columns of plain text",
        "{file}: plain text has only lines, no column {column!r}; if it is in another format, pass --format "
        "jsonl, csv, tsv or parquet",
    ),
    "not_text": Refusal(
        "the column is of another type",
        "{file}: column {column!r} is {found}, expected text; choose a text column with --column",
    ),
    "no_common_type": Refusal(
        "types of a column in two files that no type holds without loss",
        "{file}: column {column!r} is {found}, but {before} in {other}; cast one of them, or write JSON "
        "lines, which keep both types: -o NAME.jsonl",
    ),
    "not_written": Refusal(
        "a type that Parquet cannot hold",
        "column {column!r} is {found}, which Parquet cannot hold ({error}); write JSON lines: -o NAME.jsonl",
    ),
    # Options.
    "no_names": Refusal("an option without any name in it", "{option} {value!r} names no column"),
    "no_effect": Refusal("an option without effect", "{option} has no effect {where}"),
    "one_character": Refusal("an invalid delimiter, quote or escape", "{option} {value!r} {rule}"),
    "no_encoding": Refusal("an unknown encoding", "--encoding {encoding!r} is not known; try utf-16, cp1252"),
    "null_integer": Refusal(
        "--on-error null, .npy and integers",
        ".npy of {dtype} has no value for a missing vector; pass --on-error skip, or write .parquet",
    ),
    "npy_columns": Refusal(
        "columns in .npy", ".npy has no columns beside the vectors; write .parquet or .jsonl"
    ),
    "not_typed": Refusal(
        "columns that `find` typed for another kind of output",
        "the columns to keep were found with typed={found}, but .{form} output needs typed={wanted}; "
        "pass typed={wanted} to find",
    ),
    "column_name": Refusal(
        "a kept column has the name of the column of vectors",
        "a column to keep is named {column!r}, like the column of vectors; rename it in the input",
    ),
    "output_there": Refusal(
        "RayEmbedder's output is a column of the batch",
        "the batch has a column {column!r} already; pass another name as output=",
    ),
    "not_a_batch": Refusal(
        "RayEmbedder gets an Arrow table or a list",
        "the batch is {kind}, expected a dict of columns; pass batch_format='numpy' to map_batches",
        TypeError,
    ),
    "ray_stdin": Refusal(
        "--engine ray and a pipe", "other machines cannot read {file}; write it to a file on a shared disk"
    ),
    "ray_stdout": Refusal(
        "--engine ray without an output",
        "--engine ray writes to a disk that all machines share; name a file or folder there: -o NAME",
    ),
    # The output.
    "output_is_stdout": Refusal(
        "Output.parse of -", "- is stdout; call job.stream with sys.stdout.buffer, or name a file or folder"
    ),
    "text_stream": Refusal(
        "job.stream and a stream of text",
        "the stream accepts only str; pass its .buffer, or a file opened in mode 'wb'",
        TypeError,
    ),
    "output_ending": Refusal(
        "an output of unknown kind",
        "{name}: the name of an output file must end in {endings}; that of a folder in /",
    ),
    "no_folder": Refusal(
        "the output's folder is missing",
        "folder {folder} does not exist; mkdir -p {folder}",
        FileNotFoundError,
    ),
    "foreign_folder": Refusal(
        "the output is a folder with other files",
        "folder {folder} has files that no ov-minilm job wrote; name another folder",
        FileExistsError,
    ),
    "output_is_folder": Refusal(
        "the output file exists as a folder",
        "{output} is a folder; name a file, or {output}/ to write shards into it",
        IsADirectoryError,
    ),
    "output_special": Refusal(
        "the output is a pipe or a device",
        "{output} is a pipe or a device, which a file would replace; write JSON lines to stdout: -o -",
    ),
    "not_a_folder": Refusal(
        "the output folder exists as something else",
        "{folder} is not a folder; remove it, or name another",
        NotADirectoryError,
    ),
    "shard_damaged": Refusal(
        "a finished shard was changed",
        "{file} is damaged ({error}); remove it, and repeat the command, which writes it again",
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
        "a pattern that matches the output",
        "the pattern {pattern} would read the output {output} too; name an output outside of it",
    ),
    "output_again": Refusal(
        "some of the inputs are outputs of this command",
        "{file} was written by this command, and {other} was not; encode them with two commands",
    ),
}

BAD_ROWS: dict[str, str] = {
    "null": "null",
    "encoding": "not {encoding} ({error}); set another with --encoding",
    "long": "longer than {most:,} bytes; split it",
    "not_json": "not a JSON object: {error}",
    "digits": "not a JSON object: it has a number of more than {most:,} digits; make it a string",
    "no_field": "no field {column!r}; it has {names}; choose one with --column",
    "not_string": "{column!r} is {found}, expected a string",
    "misfit": "{column!r} is {value:.60}, expected {kind} as in the first rows; -o NAME.jsonl keeps any type",
    "no_json": "{column!r} cannot be written as JSON ({error}); -o NAME.parquet keeps it",
    "broken": "{column!r} is not UTF-8",
    "csv": "not a CSV record: {error}",
    "csv_return": "a line ends in a carriage return without a newline; convert it: tr '\\r' '\\n'",
    "fields": "{found} fields, the header has {expected}",
    "tokens": "{tokens} tokens, the model reads {most}; pass --truncate end or mean",
    "group": "row group {group} is damaged: {error}",
    "damaged": "from here on the file cannot be read: {error}",
}


WARNINGS: dict[str, str] = {
    "no_value": "none of the first {rows:,} rows of each file has a field {column!r}; it is kept as null",
}


def refusal(condition: str, /, **facts: Any) -> Exception:
    """Return the error for a condition of REFUSALS, with these facts in its message."""
    found = REFUSALS[condition]
    return found.error(found.message.format(**facts))


def bad_row(condition: str, /, **facts: Any) -> str:
    """Return the reason for a condition of BAD_ROWS, with these facts in its text."""
    return BAD_ROWS[condition].format(**facts)

"""Texts from files, line by line, and vectors to files, whole or not at all."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np

from ov_minilm.spec import FloatArray
from ov_minilm.tokens import has_surrogates


def read(name: str, kind: str | None, field: str) -> Iterator[str]:
    """Yield the text of each line of a file, or of stdin where `name` is "-".

    Lines end at a newline and nowhere else, and an empty line is an empty text. `kind` is "text" or
    "jsonl"; None goes by the name.

    Raises:
        ValueError: naming the line that is not UTF-8, or not a JSON object with a string in `field`.
    """
    jsonl = kind == "jsonl" or (kind is None and name.endswith(".jsonl"))
    with sys.stdin.buffer if name == "-" else open(name, "rb") as stream:  # noqa: PTH123  # one type for both
        for number, raw in enumerate(stream, 1):
            where = f"{'stdin' if name == '-' else name}, line {number}"
            try:
                line = raw.decode("utf-8").removesuffix("\n").removesuffix("\r")
                line = line.removeprefix("\ufeff") if number == 1 else line  # a byte order mark
                value = json.loads(line)[field] if jsonl else line
            except UnicodeDecodeError as error:
                raise ValueError(f"{where}: not UTF-8 ({error.reason})") from error
            except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
                raise ValueError(f"{where}: no JSON object with a field {field!r}") from error
            if not isinstance(value, str):
                raise ValueError(f"{where}: {field!r} is {type(value).__name__}, expected a string")
            yield value


def write_npy(path: Path, texts: Sequence[str], vectors: FloatArray) -> None:
    """Write vectors [N, D] as float32 .npy; the texts are not in it."""
    del texts
    with whole(path) as file:
        np.save(file, vectors)


def write_jsonl(path: Path | BinaryIO, texts: Sequence[str], vectors: FloatArray) -> None:
    """Write one {"text": …, "embedding": […]} a line; each number is the shortest that reads back exactly."""
    if not isinstance(path, Path):
        for line in _lines(texts, vectors):
            path.write(line.encode("utf-8"))
        return
    with whole(path) as file:
        for line in _lines(texts, vectors):
            file.write(line.encode("utf-8"))


def _lines(texts: Sequence[str], vectors: FloatArray) -> Iterator[str]:
    for text, vector in zip(texts, vectors, strict=True):
        numbers = ", ".join(map(str, vector))
        # A lone surrogate has no UTF-8 form, but JSON has an escape for it.
        string = json.dumps(text, ensure_ascii=has_surrogates(text))
        yield f'{{"text": {string}, "embedding": [{numbers}]}}\n'


def check_writable(path: Path) -> None:
    """Refuse an output that cannot be written, before the work for it is done."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file")
    with tempfile.NamedTemporaryFile(dir=path.resolve().parent, prefix=f".{path.name}."):
        pass


@contextmanager
def whole(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file beside `path` that takes its name only when everything was written."""
    path = path.resolve()  # through a link, the file it points to is replaced, not the link
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())  # noqa: PTH101  # mkstemp made it private
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink()
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

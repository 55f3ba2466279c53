"""Reads what a PNG says of itself."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path


def text_of(path: Path) -> dict[str, str]:
    """Return the text chunks (W3C, Portable Network Graphics, 11.3.3), checksums verified."""
    data, found, place = path.read_bytes(), {}, 8
    while place < len(data):
        size, kind = struct.unpack(">I4s", data[place : place + 8])
        body = data[place + 8 : place + 8 + size]
        assert zlib.crc32(kind + body) == struct.unpack(">I", data[place + 8 + size : place + 12 + size])[0]
        if kind == b"tEXt":
            key, value = body.split(b"\0", 1)
            found[key.decode("latin-1")] = value.decode("latin-1")
        place += 12 + size
    return found

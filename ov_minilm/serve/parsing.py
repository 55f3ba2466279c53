"""Reading JSON bodies: known fields are checked, unknown ones ignored, and null means absent.

An error names the field, the value found, and the description of the field in openapi.json.
"""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any, TypeVar, get_type_hints

import msgspec
from msgspec import Meta, Struct

from ov_minilm.serve.errors import ApiError
from ov_minilm.serve.limits import check_tokens

S = TypeVar("S", bound=Struct)
SHOWN_CHARACTERS = 60  # maximum of characters of a wrong value in a message

# lists and objects in a body; each takes 60 to 200 bytes of memory, and as few as three bytes of the body
MAX_CONTAINERS = 200_000

_STRING = re.compile(rb'"[^"]*"')
_PLACE = re.compile(r"- at `\$\.?(.*?)`$")  # the field that a message of msgspec names
_MISSING = re.compile(r"required field `(\w+)`")
_decoder = cache(msgspec.json.Decoder)


def read(body: bytes | bytearray, kind: type[S]) -> S:
    """Parse a body. ApiError 400 has the place, the value found and what is expected."""
    _check_containers(body)
    try:
        try:
            return _decoder(kind).decode(body)  # type: ignore[no-any-return]  # cache hides the type
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            return msgspec.convert(_read_surrogates(body), kind)
    except msgspec.ValidationError as error:
        raise _field_error(body, kind, str(error)) from error
    except (ValueError, RecursionError) as error:
        raise _not_json(error) from error


def _check_containers(body: bytes | bytearray) -> None:
    """Raise ApiError 400 for more than MAX_CONTAINERS lists and objects, before they take memory."""
    if _containers(body) > MAX_CONTAINERS:
        unescaped = body.replace(b"\\\\", b"").replace(b'\\"', b"")
        in_strings = sum(_containers(string[0]) for string in _STRING.finditer(unescaped))
        if (found := _containers(unescaped) - in_strings) > MAX_CONTAINERS:
            message = f"the body has {found} lists and objects; send at most {MAX_CONTAINERS}"
            raise ApiError("too_many_texts", message)


def _containers(json_text: bytes | bytearray) -> int:
    return json_text.count(b"[") + json_text.count(b"{")


def _not_json(error: Exception) -> ApiError:
    return ApiError("bad_json", f"the body is not valid JSON in UTF-8: {error}")


def _read_surrogates(body: bytes | bytearray) -> Any:
    """Parse with Python's parser a body that msgspec refuses.

    Clients that cut texts in the middle of an emoji send half of a surrogate pair, as an escape sequence.
    This is not valid Unicode, but Python's parser accepts it, and the tokenizer replaces it by U+FFFD.
    """

    def refuse(name: str) -> Any:
        raise ValueError(f"{name} is not JSON")

    return json.loads(body.decode("utf-8"), parse_constant=refuse)


def _field_error(body: bytes | bytearray, kind: type[Struct], message: str) -> ApiError:
    """Return the error for a body that is JSON but does not fit the type."""
    try:
        value: Any = json.loads(body)
    # the invalid part lies after the place where msgspec stopped
    except (ValueError, RecursionError) as error:
        return _not_json(error)
    missing, found = _MISSING.search(message), _PLACE.search(message)
    place = ".".join(filter(None, (found[1] if found else "", missing[1] if missing else "")))
    if not place:
        return ApiError("bad_field", f"the body is {_kind_of(value)}; send a JSON object")
    names = re.findall(r"\w+|\[(?:\d+|\.\.\.)\]", place)
    expected = _description(kind, [name for name in names if not name.startswith("[")])
    if missing:
        return ApiError("bad_field", f"{place} is missing; expected {expected}", param=names[0])
    for name in names:
        value = value[int(name[1:-1])] if name.startswith("[") else value[name]
    return ApiError("bad_field", f"{place} is {_kind_of(value)}; expected {expected}", param=names[0])


def _kind_of(value: Any) -> str:
    if isinstance(value, list | dict):
        return {list: "a list", dict: "an object"}[type(value)]
    return f"{json.dumps(value, ensure_ascii=False):.{SHOWN_CHARACTERS}}"


def _description(kind: Any, names: list[str]) -> str:
    """Return the description of a field, which every field has; `names` is the path to it."""
    words = ""
    for name in names:
        hint = get_type_hints(kind, include_extras=True)[name]
        words = next(meta.description or "" for meta in hint.__metadata__ if isinstance(meta, Meta))
        structs = (part for part in _parts(hint) if isinstance(part, type) and issubclass(part, Struct))
        kind = next(structs, None)
    return words


def _parts(hint: Any) -> list[Any]:
    inner = getattr(hint, "__args__", ())
    return [hint, *(part for argument in inner for part in _parts(argument))]


def texts_or_ids(value: str | list[Any], max_texts: int, field: str) -> list[Any]:
    """Return an input as a list of 1 to `max_texts` texts or lists of token ids. ApiError 400 for others."""
    entries: list[Any] = [value] if isinstance(value, str) else value
    kinds = set(map(type, entries))
    if kinds == {int}:  # the ids of a single text
        entries, kinds = [entries], {list}
    if not entries:
        raise ApiError("no_texts", f"{field} is an empty list; send at least one text", param=field)
    if len(kinds) > 1:
        names = sorted({str: "texts", int: "numbers", list: "lists"}[kind] for kind in kinds)
        raise ApiError("bad_field", f"{field} mixes {' and '.join(names)}; send one kind", param=field)
    if kinds == {list} and len(entries) == 1:
        check_tokens(len(entries[0]))
    check_count(entries, max_texts, field)
    if kinds == {list} and [] in entries:
        message = f"{field}[{entries.index([])}] is an empty list of token ids"
        raise ApiError("no_texts", message, param=field)
    return entries


def check_count(entries: list[Any], max_texts: int, field: str) -> None:
    """Raise ApiError 400 for more than `max_texts` entries."""
    if len(entries) > max_texts:
        raise ApiError(
            "too_many_texts",
            f"{field} has {len(entries)} entries; this server accepts {max_texts} in a request",
            param=field,
        )

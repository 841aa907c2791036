"""JSON files: written whole or not at all, and checked against a schema (msgspec's) when they are read."""

import contextlib
import re
from collections.abc import Callable
from decimal import Decimal
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from splitsem.errors import ConfigError
from splitsem.files import write_whole

Amount = Annotated[float, msgspec.Meta(ge=0)]  # finite, too: JSON has no other numbers
Count = Annotated[int, msgspec.Meta(ge=0)]
Size = Annotated[int, msgspec.Meta(ge=1)]
_ENCODER = msgspec.json.Encoder(decimal_format="number")
_File = TypeVar("_File")
_Made = TypeVar("_Made")


class JsonFile(msgspec.Struct, kw_only=True):
    """Base of every kind of file: the fields that say which kind it is. A file without times has no unit."""

    schema: str
    unit: str = "s"


def finite(document: Any) -> Any:
    """The document with None in place of infinite numbers and NaN, which JSON has not.

    >>> finite({"mse": float("inf"), "rows": [1.0, float("nan")]})
    {'mse': None, 'rows': [1.0, None]}
    """
    if isinstance(document, dict):
        return {key: finite(value) for key, value in document.items()}
    if isinstance(document, list | tuple):
        return [finite(value) for value in document]
    return None if isinstance(document, float) and not isfinite(document) else document


def write_text(text: str, path: str | Path) -> None:
    """Write a file whole or not at all; make missing folders."""
    write_whole(text.encode(), path)


def read_text(path: str | Path, what: str) -> str:
    """The text of a file that should be ``what``. Raises ConfigError."""
    try:
        return Path(path).expanduser().read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as exc:
        why = exc.strerror or exc if isinstance(exc, OSError) else exc  # without the number, and the name once
        raise ConfigError(f"cannot read the {what} {str(path)!r}: {why}") from exc


def parse(text: str, source: str, what: str, schema: str, type_: type[_File], make: Callable[[_File], _Made]) -> _Made:
    """Make something of the JSON in ``text``, which must be of ``type_``.

    Args:
        text: JSON.
        source: names the text in messages.
        what: the kind of file, in words.
        schema: the value that the field ``schema`` must have.
        type_: a JsonFile.
        make: makes the result from the checked file; may raise ValueError.

    Raises:
        ConfigError: the text is no JSON, or has a wrong schema, unit or value; the message says which and where.
    """
    try:
        with contextlib.suppress(msgspec.DecodeError, RecursionError):  # decode raises it again, with the place
            _check_kind(msgspec.json.decode(text, type=JsonFile), schema)
        return make(decode(text, type_))
    except ValueError as exc:
        raise ConfigError(f"{source} is not a whole {what} of schema {schema!r}: {exc}") from exc


def _check_kind(file: JsonFile, schema: str) -> None:
    if file.schema != schema:
        raise ValueError(f"its schema is {file.schema!r}")
    if file.unit != "s":
        raise ValueError(f"its unit must be 's', got {file.unit!r}")


def decode(text: str | bytes, type_: type[_File]) -> _File:
    """The JSON in ``text``, checked.

    Raises:
        ValueError: no JSON, or a value is not as ``type_`` says; the message has its place, e.g. ``$.units[1].name``.
    """
    try:
        try:
            return msgspec.json.decode(text, type=type_)
        except msgspec.ValidationError as exc:
            raise ValueError(_with_keys(text, type_, str(exc))) from exc
    except RecursionError as exc:
        raise ValueError(f"it is nested too deep: {exc}") from exc


def _with_keys(text: str | bytes, type_: type, said: str) -> str:
    """msgspec's message, with the real key where msgspec writes ``[...]`` for any key of an object."""
    what, _, path = said.rpartition(" - at ")
    if path.startswith("`key` in"):
        path = path.removeprefix("`key` in") + "[...]"
    if "[...]" not in path:
        return said
    document = inner = msgspec.json.Decoder(float_hook=Decimal).decode(text)  # Decimal holds 1e999, too
    place = "$"
    for step in re.findall(r"\.\.\.|[^`.$\[\] ]+", path):
        if isinstance(inner, list):
            place, inner = f"{place}[{step}]", inner[int(step)]
        else:
            key = _refused_alone(document, inner, type_, said) if step == "..." else step
            place, inner = f"{place}.{key}", inner[key]
    return f"{what} - at `{place}`"


def _refused_alone(document: Any, inner: dict[str, Any], type_: type, said: str) -> str:
    """The first key of ``inner``, a part of ``document``, that is refused in the same words when it is the only one."""
    everything = dict(inner)
    for key, value in everything.items():
        inner.clear()
        inner[key] = value
        try:
            msgspec.json.decode(_ENCODER.encode(document), type=type_)
        except msgspec.ValidationError as exc:
            if str(exc) == said:
                return key
    raise ValueError(said)  # a key that stands twice

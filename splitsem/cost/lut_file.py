"""Files of measured times: JSON that is written whole or not at all, and checked value by value when it is read."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

from splitsem.cost.measure import Timing
from splitsem.errors import ConfigError

_Parsed = TypeVar("_Parsed")


def write_text(text: str, path: str | Path) -> None:
    """Write a file whole or not at all; missing folders are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(path.name + ".part")
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(path)


def read_text(path: str | Path, what: str) -> str:
    """The text of a file that should be ``what``. Raises ConfigError."""
    try:
        return Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, ValueError) as exc:
        raise ConfigError(f"cannot read the {what} {str(path)!r}: {exc}") from exc


def parse_document(
    text: str, source: str, what: str, schema: str, parse: Callable[[dict[str, Any]], _Parsed]
) -> _Parsed:
    """Make something of the JSON in ``text`` whose times are in seconds; ``source`` names it in messages.

    ``parse`` may raise KeyError (a value is missing), TypeError and ValueError, saying where.

    Raises:
        ConfigError: the text is no JSON, has another schema or unit, or ``parse`` refused it.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise ConfigError(f"cannot read the {what} {source!r}: {exc}") from exc
    try:
        document = as_object(document, "the file")
        if document["schema"] != schema:
            raise ValueError(f"its schema is {document['schema']!r}")
        if document["unit"] != "s":
            raise ValueError(f"its unit must be 's', got {document['unit']!r}")
        return parse(document)
    except (KeyError, TypeError, ValueError) as exc:
        why = f"{exc.args[0]!r} is missing" if isinstance(exc, KeyError) else str(exc)
        raise ConfigError(f"{source} is not a whole {what} of schema {schema!r}: {why}") from exc


def as_object(value: Any, where: str, *names: str) -> dict[str, Any]:
    """``value``, which must be a JSON object that has these names. Raises TypeError and ValueError."""
    if not isinstance(value, dict):
        raise TypeError(f"{where} must be a JSON object, got {type(value).__name__}")
    for name in names:
        if name not in value:
            raise ValueError(f"{where}: {name!r} is missing")
    return value


def as_texts(value: Any, where: str) -> dict[str, str]:
    """A JSON object of texts, such as a machine in words."""
    return {str(key): str(text) for key, text in as_object(value, where).items()}


def as_text(value: Any, where: str) -> str:
    """``value``, which must be text."""
    if not isinstance(value, str):
        raise TypeError(f"{where} must be text, got {value!r}")
    return value


def as_number(value: Any, where: str) -> float:
    """``value``, which must be a number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{where} must be a number, got {value!r}")
    return float(value)


def as_amount(value: Any, where: str) -> float:
    """``value``, which must be a number, finite and not negative."""
    number = as_number(value, where)
    if not (isfinite(number) and number >= 0):
        raise ValueError(f"{where} must be finite and not negative, got {value}")
    return number


def as_count(value: Any, where: str) -> int:
    """``value``, which must be a whole number, not negative."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise TypeError(f"{where} must be a whole number of 0 or more, got {value!r}")
    return value


def as_shape(value: Any, where: str) -> tuple[int, ...]:
    """``value``, which must be a list of sizes, each at least 1."""
    if not isinstance(value, list) or not all(type(size) is int and size > 0 for size in value):
        raise TypeError(f"{where} must be a list of sizes of at least 1, got {value!r}")
    return tuple(value)


def as_timing(value: Any, where: str) -> Timing:
    """A median with its spread."""
    values = as_object(value, where, "median", "p10", "p90")
    for name in ("median", "p10", "p90"):
        if isinstance(values[name], bool) or not isinstance(values[name], int | float):
            raise TypeError(f"{where}: {name} must be a number, got {values[name]!r}")
    try:
        return Timing(values["median"], values["p10"], values["p90"])
    except ValueError as exc:
        raise ValueError(f"{where}: {exc}") from exc


def timing_object(timing: Timing) -> Mapping[str, float]:
    """What ``as_timing`` reads."""
    return {name.removesuffix("_s"): value for name, value in asdict(timing).items()}

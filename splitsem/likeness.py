"""Which of the names that there are was likely meant, for the lines that tell a mistake."""

import difflib
import re
from collections.abc import Iterable


def likeness(name: str, known: Iterable[str]) -> str:
    """The names that there are, and the nearest one first if one is near: a like name, another number, or a part.

    >>> likeness("bitwidth", ["bit_width", "clipping"])
    'did you mean bit_width? There are bit_width, clipping'
    >>> [likeness(name, ["quant", "quant7", "quant8", "pi4_desktop"]).split()[3] for name in ("quant9", "pi4")]
    ['quant8?', 'pi4_desktop?']
    """
    names = [str(each) for each in known if not str(each).startswith("_")]
    near = nearest(name, names)
    return (f"did you mean {near}? " if near else "") + f"There are {', '.join(names) or 'none'}"


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The name that was likely meant; None where none is near.

    >>> nearest("stage9", ["stem", "stage1", "stage3"]), nearest("zzz", ["stem"])
    ('stage3', None)
    """
    names = list(names)
    stem, number = _numbered(name)
    alike = [one for one in names if number is not None and _numbered(one)[0] == stem and _numbered(one)[1] is not None]
    if alike:
        return min(alike, key=lambda one: abs((_numbered(one)[1] or 0) - (number or 0)))
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.65)  # codec is not model
    near = near or [one for one in names if len(name) > 1 and name in one.replace("_", "")]
    return near[0] if near else None


def _numbered(name: str) -> tuple[str, int | None]:
    """A name without the number at its end, and that number."""
    stem, digits = re.fullmatch(r"(.*?)(\d*)", name, re.DOTALL).groups()  # type: ignore[union-attr]  # fits any text
    return stem, int(digits) if digits else None

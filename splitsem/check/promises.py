"""Promises: tries what a plug-in promises, one promise after the other, and keeps a line for each that is broken."""

import copy
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import nn

from splitsem.codecs.codec import has_base
from splitsem.errors import ContractError

T = TypeVar("T")
P = TypeVar("P")


class UnkeptError(Exception):
    """What was found in place of what is promised."""


def expect(is_so: object, found: str) -> None:
    """Raise UnkeptError with ``found`` unless ``is_so``."""
    if not is_so:
        raise UnkeptError(found)


class Promises:
    """The promises of one plug-in.

    A promise is tried on what earlier ones left whole: whoever calls tries the next promise on the cases that
    ``hold`` returned, so that one fault is told once.

    Args:
        kind: what it is, with its article: ``"a codec"``.

    Attributes:
        kept: the promises that it keeps, in order.
        broken: a line for each of the others: the promise, and what was found.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.name = "it"
        self.kept: list[str] = []
        self.broken: list[str] = []

    def hold(self, promise: str, test: Callable[[T], object], cases: Mapping[str, T]) -> dict[str, T]:
        """Try a promise on each case; returns the cases that keep it. Without a case, nothing was promised.

        Args:
            promise: a sentence, in the present tense.
            test: calls the plug-in; raises UnkeptError, or whatever the plug-in raises, where the promise is broken.
            cases: by the words that say which case it is; ``""`` where there is only one.
        """
        if not cases:
            return {}
        flaws = {name: flaw for name, case in cases.items() if (flaw := _flaw(test, case)) is not None}
        if flaws:
            name, flaw = next(iter(flaws.items()))
            more = f" (and in {len(flaws) - 1} more of {len(cases)} cases)" if len(flaws) > 1 else ""
            self.broken.append(f"{promise}: {f'for {name}, ' if name else ''}{flaw}{more}")
        else:
            self.kept.append(promise)
        return {name: case for name, case in cases.items() if name not in flaws}

    def hold_once(self, promise: str, test: Callable[[], object]) -> bool:
        """Try a promise that has one case only; whether it is kept."""
        return bool(self.hold(promise, lambda _: test(), {"": None}))

    def twins(self, part: P | Callable[[], P], kind: type[Any], has_weights: Callable[[P], bool]) -> tuple[P, P]:
        """The plug-in, and its equal that was made before the first was used.

        Args:
            part: the plug-in, or what makes one.
            kind: its base class.
            has_weights: whether the equal must be a copy, because a second one would have other weights.

        Raises:
            ContractError: it cannot be made, or is of another class; all else would fail as well.
        """
        made: list[P] = []

        def make() -> None:
            first = part if isinstance(part, kind) else part()  # type: ignore[operator]
            expect(isinstance(first, kind), f"got {type(first).__name__}")
            expect(
                not isinstance(first, nn.Module) or has_base(first),
                "its __init__ does not call super().__init__() before all else",
            )
            is_copied = isinstance(part, kind) or has_weights(first)
            made.extend((first, copy.deepcopy(first) if is_copied else part()))  # type: ignore[operator]

        self.name = getattr(part, "__name__", type(part).__name__)
        if not self.hold_once(f"the constructor makes a {kind.__name__}", make):
            self.finish()
        return made[0], made[1]

    def finish(self) -> tuple[str, ...]:
        """The promises that were kept. Raises ContractError where one was broken."""
        if self.broken:
            total = len(self.kept) + len(self.broken)
            head = f"{self.name} breaks {len(self.broken)} of the {total} promises of {self.kind} that were tried:"
            error = ContractError("\n  ".join((head, *self.broken)))
            error.kept = tuple(self.kept)
            raise error
        return tuple(self.kept)


def _flaw(test: Callable[[T], object], case: T) -> str | None:
    """In one line, why the promise is broken; None where it is kept."""
    try:
        test(case)
    except UnkeptError as exc:
        return str(exc)
    except Exception as exc:  # noqa: BLE001 (a plug-in may raise anything; it becomes a line of the report)
        lines = str(exc).strip().splitlines()
        name = type(exc).__name__
        named = name if name[0].isupper() else f"{type(exc).__module__}.{name}"  # zlib.error
        return f"raised {named}{f': {lines[0]}' if lines else ''}"
    return None

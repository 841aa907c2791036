"""Plug-ins that break a promise, and the lines that say so."""

from collections.abc import Callable
from typing import Any

import pytest

from splitsem.errors import ContractError, SplitSemError

Overrides = dict[str, Any]


def broken(base: type, **overrides: Any) -> type:
    """A subclass with other members."""
    return type("Broken", (base,), overrides)


def lines(check: Callable[..., Any], *arguments: Any) -> list[str]:
    """The lines that tell broken promises, without the head."""
    with pytest.raises(ContractError) as caught:
        check(*arguments)
    assert isinstance(caught.value, SplitSemError)
    head, *told = str(caught.value).splitlines()
    assert f" breaks {len(told)} of the " in head
    return [line.strip() for line in told]

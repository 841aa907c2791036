"""The families of corruptions by their names, as settings give them."""

import inspect
from collections.abc import Mapping
from typing import Any

from splitsem.tasks.corruption import Corruption
from splitsem.tasks.degradations import (
    Brightness,
    Contrast,
    Fog,
    GaussianBlur,
    Jpeg,
    MotionBlur,
    Occlusion,
    Pixelate,
)
from splitsem.tasks.noises import GaussianNoise, SaltAndPepper, ShotNoise

FAMILIES: dict[str, type[Corruption]] = {
    family.name: family
    for family in (
        GaussianNoise,
        SaltAndPepper,
        ShotNoise,
        GaussianBlur,
        MotionBlur,
        Pixelate,
        Jpeg,
        Contrast,
        Brightness,
        Fog,
        Occlusion,
    )
}


def corruption(settings: Corruption | Mapping[str, Any]) -> Corruption:
    """A corruption from its settings: ``{corruption: gaussian_noise, std: 0.2}`` or ``{corruption: fog, severity: 3}``.

    Args:
        settings: the family's name under ``corruption`` and its parameter or severity; a finished corruption, which is
            what Hydra makes of ``{_target_: my.Rain, ...}``, stays as it is.

    Raises:
        ValueError: no such family, no such parameter, or a value out of range; says what is allowed.
    """
    if isinstance(settings, Corruption):
        return settings
    if not isinstance(settings, Mapping) or "corruption" not in settings:
        raise ValueError(f"a domain must be like {{corruption: fog, severity: 3}}, got {settings!r}")
    given = {str(name): value for name, value in settings.items() if name != "corruption"}
    name = settings["corruption"]
    if name not in FAMILIES:
        raise ValueError(f"corruption must be one of {', '.join(FAMILIES)}, got {name!r}")
    allowed = inspect.signature(FAMILIES[name]).parameters
    if unknown := sorted(given.keys() - allowed.keys()):
        raise ValueError(f"{name} takes {' or '.join(allowed)}, got {', '.join(unknown)}")
    return FAMILIES[name](**given)

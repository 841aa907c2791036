"""Resolvers: what configuration files may call as ``${name:...}``. Whoever composes a configuration registers them."""

from collections.abc import Mapping

from omegaconf import OmegaConf

from splitsem import sweep


def choose(key: str, options: Mapping[str, str], otherwise: str) -> str:
    """``${choose:${task},{disaster:disaster},cnn}``: the option of this name, or what stands last."""
    return options.get(key, otherwise)


def register() -> None:
    """Make them known to OmegaConf; a second time does no harm."""
    OmegaConf.register_new_resolver("split_points", sweep.split_points, replace=True)
    OmegaConf.register_new_resolver("choose", choose, replace=True)

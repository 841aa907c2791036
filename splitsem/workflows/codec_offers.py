"""``workflow.codecs``: the codecs that a run may choose from, each with every combination of its listed settings."""

import itertools
from typing import Any, NamedTuple

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf

from splitsem.codecs.codec import Codec, has_base
from splitsem.errors import ConfigError
from splitsem.remote.labels import entry_of
from splitsem.workflows import pasted
from splitsem.workflows.codec_options import codec_option, is_for_one_cut

REFERENCE = "identity"
"""The codec of the baselines, and of the unsplit network."""


class Offer(NamedTuple):
    """One codec with one set of settings.

    Attributes:
        name: name of the option in the group ``codec``.
        given: the settings in the list, which override the option's own.
        settings: all settings, with ``_target_``.
        is_offered: whether the codec may be chosen; False if it is measured for the baselines only.
    """

    name: str
    given: dict[str, Any]
    settings: dict[str, Any]
    is_offered: bool = True

    @property
    def label(self) -> str:
        """Name and given settings: ``topk keep_ratio=0.1``."""
        return " ".join([self.name, *(f"{key}={value}" for key, value in self.given.items())])

    @property
    def settings_given(self) -> list[str]:
        """Settings that give other workflows this codec: ``codec=topk``, ``codec.keep_ratio=0.1``."""
        return [f"codec={self.name}", *(pasted.setting(f"codec.{key}", value) for key, value in self.given.items())]

    @property
    def overrides(self) -> str:
        """The same to paste."""
        return pasted.words(self.settings_given)

    @property
    def entry(self) -> str:
        """An entry of ``workflow.codecs`` that offers this codec alone: ``{codec:topk,keep_ratio:0.1}``."""
        return entry_of(self.label)

    def make(self) -> Codec:
        """A fresh codec."""
        codec: Codec = instantiate(self.settings, _convert_="all")
        return codec


def offers(entries: ListConfig) -> list[Offer]:
    """Every codec of ``entries`` with every combination of its listed settings, each codec made once as a check.

    An entry is an option's name, or ``{codec: NAME, setting: value or [values], ...}``. A list without ``identity``
    gets it for the baselines.

    Raises:
        ConfigError: an entry has another form, there is no such codec or setting, a value cannot be, a codec has
            weights of its own, or two entries are equal.
    """
    if not OmegaConf.is_list(entries) or not entries:
        raise ConfigError("workflow.codecs must list at least one codec, e.g. [identity,quant4]")
    found = [offer for entry in entries for offer in _of_entry(entry)]
    labels = [offer.label for offer in found]
    for label in labels:
        if labels.count(label) > 1:
            raise ConfigError(f"workflow.codecs has {label} twice")
    if REFERENCE not in labels:
        found.insert(0, _of_entry(REFERENCE)[0]._replace(is_offered=False))
    return found


def _of_entry(entry: Any) -> list[Offer]:
    given = {"codec": entry} if isinstance(entry, str) else entry
    if not (isinstance(given, dict | DictConfig) and "codec" in given and isinstance(given["codec"], str)):
        raise ConfigError(f"workflow.codecs: an entry is a name or {{codec: NAME, setting: values}}, got {entry}")
    varied = {str(key): value for key, value in given.items() if key != "codec"}
    name = given["codec"]
    settings = codec_option(name, f"workflow.codecs has {name}")
    if is_for_one_cut(settings["_target_"]):
        raise ConfigError(
            f"workflow.codecs has {name}, which is built, or trained, for one cut at a time "
            "(workflow=codec): list codecs for any cut, e.g. quant4 or topk_quant"
        )
    for key in varied:
        if key not in settings or key == "_target_":
            allowed = ", ".join(key for key in settings if key != "_target_") or "none"
            raise ConfigError(f"workflow.codecs: {name} has no setting {key}; it has: {allowed}")
    values = [list(value) if isinstance(value, list | ListConfig) else [value] for value in varied.values()]
    combinations = [dict(zip(varied, chosen, strict=True)) for chosen in itertools.product(*values)]
    return [_checked(Offer(name, one, settings | one)) for one in combinations]


def _checked(offer: Offer) -> Offer:
    try:
        codec = offer.make()
    except InstantiationException as exc:
        raise ConfigError(f"workflow.codecs, {offer.label}: {exc.__cause__ or exc}") from exc
    if not has_base(codec):
        raise codec.broken("__init__ must call super().__init__() before all else")
    return offer

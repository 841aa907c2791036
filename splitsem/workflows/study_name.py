"""The name of a study in its folder's name: what ran, on which task, with which codec; imports nothing heavy."""

import re
from collections.abc import Mapping, Sequence

from omegaconf import DictConfig

_OF_NO_TASK = ("measure_link", "report", "track", "zoo")
_OF_NO_CODEC = (*_OF_NO_TASK, "domains", "points", "profile", "train")
_SEVERAL = re.compile(r"""[^\[{'"][^\[{]*,|(choice|range|interval|glob)\(""")


def study_name(choices: Mapping[str, object], asked: Sequence[str]) -> str:
    """What tells a folder from others: experiment or workflow, task and codec, without what is swept.

    Args:
        choices: the option chosen of each group of the configuration.
        asked: the command line's settings.

    >>> study_name({"workflow": "split", "task": "digits", "codec": "quant4"}, ["task=digits", "codec=quant4"])
    'split-digits-quant4'
    >>> study_name({"workflow": "split", "task": "digits", "codec": "quant8"}, ["task=digits", "codec=quant2,quant8"])
    'split-digits'
    """
    given = dict(one.lstrip("+~").split("=", 1) for one in asked if "=" in one)
    swept = {name for name, value in given.items() if _SEVERAL.match(value)}
    workflow, experiment = str(choices["workflow"]), choices.get("experiment")
    parts = [str(experiment) if experiment else workflow]
    if workflow not in _OF_NO_TASK and "task" not in swept:
        parts.append(str(choices["task"]))
    has_codec = workflow not in _OF_NO_CODEC and "codec" not in swept
    if has_codec and (not experiment or "codec" in given):  # an experiment may sweep it
        parts.append(str(choices["codec"]))
    return "-".join(parts).replace("/", "_")


def study_name_of(*, _root_: DictConfig) -> str:
    """Resolver ``${study:}``: the name of the configured study."""
    return study_name(_root_.hydra.runtime.choices, _root_.hydra.overrides.task)

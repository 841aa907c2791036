"""Workflows federated and splitfed: clients train on samples of their own, and updates travel through the codec.

With ``splitfed`` a client holds the head only, and a server the tail. Both need Flower, which is imported here at last.
"""

from importlib.util import find_spec
from pathlib import Path

from omegaconf import DictConfig

from splitsem.errors import ConfigError
from splitsem.workflows.result import Result


def run(cfg: DictConfig, folder: Path) -> Result:
    """Train; leaves the global network's ``weights.safetensors`` in the run's folder, for ``trainer.weights=``."""
    _check_flower("federated")
    from splitsem.workflows.federated import rounds

    return rounds.run(cfg, folder)


def run_splitfed(cfg: DictConfig, folder: Path) -> Result:
    """Train; leaves the whole network's ``weights.safetensors`` in the run's folder, for ``trainer.weights=``."""
    _check_flower("splitfed")
    from splitsem.workflows.federated import splitfed

    return splitfed.run(cfg, folder)


def _check_flower(workflow: str) -> None:
    if find_spec("flwr") is None:
        raise ConfigError(f"workflow={workflow} needs Flower, the extra `federated`: pip install 'splitsem[federated]'")

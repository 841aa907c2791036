"""Workflow federated: clients train on samples of their own, a server averages; updates travel through the codec."""

from importlib.util import find_spec
from pathlib import Path

from omegaconf import DictConfig

from splitsem.errors import ConfigError
from splitsem.workflows.result import Result


def run(cfg: DictConfig, folder: Path) -> Result:
    """Train; leaves the global network's ``weights.safetensors`` in the run's folder, for ``trainer.weights=``."""
    if find_spec("flwr") is None:
        raise ConfigError("workflow=federated needs Flower, the extra `federated`: pip install 'splitsem[federated]'")
    from splitsem.workflows.federated import rounds as training

    return training.run(cfg, folder)


def run_splitfed(cfg: DictConfig, folder: Path) -> Result:
    """Train; leaves the whole network's ``weights.safetensors`` in the run's folder, for ``trainer.weights=``."""
    if find_spec("flwr") is None:
        raise ConfigError("workflow=splitfed needs Flower, the extra `federated`: pip install 'splitsem[federated]'")
    from splitsem.workflows.federated import splitfed as training

    return training.run(cfg, folder)

"""Workflow splitfed: clients hold heads, a server their common tail; features up, gradients down, heads averaged."""

from importlib.util import find_spec
from pathlib import Path

from omegaconf import DictConfig

from splitsem.errors import ConfigError
from splitsem.workflows.job import Result


def run_splitfed(cfg: DictConfig, folder: Path) -> Result:
    """Train; leaves the whole network's ``weights.safetensors`` in the run's folder, for ``trainer.weights=``."""
    if find_spec("flwr") is None:
        raise ConfigError("workflow=splitfed needs Flower, the extra `federated`: pip install 'splitsem[federated]'")
    from splitsem.workflows.splitfed import run as training

    return training.run(cfg, folder)

"""Workflows federated and splitfed: clients train on samples of their own, and updates travel through the codec.

With ``splitfed`` a client holds the head only, and a server the tail. Both need Flower, which is imported here at last.
"""

from pathlib import Path

from omegaconf import DictConfig

from splitsem import extras
from splitsem.workflows.result import Result


def run(cfg: DictConfig, folder: Path) -> Result:
    """Train; leaves the global network's ``weights.safetensors`` in the run's folder, for ``trainer.weights=``."""
    extras.check("federated", "workflow=federated")
    from splitsem.workflows.federated import rounds

    return rounds.run(cfg, folder)


def run_splitfed(cfg: DictConfig, folder: Path) -> Result:
    """Train; leaves the whole network's ``weights.safetensors`` in the run's folder, for ``trainer.weights=``."""
    extras.check("federated", "workflow=splitfed")
    from splitsem.workflows.federated import splitfed

    return splitfed.run(cfg, folder)

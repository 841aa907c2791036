"""Figures that a run does without: where the extra ``plots`` is not installed, one line says so and the run goes on."""

import logging
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from splitsem import extras
from splitsem.workflows.assemble import Network
from splitsem.workflows.drawing import Drawing
from splitsem.workflows.result import Metrics

if TYPE_CHECKING:
    from splitsem.workflows.gallery import Gallery

log = logging.getLogger(__name__)


def gallery_of(cfg: DictConfig, network: Network) -> "Gallery | None":
    """A gallery to fill, of ``workflow.gallery`` samples; None where that is 0, or nothing can be drawn."""
    if not cfg.workflow.gallery or not extras.has("plots"):
        return None
    from splitsem.workflows.gallery import fresh_gallery

    return fresh_gallery(cfg, network)


def breakdown(cfg: DictConfig, metrics: Metrics) -> dict[str, Drawing]:
    """The figure of where the time goes, by its file's name; a sweep's summary draws one of all its jobs instead."""
    if HydraConfig.get().mode == RunMode.MULTIRUN and cfg.workflow.summary:
        return {}
    if not extras.has("plots"):
        log.info("No figures: pip install 'splitsem[plots]' brings what draws them")
        return {}
    return {"breakdown": Drawing("splitsem.report.run_figures.run_breakdown", (metrics,))}

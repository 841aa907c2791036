"""Workflow profile: measure this machine on every half of a network and write the LUT that `hardware.*.lut=` takes."""

from pathlib import Path

from omegaconf import DictConfig
from tqdm import tqdm

from splitsem.cost.lut import measure_lut, write_lut
from splitsem.workflows import assemble
from splitsem.workflows.job import Result


def run(cfg: DictConfig, folder: Path) -> Result:
    """Time head and tail at every offered point on this machine; the LUT lands in the run's folder."""
    graph = assemble.network(cfg).graph
    halves = (half for point in graph.points for half in graph.cut(point).halves())
    bar = tqdm(halves, desc="Measuring heads and tails", total=2 * len(graph.points), unit="half")
    lut = measure_lut(bar, budget_s=cfg.workflow.budget_s)
    path = (folder / "lut.json").absolute()
    write_lut(lut, path)
    metrics = {"num_points": len(graph.points), "whole_s": lut.times["output"]["head"].median_s}
    return Result(metrics, {}, [], f"LUT of {len(graph.points)} points: {path}; use it as hardware.edge.lut={path}")

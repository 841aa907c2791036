"""Workflow points: the table of a model's split points, without training it."""

import csv
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig

from splitsem.report.terminal import points_table, terminal
from splitsem.workflows import own_model
from splitsem.workflows.assemble import split_graph
from splitsem.workflows.result import Result


def run(cfg: DictConfig, folder: Path) -> Result:
    """Print the crossing tensors of every offered cut and what each side holds; write the table to ``points.csv``."""
    task = instantiate(cfg.task)
    graph = split_graph(own_model.make(cfg.model, task), task, cfg.split.granularity)
    terminal().print(points_table(graph.points, task.input_bytes))
    rows = [point.row() for point in graph.points]
    with (folder / "points.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    metrics = {"num_points": len(rows), "num_bottlenecks": sum(p.is_bottleneck for p in graph.points)}
    return Result(metrics, {}, [], f"{len(rows)} split points; as a file: {folder / 'points.csv'}")

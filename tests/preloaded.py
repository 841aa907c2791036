"""Imported by the process that the tests' servers and commands are forked from: what most of them need."""

import importlib

import torch

from tests.integration import tail_device, tail_server, udp_ends  # noqa: F401
from tests.integration.network import small_network

torch.set_num_threads(1)  # a pool of threads does not survive a fork
small_network()
for name in (
    "lightning.pytorch",
    "matplotlib.pyplot",
    "mlflow.tracking",
    "pandas",
    "rich.progress",
    "seaborn",
    "sklearn.datasets",
    "splitsem.__main__",
    "splitsem.workflows.job",
    "sympy",
    "torch.export",
    "torchmetrics",
    "torchvision",
):
    importlib.import_module(name)

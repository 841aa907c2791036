"""PYTHONPATH=examples python run.py --config-dir=examples/conf task=my_pairs model=my_two_inputs split.point=input"""

import torch
from torchmetrics import MeanMetric


class AllRight(MeanMetric):
    """Share of the samples of which every output is right; outputs and targets are mappings of the same names."""

    def update(self, y_hat, y):
        """Count a batch: logits ``(batch, classes)`` and classes ``(batch,)`` by name."""
        super().update(torch.stack([y_hat[name].argmax(1) == y[name] for name in y]).all(0).float())

"""PYTHONPATH=examples python run.py --config-dir=examples/conf task=my_pairs model=my_two_inputs codec=quant8"""

import torch
from my_metric import AllRight
from my_pairs import Pairs
from torchmetrics import MetricCollection

from splitsem.tasks.answer import raw_coder


class DigitAndMore(Pairs):
    """Which digit is it, and is it more than the number? Outputs and targets are mappings, which all of this takes."""

    def loss(self, y_hat, y):  # noqa: D102
        return sum(torch.nn.functional.cross_entropy(y_hat[name], y[name]) for name in y)

    def metrics(self):  # noqa: D102
        return MetricCollection({"score": AllRight()})

    def answer_coder(self):  # noqa: D102
        return raw_coder(self.trial_outputs(1, 0)[1])

    def trial_outputs(self, batch, seed):  # noqa: D102
        torch.manual_seed(seed)
        return ({"digit": torch.randn(batch, 10), "is_more": torch.randn(batch, 2)},) * 2

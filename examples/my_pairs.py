"""PYTHONPATH=examples python run.py --config-dir=examples/conf task=my_pairs model=my_two_inputs split.point=look"""

import torch
from sklearn.datasets import load_digits
from torch.utils.data import random_split

from splitsem.tasks.task import Splits, Task


class Pairs(Task):
    """A digit's image and a number: a network gets both by their names; my_two_outputs.py says what is asked."""

    input_shape, output_shape, input_bytes = (), (), 65  # structures, which example and trial_outputs show

    def example(self):  # noqa: D102
        return {"image": torch.rand(1, 1, 8, 8), "number": torch.tensor([5])}

    def splits(self):  # noqa: D102
        data, draw = load_digits(), torch.Generator().manual_seed(0)
        numbers = torch.randint(10, (len(data.target),), generator=draw)
        images = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 16
        asked = [{"digit": d, "is_more": int(d > n)} for d, n in zip(data.target.tolist(), numbers, strict=True)]
        pairs = [({"image": x, "number": n}, y) for x, n, y in zip(images, numbers, asked, strict=True)]
        return Splits(*random_split(pairs, (0.6, 0.2, 0.2), draw))

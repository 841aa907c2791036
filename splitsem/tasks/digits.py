"""Digits: scikit-learn's 1,797 real handwritten digits, 8×8 grey; in memory, no download."""

import numpy as np
import torch

from splitsem import extras
from splitsem.tasks.classification import ClassificationTask, ImageTensors, hold_out
from splitsem.tasks.task import Splits

MAX_LEVEL = 16


class Digits(ClassificationTask):
    """Ten classes of 8×8 images, split 60/20/20, each class in proportion.

    Source: Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI repository, 1998 (its test part).

    Args:
        seed: which images are held out for val and test.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__(class_names=tuple("0123456789"), input_shape=(1, 8, 8))
        self.seed = seed

    def _load(self) -> Splits:
        with extras.needed("training", "task=digits"):
            from sklearn.datasets import load_digits

        digits = load_digits()
        # The grey levels are 0…16; on uint8's scale, so that PNG and JPEG carry the very picture that the network sees.
        levels = np.round(digits.images * (255 / MAX_LEVEL)).astype(np.uint8)
        images, labels = torch.from_numpy(levels).unsqueeze(1), torch.from_numpy(digits.target)
        rest, test = hold_out(labels, fraction=0.2, seed=self.seed)
        train, val = (rest[part] for part in hold_out(labels[rest], fraction=0.25, seed=self.seed))
        return Splits(*(ImageTensors(images[part], labels[part]) for part in (train, val, test)))

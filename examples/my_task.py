"""PYTHONPATH=examples python run.py --config-dir=examples/conf task=my_photos"""

import torch
from sklearn.datasets import load_sample_images

from splitsem.tasks.classification import ClassificationTask, ImageTensors, hold_out
from splitsem.tasks.task import Splits


class Photos(ClassificationTask):
    """Which of two photographs is this patch of 16×16 pixels of?"""

    def __init__(self) -> None:
        super().__init__(class_names=("temple", "flower"), input_shape=(3, 16, 16))

    def _load(self) -> Splits:
        photos = torch.stack([torch.tensor(photo) for photo in load_sample_images().images])  # uint8
        images = photos.unfold(1, 16, 16).unfold(2, 16, 16).reshape(-1, *self.input_shape)
        labels = torch.arange(2).repeat_interleave(len(images) // 2)
        rest, test = hold_out(labels, fraction=0.2, seed=0)
        train, val = (rest[part] for part in hold_out(labels[rest], fraction=0.25, seed=0))
        return Splits(*(ImageTensors(images[part], labels[part]) for part in (train, val, test)))

"""PYTHONPATH=examples python run.py --config-dir=examples/conf task=my_pairs model=my_two_inputs split.point=mix"""

from torch import nn


class Net(nn.Module):
    """Takes an image and a whole number by name, and returns two tensors by name; both halves carry any of them."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.look = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, width))
        self.number = nn.Embedding(10, width)
        self.mix = nn.Sequential(nn.Linear(width, width), nn.ReLU())
        self.digit, self.is_more = nn.Linear(width, 10), nn.Linear(width, 2)

    def forward(self, image, number):
        """Logits ``digit`` (batch, 10) and ``is_more`` (batch, 2), for ``image`` and ``number`` (batch,)."""
        seen = self.look(image)
        mixed = self.mix(seen + self.number(number))
        return {"digit": self.digit(seen), "is_more": self.is_more(mixed)}

"""PYTHONPATH=examples python run.py model=custom model._target_=my_model.Net split.point=stage2"""

from torch import Tensor, nn


class Net(nn.Module):
    """The constructor gets the task's shapes, without the batch, since it names them; split points: its parts."""

    def __init__(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...], width: int = 16) -> None:
        super().__init__()
        self.stage1 = nn.Sequential(nn.Conv2d(input_shape[0], width, 3, stride=2, padding=1), nn.ReLU())
        self.stage2 = nn.Sequential(nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.ReLU())
        self.classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, output_shape[0]))

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(batch, classes)``."""
        return self.classifier(self.stage2(self.stage1(x)))

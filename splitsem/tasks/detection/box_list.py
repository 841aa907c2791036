"""BoxList: the answer of a detector, 11 bytes a box; where there are more than 256 classes, 12."""

from collections.abc import Sequence

import torch
from torch import Tensor

from splitsem.detections import NUM_COLUMNS
from splitsem.tasks.answer import AnswerCoder
from splitsem_device.answer_reader import BoxRows

_FULL = 65_535


class BoxList(AnswerCoder):
    """The boxes of a picture: corners in 65,535ths of its longer side, scores in 65,535ths, class numbers.

    Corners outside the picture are moved to its edge; what is not finite, or has no area then, is left out. Scores in
    255ths would save a byte, and tie boxes of different pictures, which moves a mean average precision.

    Args:
        size: height and width of the network's input in pixels.
        num_classes: that the network tells apart.
        most: rows of the network's output.
    """

    drawn_as = "boxes"
    reader: BoxRows

    def __init__(self, size: Sequence[int], num_classes: int, most: int) -> None:
        height, width = size
        if min(height, width, most) < 1 or not 1 <= num_classes <= _FULL + 1:
            raise ValueError(f"size, num_classes and most must be at least 1, got {size}, {num_classes}, {most}")
        self.size, self.num_classes, self.most = (height, width), num_classes, most
        self.reader = BoxRows([height, width], num_classes, most)

    @property
    def name(self) -> str:
        """See AnswerCoder."""
        return f"boxes({self.most} of {self.num_classes} classes, {self.size[0]}x{self.size[1]})"

    def encode(self, output: Tensor) -> bytes:
        """See AnswerCoder; detections ``(1, most, 6)`` as in ``splitsem.detections``."""
        return self.reader.of_output(output.detach().float().cpu().numpy())

    def decode(self, answer: bytes | memoryview) -> Tensor:
        """The boxes, ``(n, 6)`` float32, as rows of ``splitsem.detections``. Raises PayloadError."""
        return torch.from_numpy(self.reader.read(answer))

    def as_output(self, answer: Tensor) -> Tensor:
        """See AnswerCoder: the boxes in the first rows, zeros in all others."""
        output = torch.zeros(1, self.most, NUM_COLUMNS)
        output[0, : len(answer)] = answer
        return output

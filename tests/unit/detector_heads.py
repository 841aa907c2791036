"""Heads as one-stage detectors have them; each takes pictures (batch, 3, S, S)."""

import torch
from torch import Tensor, nn

BINS = 4
CHANNELS = 4 * BINS + 3


class Scales(nn.Module):
    """Two maps of proposals, with strides 2 and 4."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1)
        self.out = nn.Conv2d(8, CHANNELS, 1)

    def maps(self, x: Tensor) -> list[Tensor]:
        fine = self.stem(x)
        return [self.out(fine), self.out(self.down(fine))]


class ListOfScales(Scales):
    """Several maps, as they are."""

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.maps(x)


class JoinedScales(Scales):
    """All places of all scales in one tensor; reads the batch's size."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([made.view(x.shape[0], CHANNELS, -1) for made in self.maps(x)], 2)


class AnchorsFromShapes(JoinedScales):
    """Boxes around places, which are made from the features' shapes and kept as attributes while the shape stays."""

    shape: torch.Size | None = None

    def forward(self, x: Tensor) -> Tensor:
        maps = self.maps(x)
        if self.shape != maps[0].shape:
            self.shape = maps[0].shape
            self.anchors, self.strides = _anchors(maps)
        box, by_class = super().forward(x).split((4 * BINS, 3), 1)
        batch, _, places = box.shape
        bins = box.view(batch, 4, BINS, places).transpose(2, 1).softmax(1)
        distance = (bins * torch.arange(float(BINS), device=x.device).view(1, BINS, 1, 1)).sum(1)
        low, high = distance.chunk(2, 1)
        first, second = self.anchors[None] - low, self.anchors[None] + high
        boxes = torch.cat(((first + second) / 2, second - first), 1) * self.strides
        return torch.cat((boxes, by_class.sigmoid()), 1)


class AnchorsInADict(AnchorsFromShapes):
    """The same, with the maps beside: a structure in which one tensor was made long before the other."""

    def forward(self, x: Tensor) -> dict[str, object]:
        return {"boxes": super().forward(x), "maps": self.maps(x)}


class LoudestFirst(nn.Module):
    """A postprocess that no graph can hold: how many places count depends on their values."""

    def __init__(self, most: int = 5) -> None:
        super().__init__()
        self.most = most

    def forward(self, found: Tensor) -> Tensor:
        packed = found.new_zeros(len(found), self.most, 6)
        for row, picture in zip(packed, found, strict=True):
            score, number = picture[4:].max(0)
            counted = torch.nonzero(score > score.mean())[:, 0][: self.most]
            row[: len(counted), :4] = picture[:4, counted].T
            row[: len(counted), 4], row[: len(counted), 5] = score[counted], number[counted].float()
        return packed


def _anchors(maps: list[Tensor]) -> tuple[Tensor, Tensor]:
    points, strides = [], []
    for made, stride in zip(maps, (2.0, 4.0), strict=True):
        height, width = made.shape[2:]
        x = torch.arange(width, device=made.device, dtype=made.dtype) + 0.5
        y = torch.arange(height, device=made.device, dtype=made.dtype) + 0.5
        rows, columns = torch.meshgrid(y, x, indexing="ij")
        points.append(torch.stack((columns, rows), -1).view(-1, 2))
        strides.append(torch.full((height * width, 1), stride, dtype=made.dtype, device=made.device))
    return torch.cat(points).T, torch.cat(strides).T

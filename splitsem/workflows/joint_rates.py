"""The rate–accuracy table of a network: every split point with every codec, by real bytes on the validation split."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor
from tqdm import tqdm

from splitsem.errors import ConfigError
from splitsem.pipeline import Features, Frames, Pipeline, features
from splitsem.split.point import SplitPoint
from splitsem.transport.link import Link
from splitsem.workflows.assemble import Network
from splitsem.workflows.joint_codecs import Offer
from splitsem.workflows.joint_store import Document

if TYPE_CHECKING:
    from torchmetrics import MetricCollection


@dataclass
class _Row:
    """One codec at one split point, while samples go through it."""

    offer: Offer
    pipeline: Pipeline
    metrics: "MetricCollection"
    frames: Frames = field(default_factory=Frames)
    left_out: str | None = None

    def add(self, made: Sequence[Features], y: Tensor) -> None:
        """Run one batch from its features on; a codec that cannot carry them is left out from here on."""
        if self.left_out is not None:
            return
        try:
            output = self.pipeline.finish(made, self.frames)
        except (ConfigError, ValueError) as exc:  # what codecs raise for tensors that they cannot represent
            self.left_out = str(exc)
            return
        self.metrics.update(output.float().cpu(), y)

    def document(self, point: SplitPoint) -> Document:
        """Means a sample; times of the codec are medians, on this machine."""
        known: Document = {
            "lambda": point.index,
            "split_point": point.name,
            "codec": self.offer.label,
            "overrides": f"split.point={point.name} {self.offer.overrides}",
            "offered": self.offer.is_offered,
            "raw_bytes": point.raw_bytes,
            "left_out": self.left_out,
        }
        measured = ("payload_bytes", "encode_s", "decode_s", "link_s", "link_j", "score", "distortion_mse", "num_lost")
        if self.left_out is not None:
            return known | dict.fromkeys(measured)
        frames = self.frames
        values = (
            statistics.fmean(frames.payload_bytes),
            statistics.median(frames.encode_s),
            statistics.median(frames.decode_s),
            statistics.fmean(frames.link_s),
            statistics.fmean(frames.link_j),
            float(self.metrics.compute()["score"]),
            frames.distortion_mse,
            frames.num_lost,
        )
        return known | dict(zip(measured, values, strict=True))


def measure_rates(
    network: Network, offers: Sequence[Offer], link: Callable[[], Link], batches: Sequence[tuple[Tensor, Tensor]]
) -> list[Document]:
    """A row for each split point and codec, in the order of the network and then of the codecs.

    The head runs once a batch and point, for all codecs. Rows that a codec cannot carry have a reason in ``left_out``
    and None for what was to be measured.

    Args:
        network: trained.
        offers: the codecs.
        link: makes a fresh link, of the same seed each time.
        batches: of the validation split, on the network's device.
    """
    points = network.graph.points
    bar = tqdm(desc="Scoring codecs at split points", total=len(points) * len(offers) * len(batches), unit="batch")
    with bar:
        return [row for point in points for row in _at(network, point, offers, link, batches, bar)]


def _at(
    network: Network,
    point: SplitPoint,
    offers: Sequence[Offer],
    link: Callable[[], Link],
    batches: Sequence[tuple[Tensor, Tensor]],
    bar: tqdm,
) -> Iterator[Document]:
    cut = network.graph.cut(point)
    rows = [_Row(o, Pipeline(cut, o.make(), o.make(), link()), network.task.metrics()) for o in offers]
    for x, y in batches:
        made = features(cut, x)
        for row in rows:
            row.add(made, y)
            bar.update()
    return (row.document(point) for row in rows)

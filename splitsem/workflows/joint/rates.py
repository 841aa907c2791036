"""The rate–accuracy table of a network: every split point with every codec, by real bytes on the validation split."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from tqdm import tqdm

from splitsem.errors import ConfigError
from splitsem.pipeline import Features, Frames, Pipeline, features
from splitsem.split.point import SplitPoint
from splitsem.tasks.task import Task
from splitsem.transport.link import Link
from splitsem.workflows.assemble import Network
from splitsem.workflows.joint.codecs import Offer
from splitsem.workflows.joint.store import Document

_NUM_PARTS = 20


class _Scores:
    """The score of a data set, and of each of some parts of it, from which the noise of a difference is known."""

    def __init__(self, task: Task, num_samples: int) -> None:
        self.num_samples, self.num_seen = num_samples, 0
        self.whole, self.parts = task.metrics(), [task.metrics() for _ in range(min(_NUM_PARTS, num_samples))]

    def update(self, output: Tensor, y: Tensor) -> None:
        """Add a batch."""
        self.whole.update(output, y)
        place = torch.arange(self.num_seen, self.num_seen + len(y)) * len(self.parts) // self.num_samples
        for part in place.unique().tolist():
            self.parts[part].update(output[place == part], y[place == part])
        self.num_seen += len(y)

    @property
    def score(self) -> float:
        """Of the whole."""
        return float(self.whole.compute()["score"])

    def part_scores(self) -> list[float]:
        """Of each part."""
        return [float(part.compute()["score"]) for part in self.parts]


def damage_error(scores: Sequence[float], scores_ref: Sequence[float]) -> float:
    """Standard error of the mean of ``scores_ref − scores``, two networks' scores of the same parts of a data set.

    A codec that changes nothing has none, however few the samples; one accuracy's own standard error knows nothing of
    that.

    >>> damage_error([0.5, 0.75, 1.0], [0.5, 0.75, 1.0]), damage_error([0.5, 0.5], [0.5, 0.75])
    (0.0, 0.125)
    """
    if len(scores) < 2:
        return 0.0
    differences = [ref - score for score, ref in zip(scores, scores_ref, strict=True)]
    return statistics.stdev(differences) / len(differences) ** 0.5


@dataclass
class _Row:
    """One codec at one split point, while samples go through it."""

    offer: Offer
    pipeline: Pipeline
    scores: _Scores
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
        self.scores.update(output.float().cpu(), y)

    def document(self, point: SplitPoint, parts_ref: Sequence[float]) -> Document:
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
        measured = (
            "payload_bytes",
            "encode_s",
            "decode_s",
            "link_s",
            "link_j",
            "score",
            "damage_error",
            "distortion_mse",
            "num_lost",
        )
        if self.left_out is not None:
            return known | dict.fromkeys(measured)
        frames = self.frames
        values = (
            statistics.fmean(frames.payload_bytes),
            statistics.median(frames.encode_s),
            statistics.median(frames.decode_s),
            statistics.fmean(frames.link_s),
            statistics.fmean(frames.link_j),
            self.scores.score,
            damage_error(self.scores.part_scores(), parts_ref),
            frames.distortion_mse,
            frames.num_lost,
        )
        return known | dict(zip(measured, values, strict=True))


def measure_rates(
    network: Network, offers: Sequence[Offer], link: Callable[[], Link], batches: Sequence[tuple[Tensor, Tensor]]
) -> tuple[float, list[Document]]:
    """A_ref, of the network that is not split, and a row for each split point and codec, in this order.

    The head runs once a batch and point, for all codecs. Rows that a codec cannot carry have a reason in ``left_out``
    and None for what was to be measured.

    Args:
        network: trained.
        offers: the codecs.
        link: makes a fresh link, of the same seed each time.
        batches: of the validation split, on the network's device.
    """
    num_samples = sum(len(y) for _, y in batches)
    reference = _Scores(network.task, num_samples)
    with torch.inference_mode():
        for x, y in batches:
            reference.update(network.model(x).float().cpu(), y)
    points = network.graph.points
    bar = tqdm(desc="Scoring codecs at split points", total=len(points) * len(offers) * len(batches), unit="batch")
    with bar:
        rows = [row for point in points for row in _at(network, point, offers, link, batches, reference, bar)]
    return reference.score, rows


def _at(
    network: Network,
    point: SplitPoint,
    offers: Sequence[Offer],
    link: Callable[[], Link],
    batches: Sequence[tuple[Tensor, Tensor]],
    reference: _Scores,
    bar: tqdm,
) -> Iterator[Document]:
    cut = network.graph.cut(point)
    task, num_samples = network.task, reference.num_samples
    rows = [_Row(o, Pipeline(cut, o.make(), o.make(), link()), _Scores(task, num_samples)) for o in offers]
    for x, y in batches:
        made = features(cut, x)
        for row in rows:
            row.add(made, y)
            bar.update()
    parts_ref = reference.part_scores()
    return (row.document(point, parts_ref) for row in rows)

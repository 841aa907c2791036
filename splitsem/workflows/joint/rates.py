"""The rate–accuracy table of a network: every split point with every codec, by real bytes on the validation split."""

import statistics
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from splitsem.errors import ConfigError
from splitsem.intervals import ci95
from splitsem.json_files import finite
from splitsem.links.link import Link
from splitsem.pipeline import Answering, Features, Frames, Pipeline
from splitsem.scoring import check_found, plain
from splitsem.splitting.point import SplitPoint
from splitsem.tasks.task import Task
from splitsem.trees import mapped, num_samples, sliced
from splitsem.workflows import pasted
from splitsem.workflows.assemble import Network
from splitsem.workflows.codec_offers import REFERENCE, Offer
from splitsem.workflows.joint.base import Document
from splitsem.workflows.shared_features import Batch, SharedFeatures

_MOST_BYTES = 10**9  # of features that are kept for the next cut
_NUM_PARTS = 20  # of a data set: their scores tell the noise of a difference


class _Scores:
    """The score of a data set, and the scores of parts of the set, which tell the noise of a difference."""

    def __init__(self, task: Task, num_samples: int) -> None:
        self.num_samples, self.num_seen = num_samples, 0
        self.whole, self.parts = task.metrics(), [task.metrics() for _ in range(min(_NUM_PARTS, num_samples))]

    def update(self, output: Any, y: Any) -> None:
        """Add a batch."""
        self.whole.update(output, y)
        seen = self.num_seen + num_samples(y)
        place = torch.arange(self.num_seen, seen) * len(self.parts) // self.num_samples
        parts, sizes = (found.tolist() for found in place.unique(return_counts=True))
        for part, of_output, of_y in zip(parts, sliced(output, sizes), sliced(y, sizes), strict=True):
            self.parts[part].update(of_output, of_y)
        self.num_seen = seen

    @property
    def score(self) -> float:
        """Score of the whole data set."""
        return float(self.whole.compute()["score"])

    def part_scores(self) -> list[float]:
        """Score of each part."""
        return [float(part.compute()["score"]) for part in self.parts]


def damage_error(scores: Sequence[float], scores_ref: Sequence[float]) -> float:
    """Standard error of the mean of ``scores_ref − scores``, two networks' scores of the same parts of a data set.

    The error of a codec that changes nothing is 0, however few the samples; the standard error of a single accuracy
    would not be.

    >>> damage_error([0.5, 0.75, 1.0], [0.5, 0.75, 1.0]), damage_error([0.5, 0.5], [0.5, 0.75])
    (0.0, 0.125)
    """
    if len(scores) < 2:
        return 0.0
    differences = [ref - score for score, ref in zip(scores, scores_ref, strict=True)]
    return statistics.stdev(differences) / len(differences) ** 0.5


def damage_ci95(scores: Sequence[float], scores_ref: Sequence[float]) -> float:
    """Half the width of the 95 % interval of the mean of ``scores_ref − scores``; 0 where there is one part alone."""
    return ci95([ref - score for score, ref in zip(scores, scores_ref, strict=True)]) or 0.0


MEANS = ("payload_bytes", "link_s", "link_busy_s", "link_j", "answer_bytes", "answer_s", "answer_busy_s")
MEDIANS = ("encode_s", "decode_s", "answer_encode_s", "answer_decode_s")
SIZES = "payload_sizes"
"""The key of each coded sample's bytes, in order: what another link is asked for, since a mean of sizes has no time."""
_SCORED = ("score", "damage_error", "damage_ci95", "distortion_mse", "num_lost")


def error_of(name: str) -> str:
    """The column that has the standard error of a mean over samples."""
    return f"{name}_error"


@dataclass
class _Row:
    """One codec at one split point, while samples go through it."""

    offer: Offer
    pipeline: Pipeline
    scores: _Scores
    frames: Frames = field(default_factory=Frames)
    left_out: str | None = None

    def add(self, made: Sequence[Features], y: Any, coded: Sequence[Features] | None) -> None:
        """Run one batch from its features on; a codec that cannot carry the features is left out from then on.

        Where only some samples of the batch are ``coded``, all of them are scored in memory.
        """
        if self.left_out is not None:
            return
        try:
            output = self.pipeline.finish(made, self.frames) if coded is None else self.pipeline.in_memory(made)
            if coded:
                self.pipeline.finish(coded, self.frames)
        except (ConfigError, ValueError) as exc:  # what codecs raise for tensors that they cannot represent
            self.left_out = str(exc)
            return
        self.scores.update(mapped(plain, output), y)

    def document(self, point: SplitPoint, parts_ref: Sequence[float]) -> Document:
        """The table's row: means a sample; times of the codec are medians, on this machine."""
        known: Document = {
            "lambda": point.index,
            "split_point": point.name,
            "codec": self.offer.label,
            "overrides": f"{pasted.words([pasted.setting('split.point', point.name)])} {self.offer.overrides}",
            "offered": self.offer.is_offered,
            "raw_bytes": point.raw_bytes,
            "left_out": self.left_out,
            "num_coded": len(self.frames.payload_bytes),
        }
        if self.left_out is not None:
            return known | dict.fromkeys((*MEANS, *map(error_of, MEANS), *MEDIANS, *_SCORED, SIZES))
        frames, parts = self.frames, self.scores.part_scores()
        values = {name: statistics.fmean(getattr(frames, name) or [0.0]) for name in MEANS}
        values |= {error_of(name): _error(getattr(frames, name)) for name in MEANS}
        values |= {name: statistics.median(getattr(frames, name) or [0.0]) for name in MEDIANS}
        scored = (self.scores.score, damage_error(parts, parts_ref), damage_ci95(parts, parts_ref))
        counted = (finite(frames.distortion_mse), frames.num_lost)
        return known | values | dict(zip(_SCORED, (*scored, *counted), strict=True)) | {SIZES: frames.payload_bytes}


def _error(values: Sequence[float]) -> float:
    """Standard error of the mean."""
    return statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0


class Coded(NamedTuple):
    """How much of a table is measured by real bytes.

    Attributes:
        step: each ``step``-th sample is coded; all are scored in memory, which over a clean link tells what the bytes
            tell. 1: all are coded, and scored by their bytes.
        rows: the rows that are made, as names of split point and codec; None: all.
    """

    step: int = 1
    rows: Collection[tuple[str, str]] | None = None


def measure_rates(
    network: Network,
    offers: Sequence[Offer],
    link: Callable[[], Link],
    batches: Sequence[tuple[Any, Any]],
    answer: Answering,
    coded: Coded,
) -> tuple[float, list[Document]]:
    """A_ref, the accuracy of the unsplit network, and a row for each split point and codec, in that order.

    At ``output`` no codec is at work, so that point has one row, which may be chosen. The head runs once a batch and
    point, for all codecs. Where a codec cannot carry the features, the row has a reason
    in ``left_out`` and None for each measure.

    Args:
        network: the trained network.
        offers: the codecs.
        link: makes a fresh link, with an equal seed each time.
        batches: batches of the validation split, where the network runs.
        answer: what becomes of the output.
        coded: what is measured by real bytes.
    """
    reference = _Scores(network.task, sum(num_samples(y) for _, y in batches))
    with torch.inference_mode():
        for x, y in batches:
            reference.update(mapped(plain, network.run(x)), y)
    check_found(network.task, reference.score, "validation")
    points = network.graph.points
    stays = [offer._replace(is_offered=True) for offer in offers if offer.label == REFERENCE]
    asked = [(point, stays if point.name == "output" else offers) for point in points]
    if coded.rows is not None:
        asked = [(point, [offer for offer in some if (point.name, offer.label) in coded.rows]) for point, some in asked]
    shared = SharedFeatures(_MOST_BYTES)
    num_rows = sum(len(some) for _, some in asked)
    bar = tqdm(desc="Scoring codecs at split points", total=num_rows * len(batches), unit="batch", disable=None)
    with bar:
        rows: list[Document] = []
        for point, some in asked:
            if not some:
                continue
            cut = network.graph.cut(point)
            pipelines = [Pipeline(cut, offer.make(), offer.make(), link(), answer) for offer in some]
            made = (shared.at(network.graph, cut, Batch("", "val", number), x) for number, (x, _) in enumerate(batches))
            rows += _at(network.task, some, pipelines, _with_coded(made, batches, coded.step), reference, bar)
    return reference.score, rows


def _at(
    task: Task,
    offers: Sequence[Offer],
    pipelines: Sequence[Pipeline],
    samples: Iterable[tuple[Sequence[Features], Any, Sequence[Features] | None]],
    reference: _Scores,
    bar: tqdm,
) -> Iterator[Document]:
    cut, num = pipelines[0].cut, reference.num_samples
    rows = [_Row(offer, pipeline, _Scores(task, num)) for offer, pipeline in zip(offers, pipelines, strict=True)]
    for made, y, coded in samples:
        for row in rows:
            row.add(made, y, coded)
            bar.update()
    parts_ref = reference.part_scores()
    return (row.document(cut.point, parts_ref) for row in rows)


def _with_coded(
    made: Iterable[Sequence[Features]], batches: Sequence[tuple[Any, Any]], step: int
) -> Iterator[tuple[Sequence[Features], Any, Sequence[Features] | None]]:
    """Features and targets of each batch, and those features that are coded; None: all."""
    seen = 0
    for groups, (_, y) in zip(made, batches, strict=True):
        yield groups, y, None if step == 1 else _every(step, groups, seen)
        seen += num_samples(y)


def _every(step: int, made: Sequence[Features], num_before: int) -> list[Features]:
    """The features of each ``step``-th sample, where the batch comes after so many samples."""
    first = -num_before % step
    if len(made) > 1 or made[0].num_samples == 1:
        return list(made[first::step])
    z = tuple(tensor[first::step] for tensor in made[0].z)
    return [Features(z, len(z[0]))] if len(z[0]) else []

"""Replay: the test split encoded once, then carried over many links and seeds, decoded and scored each time."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor

from splitsem.codecs.codec import Codec, Tensors
from splitsem.codecs.expected import Expected
from splitsem.intervals import ci95
from splitsem.links.link import Link
from splitsem.pipeline import Answering, Features, Frames, come_back, features, is_like, samples, stay
from splitsem.scoring import plain
from splitsem.splitting.cut import Cut
from splitsem.tasks.task import Task
from splitsem.trees import joined, mapped
from splitsem.workflows.early_exit import EarlyExit, Parted
from splitsem.workflows.result import Metrics

Row = dict[str, float | str | None]


class _Batch(NamedTuple):
    payloads: list[bytes]
    protected_bytes: list[int]
    local: list[Tensor | None]
    y: Any
    output: Any = None  # of a network that runs on the edge as a whole
    parted: Parted | None = None  # by an early exit; the payloads are of the samples that go on


class Recording:
    """The payloads of an evaluation: the head and ``encode`` run here, once.

    What ``play`` gives for a link equals what ``Pipeline`` gives for it over the same samples, timings and distortion
    aside.

    Args:
        cut: head and tail.
        codec: encodes on the edge.
        batches: ``(x, y)``, on the device that the head is on.
        answering: see ``Pipeline``.
        head: gives the features of each batch in turn, where they are there already.
        early: the exit at the cut, with its threshold.
    """

    @torch.inference_mode()
    def __init__(
        self,
        cut: Cut,
        codec: Codec,
        batches: Iterable[tuple[Any, Any]],
        answering: Answering | None = None,
        head: Callable[[Any], Sequence[Features]] | None = None,
        early: EarlyExit | None = None,
    ) -> None:
        self.cut, self.codec, self.answering = cut, codec, answering
        self._stays = answering is not None and cut.point.name == "output"
        self._batches: list[_Batch] = []
        self._like: Tensors = ()
        for x, y in batches:
            made = features(cut, x) if head is None else head(x)
            if self._stays:
                self._batches.append(_Batch([], [], [], y, joined([cut.tail(*group.z) for group in made])))
                continue
            parted = None if early is None else early.part(made[0])
            made = made if parted is None else [parted.rest] if parted.rest is not None else []
            z = [sample for group in made for sample in samples(group.z, group.num_samples, cut.point.is_batched)]
            payloads = [codec.payload(sample) for sample in z]
            protected_bytes = [codec.protected_bytes(payload) for payload in payloads]
            local = [codec.local_output(sample) for sample in z]
            self._batches.append(_Batch(payloads, protected_bytes, local, y, parted=parted))
            if z:
                self._like = tuple(torch.zeros_like(tensor, device="cpu") for tensor in z[0])

    @torch.inference_mode()
    def play(self, decoder: Codec, link: Link, task: Task) -> tuple[dict[str, float], Frames]:
        """Carry every payload over ``link``, decode, run the tail; returns the task's metrics and the link's counts.

        The tail is the decoder's own where it brings one. What is lost or cannot be read arrives as zeros, as in
        ``Pipeline``.
        """
        metrics, frames = task.metrics(), Frames()
        cut = self.cut.with_tail(decoder.tail)
        for batch in self._batches:
            if batch.output is not None and self.answering is not None:
                output = stay(batch.output, self.answering, link, frames)
            else:
                own = None
                if batch.parted is not None and self.answering is not None:
                    own = batch.parted.stay(self.answering, link, frames)
                output = self._finish(batch, cut, decoder, link, frames) if batch.payloads else None
                output = output if batch.parted is None else batch.parted.joined(own, output)
            metrics.update(mapped(plain, output), batch.y)
        return {name: float(value) for name, value in metrics.compute().items()}, frames

    def _finish(self, batch: _Batch, cut: Cut, decoder: Codec, link: Link, frames: Frames) -> Any:
        z_hat, is_lost = self._receive(batch, decoder, link, frames)
        return come_back(self.codec, batch.local, is_lost, self._run(cut, z_hat), link, frames, self.answering)

    def _receive(self, batch: _Batch, decoder: Codec, link: Link, frames: Frames) -> tuple[list[Tensors], list[bool]]:
        """What the tail receives of each sample, zeros where it is lost, and whether it is."""
        arrived: list[bytes] = []
        snr_db: list[float | None] = []
        places: list[int] = []
        for place, (payload, protected_bytes) in enumerate(zip(batch.payloads, batch.protected_bytes, strict=True)):
            report = link.send(payload, protected_bytes)
            frames.add(payload, report)
            if report.payload is not None:
                arrived.append(report.payload)
                snr_db.append(report.snr_db)
                places.append(place)
        z_hat = [self._like] * len(batch.payloads)
        is_lost = [True] * len(batch.payloads)
        with decoder.expecting(Expected.like(self._like)):
            read = decoder.decode_all(arrived, snr_db)
        for place, tensors in zip(places, read, strict=True):
            if tensors is not None and is_like(self._like, tensors):
                z_hat[place], is_lost[place] = tensors, False
        frames.num_lost += sum(is_lost)
        return z_hat, is_lost

    def _run(self, cut: Cut, z_hat: list[Tensors]) -> Any:
        if not cut.point.is_batched:
            return joined([cut.tail(*cut.received(sample)) for sample in z_hat])
        return cut.tail(*cut.received([torch.cat(tensors) for tensors in zip(*z_hat, strict=True)]))


def play_all(
    recording: Recording,
    decoder: Codec,
    task: Task,
    links: Mapping[str | float, Callable[[int], Link]],
    seeds: Sequence[int],
) -> list[Row]:
    """A row for each link and seed: ``link``, ``seed``, the task's metrics, and what ``seen`` counts.

    Args:
        recording: made once, of the codec's encoder.
        decoder: may be the encoder itself.
        task: what is scored.
        links: by label (an SNR, a name): makes a link with the given seed.
        seeds: of the channel.

    Returns:
        Rows for a DataFrame; ``plots.score_channel`` draws them.
    """
    rows: list[Row] = []
    for label, make in links.items():
        for seed in seeds:
            scores, frames = recording.play(decoder, make(seed), task)
            rows.append({"link": label, "seed": seed, **scores, **seen(frames)})
    return rows


def seen(frames: Frames) -> Row:
    """What the link did: means a sample, but ``ber`` (errors / bits on the air) and ``num_lost`` (samples)."""
    return {
        "snr_db": statistics.fmean(frames.snr_db) if frames.snr_db else None,
        "ber": frames.ber,
        "bit_errors": frames.bit_errors / len(frames.payload_bytes),
        "payload_bytes": statistics.fmean(frames.payload_bytes),
        "wire_bytes": statistics.fmean(frames.wire_bytes),
        "link_s": statistics.fmean(frames.link_s),
        "num_resends": frames.num_resends / len(frames.payload_bytes),
        "num_lost": frames.num_lost,
        "num_samples": len(frames.payload_bytes),
    }


def repeat(
    transport: DictConfig,
    recording: Recording,
    decoder: Codec,
    task: Task,
    first: tuple[dict[str, float], Frames],
    num_seeds: int,
) -> Metrics:
    """What a split run over a lossy link reports beside, or instead of, what its first seed alone gave.

    Means over the seeds: the task's metrics, ``num_lost``, ``bit_errors`` (wrong bits of a payload that arrived, a
    sample). ``ber``: wrong bits / bits on the air, before any correction, over all seeds. ``score_ci95``: half the
    95 % interval over the seeds, from two seeds on. ``score_clean``: the same payloads over the carrier alone.

    Args:
        transport: the link's settings.
        recording: the payloads.
        decoder: of the codec.
        task: what is scored.
        first: scores and frames of the seed that ``transport`` names.
        num_seeds: how many seeds in all, counted up from that one.
    """
    seeds = range(transport.seed + 1, transport.seed + num_seeds)
    runs = [first, *(recording.play(decoder, instantiate(transport, seed=seed), task) for seed in seeds)]
    clean, _ = recording.play(decoder, instantiate(transport.carrier), task)
    frames = [f for _, f in runs]
    num_samples = len(frames[0].payload_bytes)
    metrics: Metrics = {name: statistics.fmean(scores[name] for scores, _ in runs) for name in first[0]}
    metrics |= {
        "score_clean": clean["score"],
        "channel_seeds": num_seeds,
        "num_lost": statistics.fmean(f.num_lost for f in frames),
        "bit_errors": statistics.fmean(f.bit_errors / num_samples for f in frames),
        "ber": sum(f.air_errors for f in frames) / max(sum(f.air_bits for f in frames), 1),
        "num_resends": statistics.fmean(f.num_resends / num_samples for f in frames),
    }
    if (interval := ci95([scores["score"] for scores, _ in runs])) is not None:
        metrics |= {"score_ci95": interval, "interval_over": "channel seeds"}
    if any(f.snr_db for f in frames):
        metrics["snr_db"] = statistics.fmean(value for f in frames for value in f.snr_db)
    return metrics

"""One cut, codec, link and pair of machines: scored on validation and test, and priced on test."""

import itertools
import json
import logging
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from hydra.utils import instantiate
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch import Tensor, nn

from splitsem.codecs.codec import Codec
from splitsem.cost.end_to_end import Cost, StageTimes
from splitsem.cost.machines import Machine
from splitsem.intervals import NUM_PARTS, half_width, median_half_width, wander
from splitsem.json_files import finite
from splitsem.links.link import Link
from splitsem.pipeline import Features, Frames, Pipeline, features, stay
from splitsem.scoring import Batches, Scored, check_found, score_samples
from splitsem.splitting.cut import Cut
from splitsem.splitting.half import Half
from splitsem.tasks.classification import ClassificationTask
from splitsem.tasks.task import Task
from splitsem.workflows import assemble, replay
from splitsem.workflows.assemble import Network, Whole
from splitsem.workflows.early_exit import EarlyExit
from splitsem.workflows.replay import Recording
from splitsem.workflows.result import Metrics
from splitsem.workflows.shared_features import Batch, SharedFeatures

Scorer = Callable[[Callable[[Tensor], Tensor], Task, Batches, nn.Module], Scored]
log = logging.getLogger(__name__)
_unsplit: dict[tuple[Any, ...], Scored] = {}


class Evaluation(NamedTuple):
    """What one configuration does.

    Attributes:
        metrics: the contract's metrics of a split run.
        draws: its score on bootstrap draws, see ``scoring.Scored``: ``val`` and ``test``, where there are draws.
    """

    metrics: Metrics
    draws: Mapping[str, NDArray[np.float32]]


def scores(run: Callable[[Tensor], Tensor], task: Task, batches: Callable[[str], Batches]) -> Metrics:
    """The task's metrics on test with the score's interval, and the score on validation, by which runs are compared.

    Args:
        run: gives the outputs of a batch.
        task: what is scored.
        batches: of a split, by its name: ``val`` or ``test``.
    """
    test = score_samples(run, task, batches("test"))
    check_found(task, test.metrics["score"], "test")
    val = score_samples(run, task, batches("val"))
    metrics: Metrics = {
        **test.metrics,
        "score_name": task.score_name,
        "num_samples": test.num_samples,
        "interval_over": "samples",
    }
    if test.draws is not None:
        metrics["score_ci95"] = half_width(test.draws)
    return metrics | {"score_val": val.metrics["score"], "num_val_samples": val.num_samples}


def evaluate(
    cfg: DictConfig,
    network: Network,
    cut: Cut,
    encoder: Codec,
    decoder: Codec,
    channel_seeds: int = 1,
    measured: Link | None = None,
    scorer: Scorer | None = None,
    shared: SharedFeatures | None = None,
    early: EarlyExit | None = None,
) -> Evaluation:
    """Run both held-out splits through ``cut``, and price what the test split sent.

    Whoever chooses a configuration takes ``score_val`` and what is named ``_val``; ``score`` is for the report of what
    was chosen. A tail that was tuned with the codec takes the place of the network's own, in the scores and in the
    times. The link is the configured one, or one that was ``measured``. Over a lossy one, test scores are means over
    ``channel_seeds`` runs of its channel, see ``replay.repeat``. A ``scorer`` takes the place of ``score_samples`` on
    the test split, and the tail, too. Features come from what is ``shared`` with evaluations of other cuts and codecs.
    With an ``early`` exit, bytes, times and energy are means over the samples that exit and those that go on; its
    threshold is chosen here, on validation.
    """
    task, point, cut = network.task, cut.point, cut.with_tail(decoder.tail)
    frames, answer = Frames(), assemble.answering(cfg, task, network.graph)
    link = measured or assemble.simulated_link(cfg)
    unsplit = {split: score_unsplit(cfg, network, split) for split in ("test", "val")}
    pipeline = Pipeline(cut, encoder, decoder, link, answer)
    began = time.perf_counter()
    heads = partial(_heads, cfg, network, cut, shared)
    validated = _validated(cfg, network, pipeline, heads("val"), early)
    samples, head = batches(cfg, network, "test"), heads("test")
    finish = pipeline.finish
    if early is not None:
        samples, finish = early.noting(samples), partial(early.finish, pipeline)
    scored_by = scorer or (lambda run, task, samples, _: score_samples(run, task, samples))
    test = scored_by(lambda x: finish(head(x), frames), task, samples, cut.tail)
    seen = frames if early is None else frames + early.frames
    evaluation_s = time.perf_counter() - began
    repeated: Metrics = {}
    if link.is_lossy:
        recording = Recording(cut, encoder, batches(cfg, network, "test"), answer, heads("test"), early)
        first = test.metrics, seen
        repeated = replay.repeat(cfg.transport, recording, decoder, task, first, channel_seeds)
    edge, server = instantiate(cfg.hardware.edge), instantiate(cfg.hardware.server)
    example = heads("example")(cut.example)
    halves = cut.halves(example[0].z if len(example) == 1 else None)
    exit_s = 0.0 if early is None else early.time_s(edge, halves[1].example)
    times = stage_times(halves, frames, edge, server, link, None if early is None else early.frames, exit_s)
    cost = Cost.of(edge, times, statistics.fmean(seen.link_j))
    sizes: Metrics = {"payload_bytes": statistics.fmean(seen.payload_bytes)}
    if sizes["payload_bytes"]:
        sizes["compression_ratio"] = point.raw_bytes / sizes["payload_bytes"]
    if seen.answer_bytes:
        sizes["answer_bytes"] = sum(seen.answer_bytes) / len(seen.payload_bytes)  # as of payloads: over all samples
    metrics = {
        **test.metrics,
        "score_name": task.score_name,
        **compared(test, unsplit["test"]),
        "interval_over": "samples",
        "score_val": validated.metrics["score"],
        **compared(validated, unsplit["val"], "_val"),
        "split_point": point.name,
        "split_index": point.index,
        "num_samples": test.num_samples,
        "num_val_samples": validated.num_samples,
        "num_lost": seen.num_lost,
        "raw_bytes": point.raw_bytes,
        **sizes,
        "wire_bytes": statistics.fmean(seen.wire_bytes),
        "input_bytes": task.input_bytes,
        "encoder_bytes": encoder.encoder_bytes,
        "distortion_mse": finite(seen.distortion_mse),
        "evaluation_s": evaluation_s,
        "answer": answer.coder.name,
        "answer_at": answer.at,
        "edge_timing": edge.timing,
        "link_timing": "measured" if measured else "simulated",
        "server_timing": server.timing,
        "coding_timing": "measured" if edge.coding_bytes_per_s is server.coding_bytes_per_s is None else "scaled",
        **{f"link_{name}": value for name in ("bandwidth_bps", "rtt_s") if (value := getattr(link, name)) is not None},
        "link_delay_s": statistics.fmean(seen.link_delay_s),
        **cost.to_metrics(),
        **coding_spread(frames, times),
        **({} if early is None else {**early.metrics(), "exit_s": exit_s}),
        **repeated,
    }
    metrics["score_delta"] = metrics["score"] - metrics["score_unsplit"]  # over a lossy link, of the mean
    draws = {"test": test.draws, "val": validated.draws}
    return Evaluation(metrics, {split: drawn for split, drawn in draws.items() if drawn is not None})


def stage_times(
    halves: tuple[Half, Half],
    frames: Frames,
    edge: Machine,
    server: Machine,
    link: Link,
    exited: Frames | None = None,
    exit_s: float = 0.0,
) -> StageTimes:
    """The stages of a typical sample: what the machines say of the halves, and what was seen of payloads and answers.

    Coding was measured in this process (medians) and is scaled to the machines by their coding rates; the link's times
    are means. The transport's work is that of a frame of the mean size, scaled as coding is. Where some samples
    ``exited``, every sample pays for the head and ``exit_s``; all else is the mean over those that exited and those
    that went on, whose payloads are in ``frames``.
    """
    head, tail = halves
    kinds = [frames] if exited is None else [frames, exited]
    counts = [len(kind.payload_bytes) for kind in kinds]
    shares = [count / sum(counts) for count in counts]
    travels = [(share, _travel(kind, edge, server, link)) for share, kind in zip(shares, kinds, strict=True) if share]
    return StageTimes(
        head_s=edge.time_s(head) + exit_s,
        tail_s=shares[0] * server.time_s(tail) if shares[0] else 0.0,
        **{name: sum(share * travel[name] for share, travel in travels) for name in travels[0][1]},
    )


def _travel(frames: Frames, edge: Machine, server: Machine, link: Link) -> dict[str, float]:
    """Seconds of coding and of the link, of a typical sample of these."""
    on_edge, on_server = edge.coding_factor(), server.coding_factor()
    answered = bool(frames.answer_bytes)
    travelled = statistics.fmean(frames.payload_bytes) + (statistics.fmean(frames.answer_bytes) if answered else 0.0)
    return {
        "encode_s": on_edge * statistics.median(frames.encode_s),
        "link_s": statistics.fmean(frames.link_s),
        "link_busy_s": statistics.fmean(frames.link_busy_s),
        "decode_s": on_server * statistics.median(frames.decode_s),
        "answer_encode_s": on_server * statistics.median(frames.answer_encode_s) if answered else 0.0,
        "answer_s": statistics.fmean(frames.answer_s) if answered else 0.0,
        "answer_busy_s": statistics.fmean(frames.answer_busy_s) if answered else 0.0,
        "answer_decode_s": on_edge * statistics.median(frames.answer_decode_s) if answered else 0.0,
        "edge_transport_s": on_edge * link.edge_work.frame_s(travelled),
        "server_transport_s": on_server * link.server_work.frame_s(travelled),
    }


def coding_spread(frames: Frames, times: StageTimes) -> Metrics:
    """How exact the medians are that ``stage_times`` has of coding: over the timed samples, and as time goes by."""
    found: Metrics = {}
    if not frames.encode_s:  # all samples exited
        return found
    for name in ("encode_s", "decode_s"):
        timed_s, coding_s = getattr(frames, name), getattr(times, name)
        found[f"{name}_ci95"] = coding_s and coding_s / statistics.median(timed_s) * median_half_width(timed_s)
    coding_s = [sum(both) for both in zip(frames.encode_s, frames.decode_s, strict=True)]
    if len(coding_s) >= NUM_PARTS and min(coding_s) > 0:
        found["coding_drift"] = wander(coding_s)
    return found


def _heads(
    cfg: DictConfig, network: Network, cut: Cut, shared: SharedFeatures | None, split: str
) -> Callable[[Any], Sequence[Features]]:
    """What gives the features of a split's batches, which it gets one after the other; or of the example."""
    if shared is None:
        return partial(features, cut)
    number, name = itertools.count(), json.dumps(_key(cfg, network))
    return lambda x: shared.at(network.graph, cut, Batch(name, split, next(number)), x)


def _validated(
    cfg: DictConfig,
    network: Network,
    pipeline: Pipeline,
    head: Callable[[Any], Sequence[Features]],
    early: EarlyExit | None,
) -> Scored:
    """The scores on the validation split: over a clean link in memory, which it cannot tell from the bytes."""
    val, finish, link, frames = batches(cfg, network, "val"), pipeline.in_memory, pipeline.link, Frames()
    if pipeline.link.is_lossy:
        link = assemble.simulated_link(cfg)
        other = Pipeline(pipeline.cut, pipeline.codec, pipeline.decoder, link, pipeline.answering)
        finish = partial(other.finish, frames=frames)
    if early is None:
        return score_samples(lambda x: finish(head(x)), network.task, val)
    made = ((head(x), y) for x, y in val)
    assert pipeline.answering is not None
    received = partial(stay, answering=pipeline.answering, link=link, frames=Frames())
    return early.validate(((z, finish(z), y) for z, y in made), network.task, received)


def compared(scored: Scored, unsplit: Scored, suffix: str = "") -> Metrics:
    """A score's interval, the unsplit score on the same samples, and their difference with its paired interval."""
    metrics: Metrics = {
        f"score{suffix}_unsplit": unsplit.metrics["score"],
        f"score{suffix}_delta": scored.metrics["score"] - unsplit.metrics["score"],
    }
    if scored.draws is not None and unsplit.draws is not None:
        metrics[f"score{suffix}_ci95"] = half_width(scored.draws)
        metrics[f"score{suffix}_delta_ci95"] = half_width(scored.draws - unsplit.draws)
    return metrics


def score_unsplit(
    cfg: DictConfig, network: Network, split: str, run: Callable[[Tensor], Tensor] | None = None
) -> Scored:
    """Scores of the whole network, uncut, on the same samples; computed once a process, or through a given ``run``.

    Raises ConfigError where a network without labels finds nothing in the test samples.
    """
    key = split, *_key(cfg, network)
    is_new = key not in _unsplit
    if run or is_new:
        found = score_samples(run or network.run, network.task, batches(cfg, network, split))
        _unsplit[key] = found
        if is_new and split == "test":
            _warn_of_chance(found, network.task)
    if split == "test":
        check_found(network.task, _unsplit[key].metrics["score"], split)
    return _unsplit[key]


def _warn_of_chance(unsplit: Scored, task: Task) -> None:
    if not isinstance(task, ClassificationTask) or unsplit.draws is None:
        return
    score, num_classes = unsplit.metrics["score"], len(task.class_names)
    if score - (half := half_width(unsplit.draws)) <= 1 / num_classes:
        log.warning(
            "The unsplit network scores %.3f ± %.3f, not surely better than chance among %d classes: what a cut keeps "
            "of that says little; train it longer, give trained weights, or score more samples",
            *(score, half, num_classes),
        )


def _key(cfg: DictConfig, network: Network) -> tuple[str, str, int, int | None]:
    """What determines the samples of a split, their batches and what the network makes of them."""
    return network.key, network.graph.granularity, cfg.trainer.batch_size, cfg.workflow.num_samples


def batches(cfg: DictConfig, network: Network | Whole, split: str) -> Iterator[tuple[Tensor, Tensor]]:
    """A split of the network's task in batches: all of it, or what ``workflow.num_samples`` leaves."""
    data = getattr(network.task.splits(), split)
    return assemble.batches(data, network.placement, cfg.trainer.batch_size, cfg.workflow.num_samples)

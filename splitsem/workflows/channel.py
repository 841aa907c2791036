"""A lossy link run with several seeds: means, a confidence interval, and the score that a clean link would give."""

import statistics

from hydra.utils import instantiate
from omegaconf import DictConfig

from splitsem.codecs.codec import Codec
from splitsem.pipeline import Frames
from splitsem.replay import Recording, ci95
from splitsem.tasks.task import Task
from splitsem.workflows.job import Metrics


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
        metrics["score_ci95"] = interval
    if any(f.snr_db for f in frames):
        metrics["snr_db"] = statistics.fmean(value for f in frames for value in f.snr_db)
    return metrics

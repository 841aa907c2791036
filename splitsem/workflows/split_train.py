"""Workflow split_train: trains the head here and the tail on a server (workflow=serve workflow.training=true)."""

import json
import time
from functools import partial
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from splitsem.codecs.codec import Codec
from splitsem.errors import ConfigError
from splitsem.links.simulated import SimulatedLink
from splitsem.pipeline import Frames, Pipeline
from splitsem.remote.head_trainer import HeadTrainer
from splitsem.remote.labels import codec_label, weights_digest
from splitsem.remote.training_plan import TrainingPlan, task_name
from splitsem.remote.training_tail import Traffic
from splitsem.report.run_figures import training_curve
from splitsem.scoring import score
from splitsem.splitting.trainable import TrainableCut
from splitsem.training import kept_weights
from splitsem.training.fit import Fit
from splitsem.workflows import assemble, assemble_codec, evaluation
from splitsem.workflows.assemble import Network
from splitsem.workflows.codec_options import check_not_learned
from splitsem.workflows.result import Metrics, Result
from splitsem.workflows.serve import training_transport


def run(cfg: DictConfig, folder: Path) -> Result:
    """Train over the link; leaves the whole network's ``weights.safetensors`` in the run's folder."""
    check_not_learned(cfg)
    transport = training_transport(cfg)
    if transport.start.how is not None:
        raise ConfigError("transport.start is for workflow=offload; start the training server by hand")
    from splitsem.remote.split_module import train_split  # imports for seconds, so a wrong setting fails first

    tail = transport.training_end()
    fit: Fit = instantiate(assemble.trainer_settings(cfg))
    network = assemble.initial_network(cfg)
    total_steps = fit.total_steps(network.task)
    training = assemble.training_graph(network)
    cut = TrainableCut(network.graph, training, assemble.chosen_point(cfg, network.graph).name)
    codec = assemble_codec.codec(cfg, network, cut.evaluation.point)
    plan = training_plan(cfg, network, cut, training.fingerprint, codec, total_steps)
    began = time.perf_counter()
    try:
        trainer = HeadTrainer(network.model, cut, codec, tail, plan)
        history = train_split(fit, trainer, network.task, cfg.seed)
    finally:
        tail.close()
    train_s = time.perf_counter() - began
    path = folder / "weights.safetensors"
    kept_weights.save(network.model, path, history, train_s)
    metrics = {**_scores(cfg, network, cut, codec), **_per_step(tail.traffic), "train_s": train_s, **_labels(cfg)}
    metrics |= {"split_point": cut.point.name, "split_index": cut.evaluation.point.index}
    headline = (
        f"{cut.point.name}: {metrics['score_name']} {metrics['score']:.4f} "
        f"(without the codec {metrics['score_unsplit']:.4f}) after "
        f"{tail.traffic.num_steps} steps of {1e3 * metrics['step_s']:.1f} ms, {metrics['uplink_bytes']:,.0f} bytes up "
        f"and {metrics['downlink_bytes']:,.0f} down each; weights: {path}"
    )
    return Result(metrics, {"training_curve": training_curve(history, metrics)}, history, headline)


def training_plan(
    cfg: DictConfig, network: Network, cut: TrainableCut, training: str, codec: Codec, total_steps: int
) -> TrainingPlan:
    """The plan that the edge proposes to the server; ``training`` is the fingerprint of the graph in train mode."""
    gradients = OmegaConf.to_container(cfg.workflow.gradient_codec, resolve=True)
    assert isinstance(gradients, dict)
    return TrainingPlan(
        fingerprint=network.graph.fingerprint,
        weights=weights_digest(network.model),
        point=cut.evaluation.point.name,
        granularity=cfg.split.granularity,
        precision=network.placement.precision,
        codec=codec_label(codec),
        training_fingerprint=training,
        task=task_name(network.task),
        learning_rate=float(cfg.trainer.learning_rate),
        weight_decay=float(cfg.trainer.weight_decay),
        gradient_clip_norm=float(cfg.trainer.gradient_clip_norm),
        total_steps=total_steps,
        seed=cfg.seed,
        gradient_codec=get_object(gradients.pop("_target_")).__name__,
        gradient_settings=json.dumps(gradients),
    )


def _scores(cfg: DictConfig, network: Network, cut: TrainableCut, codec: Codec) -> Metrics:
    """Scores with the codec's bytes between the halves, as in workflow=split, and unsplit."""
    link = SimulatedLink(bandwidth_bps=1e15, rtt_s=0.0, energy_j_per_bit=0.0)
    decoder = assemble_codec.codec(cfg, network, cut.evaluation.point)
    pipeline, frames = Pipeline(cut.evaluation, codec, decoder, link), Frames()

    of_split = partial(evaluation.batches, cfg, network)
    scores = evaluation.scores(lambda x: pipeline.run(x, frames), network.task, of_split)
    return scores | {"score_unsplit": score(network.run, network.task, of_split("test"))["score"]}


def _per_step(traffic: Traffic) -> Metrics:
    """Means over all training steps; the seconds of edge, link and server add up to a step's."""
    num = traffic.num_steps
    return {
        "num_steps": num,
        "uplink_bytes": traffic.uplink_bytes / num,
        "downlink_bytes": traffic.downlink_bytes / num,
        "label_bytes": traffic.label_bytes / num,
        "step_s": traffic.step_s / num,
        "step_edge_s": (traffic.step_s - traffic.waited_s) / num,
        "step_link_s": (traffic.waited_s - traffic.server_s) / num,
        "step_server_s": traffic.server_s / num,
    }


def _labels(cfg: DictConfig) -> Metrics:
    choices = HydraConfig.get().runtime.choices
    names = {group: choices[group] for group in ("task", "model", "codec", "transport")}
    return names | {"gradient_codec": choices["codec@workflow.gradient_codec"]}

"""From the configuration to objects: task, trained network, its cut points, codec, link and machines.

What is costly (data, training, graph) is made once a process for equal settings, so that a further job of a sweep
pays only for its own evaluation.
"""

import copy
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from splitsem.errors import ConfigError
from splitsem.links.link import Link
from splitsem.models.capabilities import BringsWeights, Deployable, Frozen, HyperWeighted
from splitsem.network import HasPostprocess
from splitsem.pipeline import Answering
from splitsem.placement import Placement
from splitsem.scoring import plain
from splitsem.splitting.cut_graph import CutGraph, Granularity
from splitsem.splitting.example import Example
from splitsem.splitting.graph import SplitGraph
from splitsem.splitting.onnx_graph import graph_of
from splitsem.splitting.point import SplitPoint
from splitsem.tasks.answer import raw_coder
from splitsem.tasks.task import Task
from splitsem.training import kept_weights
from splitsem.training.fingerprint import fingerprint
from splitsem.trees import arguments, call, mapped
from splitsem.workflows import own_model
from splitsem.workflows.codec_options import build_codec, codec_option, is_for_one_cut
from splitsem.workflows.recently_used import Kept

log = logging.getLogger(__name__)
_DETERMINANTS = ("task", "model", "trainer", "device", "seed", "split.granularity", "cache_dir")


class Whole(NamedTuple):
    """A trained network in the form that it trained in, where its constructor put it and in float32.

    Attributes:
        task: what it was trained for.
        model: the network, in eval mode.
        device: where whatever is made of it shall run.
        trained: how its weights came to be.
        key: names everything that determines the weights.
    """

    task: Task
    model: nn.Module
    placement: Placement
    trained: kept_weights.Trained
    key: str


class Network(NamedTuple):
    """A trained network, ready to be cut.

    Attributes:
        task: what it was trained for.
        model: the whole network, on the device and in the precision that it is scored in; a Deployable one deployed.
        graph: the same network as a graph that can be cut; it shares the weights.
        device: where it runs.
        trained: how its weights came to be.
        key: names everything that determines the network and its score.
    """

    task: Task
    model: nn.Module
    graph: CutGraph
    placement: Placement
    trained: kept_weights.Trained
    key: str

    def run(self, x: Any) -> Any:
        """The whole network's output for a batch as the data set gives it."""
        return call(self.model, x)


Check = Callable[[], object] | None  # before a training
_networks: Kept[Network] = Kept(lambda found: kept_weights.num_bytes(found.model))
_wholes: Kept[Whole] = Kept(lambda found: kept_weights.num_bytes(found.model))


def network(cfg: DictConfig, suits: Callable[[CutGraph], object] | None = None) -> Network:
    """The trained network that ``cfg`` asks for, kept for the next call with equal settings.

    Before a training, ``suits`` gets the graph of the untrained network; it raises where other settings do not fit it.
    """
    settings = _settings(cfg)

    def make() -> Network:
        return _network(settings, check=_check(cfg, suits))

    return _networks.get(settings, make)


def untrained_graph(cfg: DictConfig) -> CutGraph:
    """The graph of the network in the form that it runs in, with untrained weights: points and costs ignore them."""
    task, placement = instantiate(cfg.task), instantiate(cfg.device)
    with torch.random.fork_rng(devices=[]):  # the training that follows is as without this
        model = own_model.make(cfg.model, task)
    model = model.deployed() if isinstance(model, Deployable) else model
    return split_graph(placement.place(model).eval(), task, cfg.split.granularity)


def fresh_network(cfg: DictConfig, suits: Callable[[CutGraph], object] | None = None) -> Network:
    """The same network with weights of its own, for a workflow that trains it further.

    Where there are no labels, the targets are what the network finds as it is now, whatever it learns.
    """
    return _network(_settings(cfg), check=_check(cfg, suits), learns=True)


def _check(cfg: DictConfig, suits: Callable[[CutGraph], object] | None) -> Check:
    return None if suits is None else lambda: suits(untrained_graph(cfg))


def initial_network(cfg: DictConfig) -> Network:
    """The network as training finds it: as its constructor leaves it, or with ``trainer.weights``; its own weights.

    A Deployable one is in the form that it trains in. Raises ConfigError where α was to learn after the weights, or the
    task has no labels.
    """
    _check_one_stage(cfg)
    _check_labels(instantiate(cfg.task))
    settings = _plain_settings(cfg)
    settings["trainer"]["max_epochs"] = 0
    return _network(json.dumps(settings, sort_keys=True), is_deployed=False)


def whole(cfg: DictConfig) -> Whole:
    """The trained network as it trained, for a workflow that deploys it in many ways; kept for equal settings."""
    settings = _settings(cfg)
    return _wholes.get(settings, lambda: _whole(settings))


def initial_model(cfg: DictConfig) -> tuple[Task, nn.Module, Placement]:
    """Task, network and device as training finds them, without a graph; float32, the same from the same seed.

    Raises ConfigError for another precision, where α was to learn after the weights, or the task has no labels.
    """
    _check_one_stage(cfg)
    placement: Placement = instantiate(cfg.device)
    if placement.precision != "float32":
        raise ConfigError(f"{cfg.workflow['_target_']} needs device.precision=float32, got {placement.precision}")
    placement.set_threads()
    task = instantiate(cfg.task)
    _check_labels(task)
    torch.manual_seed(cfg.seed)
    model = own_model.make(cfg.model, task)
    own_model.check_learns(model)
    if cfg.trainer.weights:
        kept_weights.load_any(model, Path(cfg.trainer.weights))
    return task, placement.place(model).eval(), placement


def training_graph(network: Network) -> SplitGraph:
    """The same network captured in train mode, for a TrainableCut.

    Raises ConfigError unless it is in float32, and ends in one tensor that nothing follows.
    """
    if isinstance(network.model, HasPostprocess):
        raise ConfigError(
            "split training is for networks that end in one tensor, and this one's results are made by what follows "
            "it, such as a detector's: train it by workflow=train or federated, and give trainer.weights=FILE"
        )
    if network.placement.precision != "float32":
        raise ConfigError(f"split training needs device.precision=float32, got {network.placement.precision}")
    return SplitGraph(network.model, _example(network.task), granularity="op", training=True)


def split_graph(model: nn.Module, task: Task, granularity: Granularity, keep: Path | None = None) -> CutGraph:
    """The graph of a model on the task's samples; ``keep`` is a file that holds it for later processes."""
    return graph_of(model, _example(task), granularity=granularity, keep=keep)


def _example(task: Task) -> Example:
    args, named = arguments(task.example())
    return Example(tuple(args), named)


def _settings(cfg: DictConfig) -> str:
    return json.dumps(_plain_settings(cfg), sort_keys=True)


def _plain_settings(cfg: DictConfig) -> dict[str, Any]:
    chosen = {name: OmegaConf.select(cfg, name) for name in _DETERMINANTS}
    settings = {k: OmegaConf.to_container(v, resolve=True) if OmegaConf.is_config(v) else v for k, v in chosen.items()}
    return settings | {"trainer": trainer_settings(cfg)}


def trainer_settings(cfg: DictConfig) -> dict[str, Any]:
    """The trainer as plain values; where ``gradient_codec`` is a name, it is that option of the group ``codec``.

    Raises ConfigError when there is no such option, or its codec has weights of its own.
    """
    settings = OmegaConf.to_container(cfg.trainer, resolve=True)
    assert isinstance(settings, dict)
    name = settings.get("gradient_codec")  # a user's own file of the group may not name it
    if isinstance(name, str):
        settings["gradient_codec"] = codec_option(name, f"trainer.gradient_codec={name}")
    codec = settings.get("gradient_codec")
    if codec is not None and is_for_one_cut(codec["_target_"]):
        raise ConfigError(f"trainer.gradient_codec must have no weights (e.g. topk or quant4), got {codec['_target_']}")
    return {str(key): value for key, value in settings.items()}


def _check_one_stage(cfg: DictConfig) -> None:
    """Raise ConfigError where the model wants a stage of training that the workflow has not."""
    model = OmegaConf.to_container(cfg.model)
    if isinstance(model, dict) and model.get("alpha_epochs"):  # other models have no such setting
        raise ConfigError(
            f"{cfg.workflow['_target_']} has no further epochs for α: leave model.alpha_epochs=0, or train by "
            "workflow=train and give its weights"
        )


def _check_labels(task: Task) -> None:
    """Raise ConfigError where there are no labels to learn from."""
    if task.is_agreement:
        raise ConfigError(
            f"this workflow with this model trains by labels, and {type(task).__name__} has none: its score is "
            "agreement with the unsplit network; take a task with labels, or workflow=split or codec"
        )


def _network(settings: str, is_deployed: bool = True, check: Check = None, learns: bool = False) -> Network:
    cfg = OmegaConf.create(json.loads(settings))
    task, model, device, trained, key = _trained(cfg, check, is_final=is_deployed)
    if learns or not is_deployed:
        own_model.check_learns(model)
    if is_deployed and isinstance(model, Deployable):
        key = f"{key}-{fingerprint(_deployment(cfg, model))}"
        model = model.deployed()
    device.place(model).eval()
    if task.is_agreement:
        unsplit = copy.deepcopy(model) if learns else model
        task.label_by(lambda x: mapped(plain, call(unsplit, mapped(device.place_tensor, x))))
    key = f"{key}-{device.torch_device.type}-{device.precision}"
    graph = split_graph(model, task, cfg["split.granularity"], Path(cfg.cache_dir) / "graphs" / f"{key}.graph")
    return Network(task, model, graph, device, trained, key)


def _whole(settings: str) -> Whole:
    cfg = OmegaConf.create(json.loads(settings))
    _check_labels(instantiate(cfg.task))
    found = _trained(cfg)
    found.model.eval()
    return found


def _trained(cfg: DictConfig, check: Check = None, *, is_final: bool = True) -> Whole:
    task = instantiate(cfg.task)
    placement: Placement = instantiate(cfg.device)
    placement.set_threads()
    torch.manual_seed(cfg.seed)
    model = own_model.make(cfg.model, task)
    return Whole(task, model, placement, *_train(cfg, task, model, placement, check, is_final))


def _deployment(cfg: DictConfig, model: Deployable) -> dict[str, Any]:
    """The model's settings that make no other training."""
    settings: dict[str, Any] = OmegaConf.to_container(cfg.model, resolve=True)  # type: ignore[assignment]
    return {name: value for name, value in settings.items() if name in model.deploy_settings}


def _train(
    cfg: DictConfig, task: Task, model: nn.Module, placement: Placement, check: Check, is_final: bool
) -> tuple[kept_weights.Trained, str]:
    fit = instantiate(trainer_settings(cfg))
    if task.is_agreement or isinstance(model, Frozen):
        fit = replace(fit, max_epochs=0)
    facts: dict[str, Any] = {n: OmegaConf.to_container(cfg[n], resolve=True) for n in ("task", "model", "trainer")}
    if isinstance(model, Deployable):
        facts["model"] = {k: v for k, v in facts["model"].items() if k not in model.deploy_settings}
    facts["seed"] = cfg.seed  # also of what a constructor draws beside the weights
    if fit.weights:
        trained = kept_weights.load_any(model, Path(fit.weights))
        facts["trainer"] = {"weights": kept_weights.digest(trained.path)}
        return trained, fingerprint(facts, (task, model), cache_dir=Path(cfg.cache_dir), is_data_needed=False)
    num_epochs = fit.max_epochs + (model.alpha_epochs if isinstance(model, HyperWeighted) else 0)
    if num_epochs:
        _check_labels(task)  # α has epochs of its own
    key = fingerprint(facts, (task, model, fit), cache_dir=Path(cfg.cache_dir), is_data_needed=num_epochs > 0)
    given = cfg.model.get("weights"), cfg.model.get("pretrained"), isinstance(model, BringsWeights)
    if is_final and not num_epochs and not any(given):  # else the workflow trains it
        why = "the task has no labels" if task.is_agreement else "trainer.max_epochs=0"
        log.warning("%s: nothing is trained, and scores are those of random weights", why)

    def train() -> list[dict[str, float]]:
        if num_epochs:
            name = cfg.model["_target_"]
            if check is not None:
                check()
            task.splits()  # which says what is wrong with the data
            log.info("Training %s for %d epochs (kept for later runs in %s)", name, num_epochs, folder)
        return fit.run(model, task, placement.torch_device, cfg.seed)

    folder = Path(cfg.cache_dir) / "weights"
    trained = kept_weights.fit_or_load(model, key, folder, train, spare_folder())
    if trained.from_cache and num_epochs:
        log.info("Trained weights: %s", trained.path)
    return trained, key


def spare_folder() -> Path | None:
    """Where weights are kept that ``cache_dir`` cannot keep: in the folder of the sweep, or of the single run."""
    cfg: Any = HydraConfig.instance().cfg  # typed as the part that it is not
    if cfg is None:
        return None
    is_sweep = cfg.hydra.mode == RunMode.MULTIRUN
    folder = OmegaConf.select(cfg, "hydra.sweep.dir" if is_sweep else "hydra.runtime.output_dir")
    return Path(folder) / "weights" if folder else None


def check_settings(cfg: DictConfig) -> None:
    """Raise what is wrong with codec, answer, machines and split point, as far as that shows before a training.

    Raises ConfigError when the point is given twice, for an answer that cannot be made and a machine without a coding
    rate, and what the constructors raise.
    """
    name, index = cfg.split.point, cfg.split.index
    if name is not None and index is not None:
        raise ConfigError(f"split.point={name} and split.index={index} are both given; give one of them")
    build_codec(cfg, (1, 1, 1))  # what crosses is not known yet
    answering(cfg, instantiate(cfg.task))
    for side in ("edge", "server"):
        instantiate(cfg.hardware[side]).coding_factor()


def simulated_link(cfg: DictConfig) -> Link:
    """A fresh instance of the configured link.

    Raises:
        ConfigError: the transport is no link that this process simulates.
    """
    link = instantiate(cfg.transport) if cfg.transport else None  # instantiate cannot take null
    if not isinstance(link, Link):
        raise ConfigError(
            f"{cfg.workflow['_target_']} needs a simulated link, e.g. transport=wifi; a real one (transport=grpc, "
            "transport=udp) is between workflow=serve and workflow=offload"
        )
    return link


def answering(cfg: DictConfig, task: Task, graph: CutGraph | None = None) -> Answering:
    """What becomes of the network's output; ``graph`` tells the form of a raw one, which a server names likewise.

    Raises ConfigError where the task does not say what its answer is.
    """
    if cfg.answer.at not in ("edge", "server"):
        raise ConfigError(f"answer.at is edge or server, got {cfg.answer.at}")
    if not cfg.answer.raw:
        return Answering(task.answer_coder(), cfg.answer.at)
    return Answering(raw_coder(task.trial_outputs(1, 0)[1] if graph is None else graph.sample), cfg.answer.at)


def chosen_point(cfg: DictConfig, graph: CutGraph, is_told: bool = True) -> SplitPoint:
    """The point that ``split.point`` or ``split.index`` names; with neither, the first bottleneck, else ``input``.

    What was taken where none is named, is told in the log.

    Raises ConfigError when both are given, SplitPointError when there is no such point.
    """
    name, index = cfg.split.point, cfg.split.index
    if name is not None or index is not None:
        return graph.point(str(name) if name is not None else int(index))
    point = next((p for p in graph.points[1:-1] if p.is_bottleneck), None)
    if is_told:
        why = "the model has no natural bottleneck" if point is None else "the first natural bottleneck"
        log.info("split.point is not given: taking %s, %s", (point or graph.points[0]).name, why)
    return point or graph.points[0]


def test_batches(
    task: Task, placement: Placement, batch_size: int, num_samples: int | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """The test split in batches on the device, or its first ``num_samples`` samples."""
    return batches(task.splits().test, placement, batch_size, num_samples)


def batches(
    samples: Dataset, placement: Placement, batch_size: int, num_samples: int | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """One split in batches on the device, or its first ``num_samples`` samples."""
    if num_samples is not None:
        samples = Subset(samples, range(min(num_samples, len(samples))))  # type: ignore[arg-type]
    return ((mapped(placement.place_tensor, x), y) for x, y in DataLoader(samples, batch_size=batch_size))

"""EarlyExit: samples whose class the edge is sure of exit at the cut; all others go on to the server."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor
from torch.utils.data import Dataset

from splitsem import extras
from splitsem.cost.machines import Machine
from splitsem.cost.measure import measure
from splitsem.errors import ConfigError
from splitsem.links.link import Link
from splitsem.models.exit_head import ExitHead, confidence
from splitsem.pipeline import Answering, Features, Frames, Pipeline, features, stay
from splitsem.scoring import Scored, plain, score_samples
from splitsem.splitting.cut import Cut
from splitsem.splitting.half import Half, OpCost
from splitsem.splitting.point import SplitPoint
from splitsem.tasks.classification import ClassificationTask
from splitsem.tasks.task import Task
from splitsem.training import kept_weights
from splitsem.training.exit_fit import Confidence, TradeOff, calibration_error, fit_exit
from splitsem.training.fingerprint import fingerprint
from splitsem.trees import joined
from splitsem.workflows import assemble
from splitsem.workflows.assemble import Network
from splitsem.workflows.drawing import Drawing
from splitsem.workflows.result import Metrics

log = logging.getLogger(__name__)
_NUM_WARM_UP, _NUM_TIMED, _BUDGET_S = 5, 50, 0.2


class Parted(NamedTuple):
    """A batch at the exit.

    Attributes:
        logits: the exit's, of all samples, ``(batch, classes)`` float32 on the CPU.
        is_out: which samples exit, bool ``(batch,)``.
        rest: the features of the samples that go on; None where all exit.
    """

    logits: Tensor
    is_out: Tensor
    rest: Features | None

    def stay(self, answering: Answering, link: Link, frames: Frames) -> Tensor | None:
        """The results of the samples that exit, where they are needed, see ``pipeline.stay``; None where none exits."""
        return stay(self.logits[self.is_out], answering, link, frames) if self.is_out.any() else None

    def joined(self, own: Tensor | None, output: Tensor | None) -> Tensor:
        """The results of all samples in their order: of those that exit, and of those that went on."""
        if own is None or output is None:
            one = output if own is None else own
            assert one is not None  # a batch is not empty
            return one
        own, output = plain(own), plain(output)
        results = output.new_empty((len(self.is_out), *output.shape[1:]))
        results[self.is_out], results[~self.is_out] = own, output
        return results


@dataclass
class EarlyExit:
    """The exit at a cut, and what it saw in one evaluation.

    Attributes:
        head: the trained and calibrated exit.
        settings: what its threshold is chosen by.
        frames: what became of the samples that exited: nothing travels, or the answer alone where the server needs it.
        trade_off: what each threshold does on the validation split, behind this codec; None before ``validate``.
    """

    head: ExitHead
    settings: Confidence
    frames: Frames = field(default_factory=Frames)
    trade_off: TradeOff | None = None
    _logits: list[Tensor] = field(default_factory=list)
    _targets: list[Tensor] = field(default_factory=list)
    _val: Metrics = field(default_factory=dict)

    def validate(
        self,
        batches: Iterable[tuple[Sequence[Features], Any, Tensor]],
        task: Task,
        received: Callable[[Tensor], Tensor],
    ) -> Scored:
        """Choose the threshold on the validation split, where none is given, and score there with it.

        Args:
            batches: features, what the server makes of them, and targets.
            task: what is scored.
            received: what is read of the exit's answers where they are needed, which a link may lose.
        """
        with torch.inference_mode():
            rows = [(plain(self.head(*made[0].z)[0]), plain(y_hat), y) for made, y_hat, y in batches]
        logits, output, y = (torch.cat(column) for column in zip(*rows, strict=True))
        own = plain(received(logits))
        exit_right, right = own.argmax(dim=1) == y, output.argmax(dim=1) == y
        self.trade_off = TradeOff.of(confidence(logits), exit_right, right)
        given = self.settings.threshold
        self.head.threshold = self.trade_off.lowest(self.settings.max_loss) if given is None else given
        is_out = self.head.is_sure(logits)
        lost = right.double() - torch.where(is_out, exit_right, right).double()
        self._val = {"exit_share_val": int(is_out.sum()) / len(y), "exit_loss_val": lost.mean().item()}
        return score_samples(lambda mixed: mixed, task, [(torch.where(is_out.unsqueeze(1), own, output), y)])

    @torch.inference_mode()
    def part(self, made: Features) -> Parted:
        """Which samples of a batch exit, by the threshold."""
        logits, is_out = map(plain, self.head(*made.z))
        num = int((~is_out).sum())
        if num == made.num_samples:
            return Parted(logits, is_out, made)
        return Parted(logits, is_out, Features(tuple(z[~is_out] for z in made.z), num) if num else None)

    @torch.inference_mode()
    def finish(self, pipeline: Pipeline, made: Sequence[Features], frames: Frames) -> Tensor:
        """What ``pipeline.finish`` does, for the samples that go on; the others have the exit's answer."""
        assert pipeline.answering is not None
        results = []
        for group in made:
            parted = self.part(group)
            self._logits.append(parted.logits)
            own = parted.stay(pipeline.answering, pipeline.link, self.frames)
            output = None if parted.rest is None else pipeline.finish([parted.rest], frames)
            results.append(parted.joined(own, output))
        whole: Tensor = joined(results)
        return whole

    def noting(self, batches: Iterable[tuple[Any, Tensor]]) -> Iterator[tuple[Any, Tensor]]:
        """The batches of the test split as they are; their targets are for ``metrics``."""
        for x, y in batches:
            self._targets.append(y)
            yield x, y

    def time_s(self, edge: Machine, z: Sequence[Tensor]) -> float:
        """Seconds of the exit's decision on one sample, on the edge.

        A machine that is modelled by its operations, or is this one, says so as for the head. Where the times come from
        a table, which holds no exit, they are measured here and scaled as coding is.

        Args:
            edge: the machine.
            z: the crossing tensors of one sample.
        """
        half = Half("head", "exit", self.head, tuple(z), self._ops(z), "exit")
        if edge.timing in ("roofline", "measured"):
            return edge.time_s(half)
        return edge.coding_factor() * measure(half, _NUM_TIMED, _NUM_WARM_UP, _BUDGET_S).median_s

    def _ops(self, z: Sequence[Tensor]) -> tuple[OpCost, ...]:
        """The operations of a decision: a pool a tensor, the products, the softmax, its maximum and the comparison."""
        read = [tensor.numel() for tensor in z if tensor.is_floating_point()]
        width, num_classes = self.head.linear.in_features, self.head.linear.out_features
        pools = [OpCost(f"pool{n}", size, 4 * (size + width / len(read))) for n, size in enumerate(read)]
        products = OpCost("linear", 2 * width * num_classes, kept_weights.num_bytes(self.head) + 4 * width)
        small = [OpCost(name, num_classes, 8 * num_classes) for name in ("softmax", "amax", "gt")]
        return (*pools, products, *small)

    def metrics(self) -> Metrics:
        """What the exit did on the test split."""
        logits, y = torch.cat(self._logits), torch.cat(self._targets)
        return {
            "exit_share": len(self.frames.payload_bytes) / len(y),
            **self._val,
            "exit_threshold": self.head.threshold,
            "exit_temperature": self.head.temperature.item(),
            "exit_score": (logits.argmax(dim=1) == y).double().mean().item(),
            "exit_ece": calibration_error(logits, y),
            "exit_ece_uncalibrated": calibration_error(logits * self.head.temperature.cpu(), y),
            "exit_bytes": kept_weights.num_bytes(self.head),
        }


def is_on(cfg: DictConfig) -> bool:
    """Whether the configuration asks for an exit."""
    return bool(cfg.exit)


def check(cfg: DictConfig) -> None:
    """Raise ConfigError where an exit is asked for that the task cannot teach."""
    if not is_on(cfg):
        return
    task = instantiate(cfg.task)
    if not isinstance(task, ClassificationTask) or task.is_agreement:
        raise ConfigError(
            f"exit=confidence learns the class of each sample by labels, and {type(task).__name__} has none: take a "
            "classification task with labels, e.g. task=digits, or exit=none"
        )


def check_point(cfg: DictConfig, point: SplitPoint) -> None:
    """Raise ConfigError where an exit is asked for that cannot read what crosses at this point."""
    if is_on(cfg) and not (point.is_batched and _shapes(point)):
        raise ConfigError(
            f"exit=confidence reads floating-point tensors with the samples in dimension 0, and none crosses at "
            f"{point.name}: choose another split.point, or exit=none"
        )


def early_exit(cfg: DictConfig, network: Network, cut: Cut) -> EarlyExit | None:
    """The exit that ``cfg`` asks for: trained now on the training split, or before and kept; None without one.

    At the cut ``output``, the whole network runs on the edge and every sample stays there: there is no exit. The
    network is frozen. Raises ConfigError where the cut does not suit.
    """
    if not is_on(cfg):
        return None
    if cut.point.name == "output":
        log.info("At output the whole network runs on the edge: there is no early exit")
        return None
    check_point(cfg, cut.point)
    assert isinstance(network.task, ClassificationTask)  # see ``check``
    settings: Confidence = instantiate(cfg.exit)
    with torch.random.fork_rng(devices=[]):
        head = ExitHead(_shapes(cut.point), len(network.task.class_names), settings.grid)
    head.to(network.placement.torch_device).eval()
    facts = {"exit": {"grid": settings.grid}, "from": network.key, "point": cut.point.name, "seed": cfg.seed}
    key = fingerprint(facts, (head, "splitsem.training.exit_fit"))  # of task and data, network.key tells
    folder = Path(cfg.cache_dir) / "exits"

    def train() -> list[dict[str, float]]:
        log.info("Training the exit at %s (kept for later runs in %s)", cut.point.name, folder)
        splits = network.task.splits()
        torch.manual_seed(cfg.seed)  # of what a task augments
        return fit_exit(head, *(_crossing(cfg, network, cut, each) for each in (splits.train, splits.val)))

    trained = kept_weights.fit_or_load(head, key, folder, train, assemble.spare_folder())
    if trained.from_cache:
        log.info("Trained exit: %s", trained.path)
    return EarlyExit(head, settings)


def told(metrics: Metrics) -> str:
    """The share that exits, for a headline; empty without an exit."""
    if "exit_share" not in metrics:
        return ""
    return f"{metrics['exit_share']:.1%} exit above a confidence of {metrics['exit_threshold']:.4f}, "


def figures(early: EarlyExit | None, metrics: Metrics) -> dict[str, Drawing]:
    """The figure of what each threshold does, by its file's name; none without an exit."""
    if early is None or early.trade_off is None or not extras.has("plots"):
        return {}
    settings = early.settings
    max_loss = settings.max_loss if settings.threshold is None else None
    arguments = asdict(early.trade_off), metrics, max_loss
    return {"exit": Drawing("splitsem.report.exit_figure.exit_trade_off", arguments)}


def _shapes(point: SplitPoint) -> list[tuple[int, ...]]:
    """Of the crossing tensors that an exit reads."""
    return [tensor.shape for tensor in point.tensors if tensor.dtype.is_floating_point]


def _crossing(
    cfg: DictConfig, network: Network, cut: Cut, samples: Dataset
) -> Iterator[tuple[Sequence[Tensor], Tensor]]:
    for x, y in assemble.batches(samples, network.placement, cfg.trainer.batch_size, None):
        yield features(cut, x)[0].z, y

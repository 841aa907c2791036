"""fit_codec trains a learned codec stage by stage on the crossing tensors of a frozen head."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler, TensorDataset

from splitsem.codecs.learned.learned import LearnedCodec, Stage
from splitsem.errors import ConfigError
from splitsem.splitting.graph import SplitGraph
from splitsem.splitting.point import SplitPoint
from splitsem.tasks.task import Task
from splitsem.training.codec_module import CodecModule, Teacher
from splitsem.training.loop import run_loop
from splitsem.training.output_loss import OutputLoss
from splitsem.trees import call, leaves, mapped

log = logging.getLogger(__name__)
_GRADIENT_CLIP_NORM = 1.0
_CALIBRATION_BATCHES = 16
_EVALUATION_BATCH = 256
_EVALUATION_BYTES = 1 << 26  # of a batch of samples: the first layers of a large picture need ten times its memory


def fit_codec(
    codec: LearnedCodec, graph: SplitGraph, point: SplitPoint, task: Task, seed: int, feature_cache_bytes: int = 1 << 30
) -> list[dict[str, float]]:
    """Train ``codec`` in place for the cut at ``point``; returns the metrics of each epoch.

    Where the task has no loss for what the network returns before its postprocess, distillation takes its place, see
    ``OutputLoss``. The network stays as it is; a stage that tunes the tail tunes the codec's own copy of the tail. The
    validation split chooses the epoch whose weights are kept.

    Args:
        codec: built for the crossing tensor of ``point``.
        graph: the trained network; float32.
        point: the split point of ``graph``.
        task: gives the data, the loss and the score.
        seed: of the order of the samples, the noise and all other random numbers.
        feature_cache_bytes: features of the head stay in memory up to this size. Larger features, and those of
            augmented data, are computed again in each epoch.

    Raises:
        ConfigError: a stage's batch is larger than the data, or a codec with a local output meets other than logits.
    """
    cut = graph.cut(point)
    device = cut.device
    codec.adopt_tail(cut.network_tail)
    codec.to(device)
    lightning.seed_everything(seed, workers=True, verbose=False)
    splits = task.splits()
    history: list[dict[str, float]] = []
    with _frozen(cut.head, cut.tail):
        teacher = Teacher(cut.head, graph.tail_with_layers(point), cut.postprocess)
        sample_bytes = sum(t.nbytes for t in leaves(task.example()))
        batch = min(_EVALUATION_BATCH, max(1, _EVALUATION_BYTES // sample_bytes), _size(splits.train))
        sources: list[Dataset] = [splits.train, splits.val]
        needed = point.raw_bytes * sum(map(_size, sources))
        if needed <= feature_cache_bytes and not _is_augmented(splits.train):
            sources = [_features(cut.head, source, batch, device) for source in sources]
            teacher = teacher._replace(head=None)
        codec.calibrate(list(_some(_loader(sources[0], batch, seed), teacher, device)))
        with torch.random.fork_rng(devices=[]):  # the training that follows is as without this trial
            output_loss = _output_loss(codec, task, teacher, next(iter(_loader(sources[0], 1))), device)
        for number, (name, stage) in enumerate(codec.stages.items()):
            if stage.max_epochs:
                num_samples = _size(splits.train)
                if stage.batch_size_for(num_samples) > num_samples:
                    raise ConfigError(
                        f"codec.stages.{name}.batch_size={stage.batch_size} is more than the {num_samples} samples to "
                        f"train on: there is no whole batch; give at most {num_samples}"
                    )
                log.info("Stage %s: %d epochs", name, stage.max_epochs)
                history += _run(codec, stage, teacher, (task, output_loss), sources, batch, device, seed + number)
    codec.finish_training()
    codec.eval()
    return history


def _run(
    codec: LearnedCodec,
    stage: Stage,
    teacher: Teacher,
    judge: tuple[Task, OutputLoss],
    sources: list[Dataset],
    val_batch: int,
    device: torch.device,
    seed: int,
) -> list[dict[str, float]]:
    train = _loader(sources[0], stage.batch_size_for(_size(sources[0])), seed)
    val = _loader(sources[1], val_batch)
    codec.train()
    frozen = list(codec.device_modules()) if stage.is_encoder_frozen else []
    if codec.tail is not None and not stage.is_tail_tuned:
        frozen.append(codec.tail)
    with _frozen(*frozen):
        return run_loop(
            CodecModule(codec, stage, teacher, *judge),
            train,
            val,
            device=device,
            max_epochs=stage.max_epochs,
            gradient_clip_norm=_GRADIENT_CLIP_NORM,
            monitor="val_score" if stage.is_judged_by_score else "val_loss",
            mode="max" if stage.is_judged_by_score else "min",
            limit_train_batches=stage.limit_train_batches,
        )


@torch.no_grad()
def _output_loss(
    codec: LearnedCodec, task: Task, teacher: Teacher, batch: tuple[Any, Tensor], device: torch.device
) -> OutputLoss:
    """The losses of this network's output, by one sample. Raises ConfigError, see ``fit_codec``."""
    z, y = _crossing(batch[0], teacher, device), batch[1].to(device)
    found = OutputLoss.of(task, teacher.tail(z)[0], y, teacher.postprocess is not None)
    if not found.has_classes and codec.code(z, None).local is not None:
        raise ConfigError(
            f"{type(codec).__name__} adds logits of the edge to the network's, and this network's output is no logits: "
            "choose another codec, e.g. codec=entropic_student"
        )
    return found


@contextmanager
def _frozen(*modules: nn.Module) -> Iterator[None]:
    """Keeps the modules' parameters from learning inside the context."""
    learning = {p for module in modules for p in module.parameters() if p.requires_grad}
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


def _loader(source: Dataset, batch_size: int, shuffle_seed: int | None = None) -> DataLoader:
    """Makes batches in order, or shuffled by a seed; tensors in memory are indexed a batch at a time."""
    is_shuffled = shuffle_seed is not None
    generator = torch.Generator().manual_seed(shuffle_seed or 0)
    if not isinstance(source, TensorDataset):
        return DataLoader(source, batch_size, is_shuffled, generator=generator, drop_last=is_shuffled)
    order = RandomSampler(source, generator=generator) if is_shuffled else SequentialSampler(source)
    return DataLoader(source, sampler=BatchSampler(order, batch_size, drop_last=is_shuffled), batch_size=None)


def _is_augmented(source: Dataset) -> bool:
    """Whether the source returns other samples at a second reading; tested on a few samples, each read twice."""
    drawn = [[t for i in range(min(8, _size(source))) for t in leaves(source[i][0])] for _ in range(2)]
    return not all(map(torch.equal, *drawn))


def _size(source: Dataset) -> int:
    return len(source)  # type: ignore[arg-type]


@torch.no_grad()
def _features(head: nn.Module, source: Dataset, batch: int, device: torch.device) -> TensorDataset:
    """The crossing tensor of every sample, with its target."""
    teacher = Teacher(head, nn.Identity())
    pairs = [(_crossing(x, teacher, device).cpu(), y) for x, y in _loader(source, batch)]
    z, y = zip(*pairs, strict=True)
    return TensorDataset(torch.cat(z), torch.cat(y))


@torch.no_grad()
def _some(batches: DataLoader, teacher: Teacher, device: torch.device) -> Iterator[Tensor]:
    """Crossing tensors of the first batches."""
    for x, _ in islice(batches, _CALIBRATION_BATCHES):
        yield _crossing(x, teacher, device)


def _crossing(x: Any, teacher: Teacher, device: torch.device) -> Tensor:
    """What crosses for a batch of samples, or of features already."""
    x = mapped(lambda t: t.to(device), x)
    return x if teacher.head is None else call(teacher.head, x)[0]

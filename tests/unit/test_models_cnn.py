"""StagedCnn: its stages, its narrow places, and that it learns."""

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.utils.data import DataLoader

from splitsem.models.cnn import StagedCnn
from splitsem.tasks.digits import Digits
from splitsem.workflows import own_model
from tests.unit.shaped import Shaped

CONF = Path(__file__).parents[2] / "conf"
SHAPES = {
    "digits": ((1, 8, 8), 10),
    "fashion_mnist": ((1, 28, 28), 10),
    "cifar10": ((3, 32, 32), 10),
    "cifar100": ((3, 32, 32), 100),
    "imagefolder": ((3, 224, 224), 7),
    "cnn": ((1, 16, 24), 3),
}


def composed(group: str, option: str) -> DictConfig:
    """What the group holds when the task ``option``, or the model ``cnn`` of no known task, is chosen."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        if option == "cnn":
            return compose(overrides=[f"+{group}={option}"])[group]
        return compose("config", [f"task={option}"])[group]


@pytest.mark.parametrize("option", SHAPES)
def test_each_tasks_default_model_fits_its_task(option: str) -> None:
    input_shape, num_classes = SHAPES[option]
    model = instantiate(composed("model", option), input_shape=input_shape, output_shape=(num_classes,))
    assert model(torch.rand(2, *input_shape)).shape == (2, num_classes)


@pytest.mark.parametrize("option", sorted(set(SHAPES) - {"cnn"}))
def test_each_tasks_default_model_has_a_natural_bottleneck_before_its_last_stage(option: str) -> None:
    input_shape, num_classes = SHAPES[option]
    model = instantiate(composed("model", option), input_shape=input_shape, output_shape=(num_classes,)).eval()
    x = picture = torch.rand(1, *input_shape)
    sizes = {}
    for name, stage in model.named_children():
        x = stage(x)
        sizes[name] = x.numel()
    last = max(name for name in sizes if name.startswith("stage"))
    assert min(size for name, size in sizes.items() if name.startswith("stage") and name != last) < picture.numel()


def test_stages_are_named_and_in_order() -> None:
    model = StagedCnn((3, 16, 16), (5,), widths=(8, 8, 8))
    assert [name for name, _ in model.named_children()] == ["stem", "stage1", "stage2", "stage3", "pool", "classifier"]


def test_every_stage_halves_the_picture() -> None:
    model = StagedCnn((3, 32, 48), (5,), widths=(4, 6), stem_stride=2).eval()
    x = model.stem(torch.rand(1, 3, 32, 48))
    assert x.shape[2:] == (16, 24)
    assert model.stage1(x).shape == (1, 4, 8, 12)
    assert model.stage2(model.stage1(x)).shape == (1, 6, 4, 6)


def test_dropout_is_there_only_when_asked_for() -> None:
    assert hasattr(StagedCnn((1, 8, 8), (2,), dropout=0.1), "dropout")
    assert not hasattr(StagedCnn((1, 8, 8), (2,)), "dropout")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_shape": (8, 8)}, r"input_shape must be \(channels, height, width\), got \(8, 8\)"),
        ({"output_shape": (3, 8, 8)}, "StagedCnn only classifies"),
        ({"widths": ()}, "widths and inner_widths must be as many, at least one, and positive"),
        ({"widths": (8, 8), "inner_widths": (8,)}, "widths and inner_widths must be as many"),
        ({"widths": (8, 0)}, "and positive"),
        ({"stem_width": 0}, "stem_width 0"),
        ({"stem_stride": 3}, "stem_stride must be 1, 2 or 4, got 3"),
        ({"widths": (4,) * 5}, "need at least 16×16 pixels; give fewer widths"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StagedCnn(**{"input_shape": (1, 8, 8), "output_shape": (10,), **arguments})


def test_default_model_of_digits_reaches_97_percent() -> None:
    task = instantiate(composed("task", "digits"))
    assert isinstance(task, Digits)
    torch.manual_seed(0)
    model = instantiate(composed("model", "digits"), input_shape=task.input_shape, output_shape=task.output_shape)
    loader = DataLoader(task.splits().train, 128, shuffle=True, drop_last=True)
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=30 * len(loader))
    for _ in range(30):
        for x, y in loader:
            optimiser.zero_grad()
            task.loss(model(x), y).backward()
            optimiser.step()
            schedule.step()
    metrics = task.metrics()
    with torch.no_grad():
        for x, y in DataLoader(task.splits().test, 512):
            metrics.update(model.eval()(x), y)
    assert metrics.compute()["score"] >= 0.97


@pytest.mark.parametrize("option", ["fashion_mnist", "cifar10", "cifar100"])
def test_task_configs_are_their_constructors_arguments(option: str) -> None:
    task = instantiate(composed("task", option))
    assert (task.input_shape, task.output_shape) == (SHAPES[option][0], (SHAPES[option][1],))


def test_imagefolder_must_be_told_its_root() -> None:
    config = composed("task", "imagefolder")
    assert OmegaConf.is_missing(config, "root")


def test_custom_model_is_named_on_the_command_line() -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        overrides = ["+model=custom", "model._target_=torch.nn.Linear", "+model.in_features=3", "+model.out_features=2"]
        model = own_model.make(compose(overrides=overrides).model, Shaped((3,), (2,)))
    assert isinstance(model, nn.Linear)

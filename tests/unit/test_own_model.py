"""A user's own model: imported, made, fitted to one tensor in and one out; or one line with file, line and remedy."""

import logging
import re
import sys
from collections import namedtuple
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from splitsem.errors import ConfigError, SplitSemError
from splitsem.models.ready_made import torchvision_model
from splitsem.splitting.graph import SplitGraph
from splitsem.trees import by_path, leaves
from splitsem.workflows import own_model
from tests.unit.shaped import Shaped

INPUT, OUTPUT = (1, 8, 8), (10,)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def make(target: str, output_shape: Sequence[int] = OUTPUT, **options: Any) -> nn.Module:
    return own_model.make(OmegaConf.create({"_target_": target, **options}), Shaped(INPUT, output_shape))


def refusal(target: str, **options: Any) -> str:
    with pytest.raises(SplitSemError) as caught:
        make(target, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import torch\nclass Net(torch.nn.Module:\n    pass\n", "SyntaxError.*{file}:2"),
        ("from torch import nothing_there\n", "ImportError: cannot import name 'nothing_there'.*{file}:1"),
        ("\nimport no_such_package_here\n", "No module named 'no_such_package_here'.*{file}:2"),
        ("x = 1 / 0\n", "ZeroDivisionError.*{file}:1"),
        ("class Odd(Exception): pass\nraise Odd('as they like')\n", "Odd: as they like.*{file}:2"),
        ("import sys\nsys.exit('bye')\n", "SystemExit: bye.*{file}:2"),
        ("class Net: pass\n", "makes a Net; a model must be a torch.nn.Module"),
        ("from torch import nn\nclass Nett(nn.Linear): pass\n", "users_net has no Net; did you mean Nett?"),
        ("Net = 5\n", "is a int; give a class"),
        ("from torch import nn\nclass Net(nn.Module):\n  def __init__(self):\n    self.a = b\n", "NameError.*{file}:4"),
        ("from torch import nn\nclass Net(nn.Module):\n  def __init__(self, w): pass\n", "missing.*'w'; it takes w"),
    ],
)
def test_a_module_that_fails_is_told_with_file_and_line(folder: Path, text: str, said: str) -> None:
    file = folder / "users_net.py"
    file.write_text(text)
    assert re.search(said.format(file=re.escape(str(file))), refusal("users_net.Net"))


def test_a_name_that_is_no_class_is_told_with_the_remedy() -> None:
    assert "there is no module nowhere_at_all; add its folder to PYTHONPATH" in refusal("nowhere_at_all.Net")
    assert "must be module.Class" in refusal("Net")
    with pytest.raises(ConfigError, match="needs the class of your model"):
        own_model.make(OmegaConf.create({"_target_": "???"}), Shaped(INPUT, OUTPUT))


class Net(nn.Module):
    """A body and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5))
        self.fc, self.aux = nn.Linear(16, 10), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Any:
        return self.fc(self.body(x))


Outputs = namedtuple("Outputs", "aux logits")


@dataclass
class Output:
    logits: Tensor
    hidden: Tensor | None = None


class Returns(Net):
    """Returns its main output, and an auxiliary one, in some structure."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: Tensor) -> Any:
        z = self.body(x)
        y, aux = self.fc(z), self.aux(z)
        return {
            "one in a dict": lambda: {"prediction": y},
            "one, nested": lambda: [({"y": y}, None, 3)],
            "out": lambda: {"aux": aux, "out": y},
            "logits of a named tuple": lambda: Outputs(aux, y),
            "logits of a dataclass": lambda: Output(y, z),
            "a namespace": lambda: SimpleNamespace(logits=y),
            "the same twice": lambda: (y, y),
            "aux in training": lambda: (aux, y) if self.training else y,
            "a tuple in training": lambda: (y, aux) if self.training else (y,),
        }[self.how]()


HOWS = ["one in a dict", "one, nested", "out", "logits of a named tuple", "logits of a dataclass", "a namespace",
        "the same twice", "aux in training", "a tuple in training"]  # fmt: skip


@pytest.mark.parametrize("how", HOWS)
def test_the_main_tensor_is_what_is_trained_scored_and_cut(how: str) -> None:
    model, plain, x = make(f"{__name__}.Returns", how=how), Net(), torch.rand(4, *INPUT)
    for training in (False, True):
        for one in (model, plain):
            one.train(training)
            torch.manual_seed(1)  # dropout
            one.y = one(x)
        assert torch.equal(model.y, plain.y), (how, training)  # type: ignore[arg-type]
        del model.y, plain.y
    graph, training_graph = SplitGraph(model, INPUT), SplitGraph(model, INPUT, training=True)
    cut = graph.cut("body")
    with torch.no_grad():
        assert torch.equal(cut.tail(*cut.head(x)), plain.eval()(x))
    assert not any(name.startswith("aux") for name in training_graph.cut("body").tail.state_dict())


@pytest.mark.parametrize("how", [how for how in HOWS if "training" not in how])
def test_the_graph_itself_returns_all_that_the_model_returns(how: str) -> None:
    model, x = Returns(how).eval(), torch.rand(2, *INPUT)
    cut = SplitGraph(model, INPUT).cut("body")
    with torch.no_grad():
        split, whole = cut.tail(*cut.head(x)), model(x)
    assert type(split) is type(whole)
    assert list(by_path(split)) == list(by_path(whole))
    assert all(map(torch.equal, leaves(split), leaves(whole)))


def test_making_a_model_draws_no_random_number_and_leaves_its_statistics() -> None:
    state = torch.get_rng_state()
    model = make(f"{__name__}.Returns", how="aux in training")
    torch.manual_seed(0)
    plain = Net()
    assert all(map(torch.equal, model.state_dict().values(), plain.state_dict().values()))
    torch.set_rng_state(state)


class Several(Net):
    def forward(self, x: Tensor) -> Any:
        z = self.body(x)
        return [self.fc(z), {"hidden": z}]


class Ambiguous(Net):
    def forward(self, x: Tensor) -> Any:
        y = super().forward(x)
        return (y * 2, y * 3) if self.training else y


class NeedsTargets(Net):
    def forward(self, x: Tensor, targets: Tensor | None = None) -> Any:
        if self.training and targets is None:
            raise ValueError("targets are needed")
        return super().forward(x)


class Inference(Net):
    def forward(self, x: Tensor) -> Any:
        with torch.inference_mode():
            z = self.body(x)
        return self.fc(z)


class TwoInputs(Net):
    def forward(self, x: Tensor, scale: Tensor) -> Any:
        return super().forward(x) * scale


class KeywordOnly(Net):
    def forward(self, *, pixel_values: Tensor) -> Any:
        return super().forward(pixel_values)


def test_what_is_not_one_tensor_is_told_with_a_class_that_mends_it() -> None:
    said = refusal(f"{__name__}.Several")
    assert "got 2: [0] (1, 10), [1]['hidden'] (1, 16)" in said
    assert "class One(Several): def forward(self, x): return super().forward(x)[0]" in said
    assert "forward needs x, scale" in refusal(f"{__name__}.TwoInputs")
    assert "super().forward(x, scale=...)" in refusal(f"{__name__}.TwoInputs")
    assert "super().forward(pixel_values=x)" in refusal(f"{__name__}.KeywordOnly")
    with pytest.raises(ConfigError, match=r"missing 1 required positional argument: 'scale'"):
        SplitGraph(TwoInputs(), INPUT)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Ambiguous", r"in train mode it returns \[0\] \(2, 10\), \[1\] \(2, 10\), and none of these is"),
        ("NeedsTargets", r"works in eval mode, but not in train mode: targets are needed \(.*test_own_model.py:\d+\)"),
        ("Inference", "uses torch.inference_mode; torch.no_grad does the same and can"),
    ],
)
def test_a_model_that_cannot_be_trained_is_cut_but_refuses_training_in_one_line(name: str, said: str) -> None:
    model = make(f"{__name__}.{name}")
    graph, x = SplitGraph(model, INPUT), torch.rand(2, *INPUT)
    with torch.no_grad():
        assert torch.equal(graph.cut("body").tail(*graph.cut("body").head(x)), model.eval()(x))
    with pytest.raises(ConfigError, match=said):
        model.train()(x)
    with pytest.raises(ConfigError, match=said):
        SplitGraph(model, INPUT, training=True)


def compiled() -> nn.Module:
    return torch.compile(Net())  # type: ignore[return-value]


def replicated() -> nn.Module:
    return nn.DataParallel(Net())


def parts_of_both() -> nn.Module:
    model = Net()
    model.body, model.fc = torch.compile(model.body), nn.DataParallel(model.fc)  # type: ignore[assignment]
    model.compile()
    return model


class CompiledForward(Net):
    forward = torch.compile(Net.forward)  # type: ignore[assignment]


def halved() -> nn.Module:
    return Net().half()


@pytest.mark.parametrize("name", ["compiled", "replicated", "parts_of_both", "CompiledForward", "halved"])
def test_what_only_runs_a_model_faster_is_taken_off(name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "splitsem")
    model, plain, x = make(f"{__name__}.{name}"), Net(), torch.rand(2, *INPUT)
    assert list(model.state_dict()) == list(plain.state_dict())
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert ("float16; they become float32" in caplog.text) == (name == "halved")
    names = [[p.name for p in SplitGraph(one, INPUT, granularity="op").points] for one in (model, plain)]
    assert names[0] == names[1]
    if name != "halved":
        assert torch.equal(model.eval()(x), plain.eval()(x))


def test_of_a_wrapper_the_graph_cuts_what_is_inside() -> None:
    graph = SplitGraph(nn.DataParallel(Net()), INPUT)
    assert [p.name for p in graph.points] == [p.name for p in SplitGraph(Net(), INPUT).points]


class Shrinks(nn.Sequential):
    def __init__(self) -> None:
        stages = (nn.Sequential(nn.Conv2d(1 if i == 0 else 4, 4, 3), nn.MaxPool2d(2)) for i in range(3))
        super().__init__(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))


def test_an_input_that_is_too_small_is_told_with_a_size_that_is_not() -> None:
    said = refusal(f"{__name__}.Shrinks")
    assert "Shrinks cannot take inputs of (1, 8, 8)" in said
    assert "It takes (1, 32, 32): give it a task with larger inputs" in said
    with pytest.raises(ConfigError, match=r"vgg11 cannot .*\(1, 8, 8\).*by the model's image_size=32"):
        torchvision_model("vgg11", INPUT, OUTPUT)


def test_googlenet_with_auxiliary_classifiers_trains_by_its_main_one() -> None:
    options = {"name": "googlenet", "aux_logits": True, "image_size": 64}
    model = make("splitsem.models.ready_made.torchvision_model", **options)
    assert model.train()(torch.rand(2, *INPUT)).shape == (2, 10)


class Unspecified(Net):
    """Asks for the number of its outputs."""

    def __init__(self, output_shape: Sequence[int]) -> None:
        super().__init__()
        self.fc = nn.Linear(16, output_shape[0])


def test_without_labels_the_output_shape_is_asked_for_and_can_be_given() -> None:
    target = f"{__name__}.Unspecified"
    with pytest.raises(SplitSemError, match=r"IndexError.*give it.*'\+model\.output_shape=\[10\]'"):
        make(target, output_shape=())
    settings = OmegaConf.create({"_target_": target, "output_shape": [3]})
    assert own_model.make(settings, Shaped(INPUT, ())).fc.out_features == 3

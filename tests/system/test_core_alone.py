"""What ``pip install splitsem`` alone is good for: all else is missing here, and told by one line where it is needed.

The environment of these tests has the core's packages only: links to those that are installed, in a folder of its own.
"""

import ast
import os
import subprocess
import sys
import sysconfig
import tomllib
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from safetensors.torch import save_file

from splitsem import extras
from splitsem.models.unet import UNet
from splitsem.tasks.disaster import Disaster
from tests.conftest import ENVIRONMENT, ROOT

pytestmark = pytest.mark.slow
HERE = Path(sysconfig.get_paths()["purelib"])
SCRIPT = """
import importlib, pkgutil
import torch
for package in ("splitsem.splitting", "splitsem.codecs", "splitsem.links", "splitsem.remote"):
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
        if module.name != "splitsem.remote.split_module":  # which trains
            importlib.import_module(module.name)

from splitsem.codecs.quantise import Quantise
from splitsem.links.fading import Rayleigh
from splitsem.models.cnn import StagedCnn
from splitsem_device.grpc.client import GrpcTail
from splitsem_device.grpc.connection import Security
from splitsem.remote.grpc.server import GrpcServer
from splitsem.remote.grpc.streams import Limits
from splitsem_device.plan import Plan
from splitsem.remote.labels import codec_label, weights_digest
from splitsem_device.retry import Backoff
from splitsem.remote.tail_engine import TailEngine, contiguous
from splitsem.splitting.graph import SplitGraph
from splitsem.tasks.answer import Values

model = StagedCnn((1, 8, 8), (10,), widths=[4, 8], inner_widths=None, stem_width=4).eval()
graph, x = SplitGraph(model, (1, 8, 8)), torch.rand(1, 1, 8, 8)
cut, codec, answers = graph.cut("stage1"), Quantise(8, entropy="context"), Values((10,))
with torch.inference_mode():
    payload = codec.encode(cut.head(x))
    expected = cut.tail(*codec.decode(payload))
server = GrpcServer(TailEngine(graph, weights_digest(model)), "127.0.0.1:0", Security(), Limits())
tail = GrpcTail(server.start(), 4, Backoff(), Security())
label = codec_label(codec)
tail.open(Plan(graph.fingerprint, weights_digest(model), "stage1", "layer", "float32", label, answers.name))
(answer,) = tail.stream([payload])
assert torch.equal(Values((1, 10)).decode(contiguous(answer.payload)), expected)
tail.close()
server.stop(1)

import splitsem
from splitsem.errors import ConfigError
assert splitsem.codec("quant8").encode(cut.head(x))
try:
    graph.table()
except ConfigError as exc:
    assert str(exc).startswith("a table of split points needs pandas: pip install 'splitsem[plots]'"), exc
print("answered")
"""


def core() -> list[Distribution]:
    """The packages of the core, and what they need."""
    asked = [
        Requirement(one) for one in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    ]
    found: dict[str, Distribution] = {}
    while asked:
        one = asked.pop()
        if f"{one.name}{one.extras}" not in found:
            found[f"{one.name}{one.extras}"] = distribution(one.name)
            needs = map(Requirement, distribution(one.name).requires or [])
            asked += [
                need
                for need in needs
                if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in ("", *one.extras))
            ]
    return list(found.values())


@pytest.fixture(scope="module")
def packages(tmp_path_factory) -> Path:
    """A folder of links to the core's packages; what several packages share is a folder here too."""
    folder = tmp_path_factory.mktemp("core") / "site-packages"  # what is elsewhere counts as a user's own code
    for one in core():
        for file in one.files or []:
            parts = file.parts
            if parts[0] == ".." or "__pycache__" in parts:
                continue
            depth = 1 if len(parts) == 1 or (HERE / parts[0] / "__init__.py").exists() or "-info" in parts[0] else 2
            link = folder.joinpath(*parts[:depth])
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.symlink_to(HERE.joinpath(*parts[:depth]))
    return folder


@pytest.fixture
def alone(packages, tmp_path):
    """Run Python with the core alone; returns the finished process."""

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join(map(str, (packages, ROOT, ROOT / "device")))
        return subprocess.run(
            [sys.executable, "-S", *arguments],  # without site, and so without its packages
            cwd=tmp_path,
            env=os.environ | ENVIRONMENT | {"PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return call


def test_the_environment_lacks_every_package_of_an_extra(alone):
    shown = alone("-c", "from splitsem import extras; print(extras.missing())")
    missing = ast.literal_eval(shown.stdout)
    there = {"jinja2", "onnxruntime"}  # which packages of the core need, too
    assert missing == {extra: [one for one in names if one not in there] for extra, names in extras.PACKAGES.items()}


def test_a_network_is_cut_its_features_coded_and_answered_over_grpc(alone):
    done = alone("-c", SCRIPT)
    assert (done.returncode, done.stdout) == (0, "answered\n"), done.stderr


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--cfg", "job"], ["workflow=points", "task=disaster", "tracking=none"]]
)
def test_what_needs_no_more_runs(alone, arguments):
    done = alone(str(ROOT / "run.py"), *arguments)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_cut_is_scored_with_given_weights_and_a_line_for_the_figures(alone, tmp_path):
    task = Disaster()
    torch.manual_seed(0)
    save_file(UNet(task.input_shape, task.output_shape).state_dict(), tmp_path / "w.safetensors")
    settings = ["trainer.weights=w.safetensors", "workflow.num_samples=4", "split.point=enc1", "hydra.run.dir=run"]
    done = alone(str(ROOT / "run.py"), "task=disaster", "tracking=none", *settings)
    assert done.returncode == 0, done.stderr
    assert "No figures: pip install 'splitsem[plots]'" in done.stdout
    assert (tmp_path / "run" / "metrics.json").exists()
    assert not list((tmp_path / "run").glob("*.png"))


@pytest.mark.parametrize(
    ("arguments", "extra", "what"),
    [
        ("", "tracking", "tracking=mlflow"),
        ("tracking=none", "training", "task=digits"),
        ("tracking=none task=disaster", "training", "training a network"),
        ("tracking=none task=photos", "vision", "task._target_"),
        ("tracking=none task=disaster model=torchvision model.name=resnet18", "vision", "model"),
        ("tracking=none task=detection task/source=video", "vision", ""),
        ("tracking=none task=disaster model=transformers model.name=x", "transformers", "model=transformers"),
        ("tracking=none workflow=codec codec=semanticnn task=disaster", "plots", ""),
        ("tracking=none workflow=federated task=disaster", "federated", ""),
        ("tracking=none workflow=joint task=disaster", "plots", ""),
        ("task=disaster -m", "plots", "a sweep (-m)"),
        ("experiment=pareto -m", "sweeps", "hydra/sweeper=optuna"),
        ("experiment=slurm -m", "slurm", "hydra/launcher=submitit_slurm"),
    ],
)
def test_what_needs_an_extra_says_so_in_one_line(alone, arguments, extra, what):
    done = alone(str(ROOT / "run.py"), *arguments.split())
    assert done.returncode != 0
    (line,) = done.stderr.splitlines()
    assert line.startswith(what)
    assert f"pip install 'splitsem[{extra}]'" in line

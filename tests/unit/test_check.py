"""Every built-in codec, task, link, machine and model keeps its contract, and the command says so."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from splitsem.check import check_codec, check_link, check_machine, check_task
from splitsem.check.__main__ import main
from splitsem.check.machine_contract import small_halves
from splitsem.codecs.fixed_length import FixedLength
from splitsem.codecs.quantise import Quantise
from splitsem.codecs.topk import TopK
from splitsem.cost.machines import Roofline
from splitsem.links.channel import Bsc
from splitsem.links.fec import Convolutional
from splitsem.links.lossy import LossyLink
from splitsem.links.probed import ProbedLink
from splitsem.links.recorded import LinkMetrics, write_link_metrics
from splitsem.links.simulated import SimulatedLink
from splitsem.tasks.fashion_mnist import FashionMnist
from tests.conftest import ROOT
from tests.unit.test_tasks_classification_files import write_fashion_mnist

CONF = ROOT / "conf"
REAL = {"grpc", "udp"}  # transports between two processes: their contract is in tests/integration
FROM_FILES = {"trace", "recorded"}


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", options("codec"))
def test_every_codec_keeps_its_contract(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    status = main([f"codec={name}", "tensor_shape=[3,12,12]"])
    printed = capsys.readouterr().out
    assert status == 0, printed
    assert printed.startswith(f"ok: codec={name} keeps the contract of a codec (")


@pytest.mark.parametrize(
    "codec",
    [
        *(Quantise(4, granularity="channel", entropy=entropy) for entropy in ("none", "zstd", "rans")),
        *(TopK(0.2, values=values) for values in ("float16", "quantised")),
        FixedLength(3, granularity="channel", mapping="gray", order="planes"),
        Quantise(8, clipping="percentile", percentile=99.0),
    ],
    ids=lambda codec: type(codec).__name__,
)
def test_codecs_keep_their_contract_in_their_other_settings(codec: Quantise | TopK) -> None:
    check_codec(codec)


@pytest.mark.parametrize("name", sorted(set(options("transport")) - REAL - FROM_FILES))
def test_every_simulated_link_keeps_its_contract(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"transport={name}"]) == 0, capsys.readouterr().out


def test_links_of_files_and_of_probes_keep_their_contract(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "trace").write_text("1\n4\n4\n9\n")
    write_link_metrics(
        LinkMetrics("here:1", "udp", "2026-01-01T00:00:00Z", 0.01, 0.02, 1e6, 1e6), tmp_path / "recorded"
    )
    for name in sorted(FROM_FILES):
        assert main([f"transport={name}", f"transport.path={tmp_path / name}"]) == 0, capsys.readouterr().out
    check_link(ProbedLink([(0, 0.001), (1000, 0.010), (3000, 0.026)], energy_j_per_bit=1e-7))
    check_link(LossyLink(Bsc(0.001), SimulatedLink(1e6, 0.01, 1e-8), body_code=Convolutional(), priority_share=0.5))


@pytest.mark.parametrize("name", options("hardware/machine"))
def test_every_machine_keeps_its_contract(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    setting = ["hardware.machine.budget_s=0.01"] if name == "local" else []
    assert main([f"hardware/machine={name}", *setting]) == 0, capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["task=digits"],
        ["task=netqos", "task.num_samples=3000"],
        ["task=disaster", "task.size=16", "task.num_train=6", "task.num_val=3", "task.num_test=3"],
        ["task=detection", "task.source.num_train=6", "task.source.num_val=3", "task.source.num_test=4"],
        ["task=domains", "task@task.base=digits", "task.domain=null"],
        ["model=cnn", "input_shape=[1,8,8]"],
        ["model=unet", "input_shape=[3,16,16]", "output_shape=[5,16,16]"],
        ["model=lstm", "input_shape=[48,3]", "output_shape=[8]"],
        ["model=repvgg_tiny", "input_shape=[1,16,16]"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_generated_tasks_and_built_in_models_keep_their_contract(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 0, capsys.readouterr().out


def test_a_task_of_files_keeps_its_contract(tmp_path: Path) -> None:
    write_fashion_mnist(tmp_path / "data", zipped=False)
    check_task(lambda: FashionMnist(root=str(tmp_path / "data"), download=False))


@pytest.mark.parametrize("part", ["task=texts", "model=tiny_bert"])
def test_texts_and_a_network_that_reads_them_keep_their_contract(
    part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if part.startswith("model="):
        pytest.importorskip("transformers")
    texts = [f"{greeting} {number},{name}" for name, greeting in (("en", "hello"), ("de", "hallo")) for number in "123"]
    (tmp_path / "texts.csv").write_text("\n".join(["text,label", *texts]))
    beside = ["task=texts"] if part.startswith("model=") else []
    status = main([part, *beside, f"task.root={tmp_path / 'texts.csv'}", "task.sequence_length=12"])
    assert status == 0, capsys.readouterr().out


def test_a_detector_keeps_its_contract_part_by_part(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model=detector", "model.width=4", "task=detection", "task.size=[32,48]", "-v"]) == 0
    printed = capsys.readouterr().out
    assert "  in train mode, forward is network alone" in printed
    assert "  what postprocess makes of a sample does not depend on its batch" in printed


def test_a_latency_table_is_tried_on_the_halves_of_its_own_network(tmp_path: Path) -> None:
    machine = Roofline(1e9, 1e9, active_w=2.0, idle_w=1.0, coding_bytes_per_s=1e7)
    promises = check_machine(machine, small_halves())
    assert "a half with more operations never takes less time" in promises


def test_a_class_takes_arguments_and_lists_its_promises(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["splitsem.codecs.topk.TopK", "keep_ratio=0.3", "entropy=none", "--verbose"]) == 0
    first, *promises = capsys.readouterr().out.splitlines()
    assert first == f"ok: TopK keeps the contract of a codec ({len(promises)} promises)"
    assert "  gradients pass through forward" in promises


def test_a_setting_that_the_file_of_an_option_lacks_is_told_with_its_plus(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "codec").mkdir()
    (tmp_path / "codec" / "mine.yaml").write_text("_target_: splitsem.codecs.topk.TopK\nkeep_ratio: 0.5\n")
    mine = ["codec=mine", f"--config-dir={tmp_path}"]
    assert main([*mine, "codec.entropy=none"]) == 1
    assert (
        "its file does not list entropy, but its class takes it: +codec.entropy=VALUE adds" in capsys.readouterr().out
    )
    assert main([*mine, "+codec.entropy=none"]) == 0


def test_a_function_that_makes_a_model_is_recognised(capsys: pytest.CaptureFixture[str]) -> None:
    facts = ["input_shape=[3,32,32]", "output_shape=[10]"]
    assert main(["splitsem.models.ready_made.torchvision_model", "name=squeezenet1_1", *facts]) == 0
    assert capsys.readouterr().out.startswith("ok: torchvision_model keeps the contract of a model (")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["splitsem.codecs.Nope"], "splitsem.codecs.Nope: no such class or function (module 'splitsem.codecs' has no"),
        (["no_such_package.Codec"], "no such class or function (No module named 'no_such_package')"),
        (["splitsem.codecs.quantise.Quantise", "bits=3"], "has no argument 'bits'; it has bit_width, granularity,"),
        (["splitsem.codecs.quantise.Quantise", "bit_width"], "settings are name=value, e.g. level=9, got 'bit_width'"),
        (["splitsem.codecs.quantise.Quantise", "bit_width=[3"], "the value of bit_width must be YAML"),
        (["splitsem.codecs.quantise.Quantise", "bit_width=30"], "raised ValueError: bit_width must be 1…16, got 30"),
        (["codec=nope"], "codec has no option nope: There are adjscc, agilenn,"),
        (["codec=quant9"], "codec has no option quant9: did you mean quant8? There are"),
        (["code=quant8"], "got 'code' (did you mean codec?); or give package.module.Class"),
        (["splitsem.codecs.topk.TopJ"], "has no attribute 'TopJ'; did you mean TopK?"),
        (["codec=quant", "codec.bit_widht=3"], "codec=quant has no setting codec.bit_widht: did you mean bit_width?"),
        (["task=digits", "task.samples=3"], "task=digits has no setting task.samples: "),
        (["codec=quant", "bit_width=3"], "bit_width=3 is no setting of codec=quant: give codec.bit_width=3, with +"),
        (["codec=quant", "+bit_width=-1"], "+bit_width=-1 is no setting of codec=quant: give codec.bit_width=-1"),
        (
            ["hardware/machine=local", "overhead_s=1e-5"],
            "overhead_s=1e-5 is no setting of hardware/machine=local: give hardware.machine.overhead_s=1e-5, with + in",
        ),
        (["model=cnn", "hardware.edge.lut=x"], "those begin with model., as in model.NAME=VALUE"),
        (["model=cnn", "task=digits", "+sed=3"], "+sed=3 is no setting of model=cnn: give model.sed=3"),
        (
            ["trainer=digits"],
            "a group of options is one of codec, task, model, transport, hardware/machine, got 'trainer'",
        ),
        (["model=cnn", "task.size=3"], "task.size=3 is a setting of a task: add task=NAME"),
        (["codec=quant8", "task=digits"], "codec=quant8 is no model, and needs no task"),
        (["model=cnn", "task=texts"], "task.root is required; give task.root=VALUE"),
        (["transport=trace"], "transport=trace: transport.path is required; give transport.path=VALUE"),
        (["transport=grpc"], "a Codec, Task, Link, Machine or nn.Module has a contract to check, got Grpc"),
        (["textwrap.dedent"], "it can be called: raised TypeError"),
        (
            ["task=imagefolder", "task.root=nowhere"],
            "the constructor makes a Task: raised DataError",
        ),
    ],
)
def test_a_wrong_request_is_told_in_a_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 1
    assert said in capsys.readouterr().out


def test_help_teaches_without_loading_torch() -> None:
    script = (
        "import sys, json, contextlib, io; from splitsem.check.__main__ import main; out = io.StringIO()\n"
        "with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit): main(['--help'])\n"
        "print(json.dumps([out.getvalue(), 'torch' in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True, text=True)
    text, is_torch_there = json.loads(done.stdout)
    assert not is_torch_there
    assert "python -m splitsem.check my_package.MyCodec level=9" in text
    assert "hardware/machine=laptop_cpu hardware.machine.overhead_s=1e-5" in text

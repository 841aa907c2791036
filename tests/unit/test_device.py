"""Placement: where torch runs, in which precision, and what it says when that is not possible."""

import platform
import subprocess
import sys
import textwrap
from pathlib import Path

import hydra
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from splitsem.errors import ConfigError
from splitsem.placement import Placement, built_for, describe_machine

CONF = Path(__file__).parents[2] / "conf" / "device"


def test_auto_takes_a_gpu_exactly_if_there_is_one() -> None:
    assert Placement("auto").torch_device.type == ("cuda" if torch.cuda.is_available() else "cpu")


def is_possible(name: str) -> bool:
    built = {"cuda": torch.version.cuda, "rocm": torch.version.hip}
    return name in ("auto", "cpu") or (built[name] is not None and torch.cuda.is_available())


@pytest.mark.parametrize("name", ["auto", "cpu", "cuda", "rocm"])
def test_option_instantiates_or_says_what_this_torch_was_built_for(name: str) -> None:
    config = OmegaConf.load(CONF / f"{name}.yaml")
    assert config.accelerator == name
    if is_possible(name):
        assert isinstance(hydra.utils.instantiate(config), Placement)
        return
    with pytest.raises(hydra.errors.InstantiationException) as caught:
        hydra.utils.instantiate(config)
    assert isinstance(caught.value.__cause__, ConfigError)
    assert f"device={name}" in str(caught.value.__cause__)
    assert f"built for {built_for()}" in str(caught.value.__cause__)


def test_rocm_on_a_torch_without_it_says_so() -> None:
    if torch.version.hip is not None:
        pytest.skip("this torch is built for ROCm")
    with pytest.raises(ConfigError, match=r"device=rocm is not possible: this torch was built for .*; try device=auto"):
        Placement("rocm")


def test_model_and_floating_inputs_get_the_precision_and_integers_keep_theirs() -> None:
    placement = Placement("cpu", precision="bfloat16")
    model = placement.place(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert model[1].num_batches_tracked.dtype == torch.int64
    assert placement.place_tensor(torch.ones(2)).dtype == torch.bfloat16
    assert placement.place_tensor(torch.ones(2, dtype=torch.int64)).dtype == torch.int64


def test_threads_are_set_only_when_asked_for() -> None:
    before = torch.get_num_threads()
    try:
        Placement("cpu").set_threads()
        assert torch.get_num_threads() == before
        Placement("cpu", num_threads=1).set_threads()
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ({"accelerator": "tpu"}, "accelerator must be one of auto, cpu, cuda, rocm, got 'tpu'"),
        ({"precision": "int8"}, "precision must be one of float32, bfloat16, float16, got 'int8'"),
        ({"num_threads": 0}, "num_threads must be 1…1024"),
    ],
)
def test_impossible_device_is_refused_with_the_rule(arguments: dict, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        Placement(**arguments)


def test_machine_is_described_in_words() -> None:
    description = describe_machine()
    assert description["processor"]
    assert int(description["cores"]) >= 1


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library keeps what it likes")
def test_freed_memory_is_kept_for_the_next_step():
    """Blocks above 32 MiB, which glibc gives back otherwise: a page fault for each 4 KiB of each of them."""
    program = """
        import resource, torch
        from splitsem.placement import keep_freed_memory

        def num_faults():
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            for _ in range(10):
                torch.ones(64 << 20, dtype=torch.uint8)
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

        print(num_faults())
        keep_freed_memory()
        num_faults()  # until the free blocks have the sizes that are asked for
        num_faults()
        print(num_faults())
    """
    told = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True)
    given_back, kept = map(int, told.stdout.split())
    assert kept < given_back / 20

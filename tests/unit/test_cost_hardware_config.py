"""conf/hardware: pairs compose, each machine can be changed alone, and every profile is plausible."""

import re
from pathlib import Path

import hydra
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from published_networks import PUBLISHED, predicted_ms
from splitsem.cost.machines import Local, Machine, Roofline

CONF = Path(__file__).parents[2] / "conf"
PAIRS = sorted(path.stem for path in (CONF / "hardware").glob("*.yaml"))
MACHINES = sorted(path.stem for path in (CONF / "hardware" / "machine").glob("*.yaml"))


@pytest.fixture
def primary(tmp_path: Path) -> Path:
    """A primary config of only the hardware group, so that this test needs no other part of the project."""
    (tmp_path / "config.yaml").write_text(
        f"defaults:\n  - hardware: pi4_desktop\n  - _self_\nhydra:\n  searchpath: ['file://{CONF}']\n"
    )
    return tmp_path


def composed(primary: Path, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(primary), version_base="1.3"):
        return compose("config", overrides=list(overrides))


@pytest.mark.parametrize("pair", PAIRS)
def test_pair_gives_an_edge_and_a_server_that_are_machines(primary: Path, pair: str) -> None:
    hardware = composed(primary, f"hardware={pair}").hardware
    assert set(hardware) == {"edge", "server"}
    assert all(isinstance(hydra.utils.instantiate(hardware[side]), Machine) for side in hardware)


def test_one_machine_changes_alone(primary: Path) -> None:
    default = composed(primary).hardware
    changed = composed(primary, "hardware/machine@hardware.edge=jetson_tx2").hardware
    assert changed.edge == OmegaConf.load(CONF / "hardware" / "machine" / "jetson_tx2.yaml")
    assert changed.server == default.server


def test_one_value_changes_alone_and_a_typo_is_refused(primary: Path) -> None:
    assert composed(primary, "hardware.edge.active_w=9").hardware.edge.active_w == 9
    assert composed(primary, "hardware.edge.lut=some.json").hardware.edge.lut == "some.json"
    with pytest.raises(hydra.errors.ConfigCompositionException, match=r"hardware\.edge\.activ_w"):
        composed(primary, "hardware.edge.activ_w=9")


@pytest.mark.parametrize("name", MACHINES)
def test_profile_states_the_source_of_each_number_and_is_plausible(name: str) -> None:
    path = CONF / "hardware" / "machine" / f"{name}.yaml"
    machine = hydra.utils.instantiate(OmegaConf.load(path))
    comment = "".join(line for line in path.read_text().splitlines() if line.startswith("#"))
    if isinstance(machine, Local):
        assert "powers" in comment
        return
    assert isinstance(machine, Roofline)
    numbers = ("peak_flops_per_s", "memory_bytes_per_s", "active_w", "idle_w", "efficiency", "overhead_s")
    assert all(number in comment for number in (*numbers, "coding_bytes_per_s"))
    assert "repack_bytes_per_s" in comment or machine.repack_bytes_per_s is None
    assert len(re.findall(r"\[(published|derived|recalled|assumed)\]", comment)) >= len(numbers) + 1
    assert "Check: " in comment, "what a public measurement of a whole network says, or that none was found"
    assert 5e6 < machine.coding_bytes_per_s < 5e7, "one thread of a processor of the last ten years"
    assert 1 < machine.knee < 50, "FLOP per byte: processors of the last twenty years"
    assert 1e-6 <= machine.overhead_s <= 1e-4


def test_servers_are_faster_than_edges() -> None:
    def peak(name: str) -> float:
        return OmegaConf.load(CONF / "hardware" / "machine" / f"{name}.yaml").peak_flops_per_s

    edges = ("raspberry_pi_4", "raspberry_pi_5", "jetson_tx2", "jetson_orin_nano", "laptop_cpu")
    assert max(map(peak, edges)) < min(map(peak, ("desktop_gpu", "datacenter_gpu")))


def test_the_tx2_has_clocks_and_power_of_one_mode() -> None:
    """Mode 3 of nvpmodel, Max-P ARM: 256 cores at 1.12 GHz within 15 W; Max-N's 1.3 GHz has no such budget."""
    tx2 = OmegaConf.load(CONF / "hardware" / "machine" / "jetson_tx2.yaml")
    assert tx2.peak_flops_per_s == pytest.approx(256 * 2 * 1.12e9, rel=1e-3)
    assert tx2.active_w == 15.0


@pytest.mark.parametrize(
    ("machine", "network", "ratio"), [("raspberry_pi_5", "mobilenet_v2", 0.52), ("raspberry_pi_4", "resnet18", 1.37)]
)
def test_a_machine_file_is_as_far_from_a_public_measurement_as_it_says(
    machine: str, network: str, ratio: float
) -> None:
    public = next(found for found in PUBLISHED if (found.machine, found.network) == (machine, network))
    assert predicted_ms(public) / public.time_ms == pytest.approx(ratio, rel=0.02)

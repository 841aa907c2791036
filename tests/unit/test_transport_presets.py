"""conf/transport: every preset instantiates and says where its numbers come from."""

from pathlib import Path

import hydra
import pytest
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue

from splitsem.links.simulated import SimulatedLink
from splitsem.links.trace import TraceLink

CONF = Path(__file__).parents[2] / "conf" / "transport"
PRESETS = ("ethernet", "wifi", "5g", "lte", "ble", "lora")


def preset(name: str) -> SimulatedLink:
    link = hydra.utils.instantiate(OmegaConf.load(CONF / f"{name}.yaml"))
    assert isinstance(link, SimulatedLink)
    return link


@pytest.mark.parametrize("name", PRESETS)
def test_preset_instantiates_and_states_the_source_of_each_number(name: str) -> None:
    link = preset(name)
    comment = "".join(line for line in (CONF / f"{name}.yaml").read_text().splitlines() if line.startswith("#"))
    for number in ("bandwidth_bps", "rtt_s", "energy_j_per_bit"):
        assert getattr(link, number) > 0
        assert number in comment


def test_a_picture_takes_longer_the_slower_the_network() -> None:
    times_s = [preset(name).send(bytes(100_000)).link_s for name in ("ethernet", "wifi", "lte", "ble", "lora")]
    assert times_s == sorted(times_s)


def test_presets_reach_the_published_goodput_of_their_networks() -> None:
    """Independent figures: 941 Mbit/s of TCP on gigabit Ethernet, 1.40 on LE 2M, 222 bytes in 369 ms at SF7."""
    expected_bps = {"ethernet": 941e6, "ble": 1.40e6, "lora": 222 * 8 / 0.369}
    for name, goodput_bps in expected_bps.items():
        link = preset(name)
        num_bytes = 1000 * link.packet_bytes
        assert 8 * num_bytes / (link.send(bytes(num_bytes)).link_s - link.rtt_s / 2) == pytest.approx(
            goodput_bps, rel=0.01
        )


def test_trace_preset_wants_a_path_and_takes_one(tmp_path: Path) -> None:
    config = OmegaConf.load(CONF / "trace.yaml")
    with pytest.raises(MissingMandatoryValue):
        config.path  # noqa: B018
    path = tmp_path / "constant.trace"
    path.write_text("1\n")
    config.path = str(path)
    assert isinstance(hydra.utils.instantiate(config), TraceLink)

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
    if name != "ethernet":  # whose way back is as its way up
        assert "receive_j_per_bit" in comment
        assert "down_bandwidth_bps" in comment


@pytest.mark.parametrize("name", PRESETS)
def test_no_radio_draws_more_than_a_phone_of_this_decade_can(name: str) -> None:
    """3.5 W: a low-band 5G modem at full rate (SIGCOMM 2021); 5.5 W of Wi-Fi beside a board of 6.4 W was wrong."""
    link = preset(name)
    assert link.energy_j_per_bit * link.bandwidth_bps < 3.5
    assert link.receive_j_per_bit * link.down_bandwidth_bps < 3.5


def test_the_duty_cycle_of_lora_bounds_its_throughput() -> None:
    """The 222 bytes of a packet take 369 ms on the air, so at 1 % a packet can leave every 36.9 s."""
    report = preset("lora").send(bytes(222))
    assert report.link_busy_s == pytest.approx(36.9, rel=0.01)
    assert report.link_s == pytest.approx(0.369 + 0.05, rel=0.01), "the silence after a packet does not delay it"


def test_a_picture_takes_longer_the_slower_the_network() -> None:
    times_s = [preset(name).send(bytes(100_000)).link_s for name in ("ethernet", "wifi", "lte", "ble", "lora")]
    assert times_s == sorted(times_s)


def test_presets_reach_the_published_goodput_of_their_networks() -> None:
    """Independent figures: 941 Mbit/s of TCP on gigabit Ethernet, 1.40 on LE 2M, 222 bytes in 369 ms at SF7."""
    expected_bps = {"ethernet": 941e6, "ble": 1.40e6, "lora": 222 * 8 / 0.369}
    for name, goodput_bps in expected_bps.items():
        link = preset(name)
        num_bytes = 1000 * link.packet_bytes
        on_air_s = link.send(bytes(num_bytes)).link_busy_s * link.duty_cycle
        assert 8 * num_bytes / on_air_s == pytest.approx(goodput_bps, rel=0.01)


def test_trace_preset_wants_a_path_and_takes_one(tmp_path: Path) -> None:
    config = OmegaConf.load(CONF / "trace.yaml")
    with pytest.raises(MissingMandatoryValue):
        config.path  # noqa: B018
    path = tmp_path / "constant.trace"
    path.write_text("1\n")
    config.path = str(path)
    assert isinstance(hydra.utils.instantiate(config), TraceLink)

"""Scoring over many settings of a link: which settings are taken, and what the area under the curve is."""

import pytest
from omegaconf import OmegaConf

from splitsem.errors import ConfigError
from splitsem.workflows.learned_codec import area, links
from tests.conftest import ROOT


def settings(transport: str, setting: str, values: list[float]):
    made = OmegaConf.load(ROOT / "conf" / "transport" / f"{transport}.yaml")
    return OmegaConf.create(
        {"transport": made, "workflow": {"over": {"setting": setting, "values": values}, "channel_seeds": 1}}
    )


def test_each_value_makes_a_link_with_it_and_leaves_the_settings_as_they_were():
    cfg = settings("bsc", "channel.ber", [0.01, 0.2])
    made = links(cfg)
    assert [make(3).channel.ber for make in made.values()] == [0.01, 0.2]
    assert made[0.2](3).seed == 3
    assert cfg.transport.channel.ber == 0.001


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        (settings("bsc", "channel.snr", [1.0]), "channel.snr is no setting of the LossyLink"),
        (settings("wifi", "bandwidth_bps", [1e6]), "a link that damages bits, e.g. transport=bsc, got a SimulatedLink"),
        (settings("bsc", "channel.ber", []), "values must name at least one"),
    ],
)
def test_what_cannot_be_swept_is_refused(cfg, message):
    with pytest.raises(ConfigError, match=message):
        links(cfg)


def test_a_value_outside_its_range_is_refused_before_anything_runs():
    with pytest.raises(Exception, match="ber must be"):
        links(settings("bsc", "channel.ber", [0.1, 0.9]))


def test_the_area_under_a_curve_does_not_depend_on_the_order_or_on_points_in_between():
    assert area({0.0: 0.2, 4.0: 1.0}) == pytest.approx(0.6)
    assert area({4.0: 1.0, 1.0: 0.4, 0.0: 0.2}) == pytest.approx(0.6)
    assert area({2.0: 0.7}) == 0.7

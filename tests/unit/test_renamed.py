"""Old names are refused with the new ones, and the changelog says the same."""

import re

import pytest
from hydra.utils import get_object

from splitsem.errors import ConfigError
from splitsem.workflows import renamed
from tests.conftest import ROOT

OLD = [(group, old, new) for group, options in renamed.OPTIONS.items() for old, new in options.items()]


@pytest.mark.parametrize(("group", "old", "new"), OLD)
def test_a_removed_option_is_gone_and_what_replaces_it_is_there(group, old, new):
    assert not (ROOT / "conf" / group / f"{old}.yaml").exists()
    option = new.split()[0].partition("=")[2]
    assert (ROOT / "conf" / group / f"{option}.yaml").exists()
    with pytest.raises(ConfigError, match=re.escape(f"{group}={old} is no more: give {new}")):
        renamed.check_arguments([f"{group}={old}"])


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("codec=quant2,fixed4", "give codec=fixed codec.bit_width=4"),
        ("codec=choice(quant2,topk1)", "give codec=topk_quant codec.keep_ratio=0.01"),
        (
            "codec@trainer.gradient_codec=topk1",
            "give codec@trainer.gradient_codec=topk_quant trainer.gradient_codec.keep_ratio=0.01",
        ),
        ("+transport@federated.link=measured", "give transport@federated.link=recorded"),
    ],
)
def test_an_old_option_is_found_in_sweeps_and_in_other_places(argument, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        renamed.check_arguments(["-m", argument])


def test_an_option_of_that_name_in_ones_own_folder_is_taken(tmp_path):
    (tmp_path / "codec").mkdir()
    (tmp_path / "codec" / "fixed4.yaml").touch()
    renamed.check_arguments([f"--config-dir={tmp_path}", "codec=fixed4"])
    renamed.check_arguments(["--config-dir", str(tmp_path), "codec=fixed4"])


@pytest.mark.parametrize(
    "argument", ["codec=quant4", "transport.path=measured", "task=digits", "hydra.job.name=fixed4"]
)
def test_what_is_no_old_name_passes(argument):
    renamed.check_arguments([argument])


@pytest.mark.parametrize("new", sorted({*renamed.CLASSES.values(), *renamed.MODULES.values()}))
def test_each_new_path_is_there(new):
    get_object(new)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("splitsem.transport.fec.repetition.Repetition", "splitsem.links.fec.Repetition"),
        ("splitsem.transport.grpc.transport.Grpc", "splitsem.remote.grpc.transport.Grpc"),
        ("splitsem.optimise.objective.latency", "splitsem.search.objective.latency"),
        ("splitsem.optimise.exact.Exact", "splitsem.search.exact.Exact"),
        ("splitsem.lightning.fit.Fit", "splitsem.training.fit.Fit"),
        ("splitsem.device.Device", "splitsem.placement.Placement"),
        ("splitsem.transport.udp.transport.UdpTransport", "splitsem.remote.udp.transport.UdpTransport"),
    ],
)
def test_an_old_path_leads_to_what_it_named(old, new):
    assert renamed.new_target(old) == new
    get_object(new)


def test_no_path_of_the_configuration_is_an_old_one():
    targets = {
        target
        for path in (ROOT / "conf").rglob("*.yaml")
        for target in re.findall(r"_target_: (splitsem[\w.]+)", path.read_text())
    }
    assert len(targets) > 60
    assert [target for target in sorted(targets) if renamed.new_target(target)] == []


def test_the_changelog_has_the_table():
    assert renamed.table() in (ROOT / "CHANGELOG.md").read_text()

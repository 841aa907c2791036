"""workflow=joint workflow.cuts=anywhere: a set of operations that no split point cuts off, measured as every row."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig

from splitsem.errors import ConfigError
from splitsem.splitting.graph import SplitGraph
from splitsem.workflows.joint import workflow
from splitsem.workflows.result import Result
from tests.conftest import ROOT
from tests.unit.test_workflow_joint_cuts import FIXED
from tests.unit.two_branches import TwoBranches

pytest.importorskip("scipy")
OWN = ("model=custom", "model._target_=tests.unit.two_branches.TwoBranches", "workflow.codecs=[identity,quant8]")
SLOW = ("transport=ethernet", "transport.bandwidth_bps=2e4", "transport.rtt_s=0", "workflow.edge_slowdown=900")
LATENCY = ("optimise.objective._target_=splitsem.search.objective.latency", "~optimise.objective.omega")


def run(cache: Path, folder: Path, *overrides: str) -> Result:
    folder.mkdir(exist_ok=True)
    fixed = [entry for entry in FIXED if not entry.startswith("model")]
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        cfg = compose("config", [*fixed, f"cache_dir={cache}", *overrides], return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        return workflow.run(cfg, folder)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def test_a_set_that_beats_every_split_point_is_chosen_by_what_was_measured(cache, tmp_path):
    result = run(cache, tmp_path / "run", *OWN, *SLOW, *LATENCY, "workflow.cuts=anywhere", "workflow.epsilon=1")
    graph = SplitGraph(TwoBranches().eval(), (1, 8, 8))
    told = json.loads((tmp_path / "run" / "anywhere.json").read_text())
    rows = pd.read_csv(tmp_path / "run" / "rate_accuracy.csv")
    own = rows[rows["split_point"] == told["name"]]
    assert list(own["codec"]) == ["identity", "quant8"]
    assert own["score"].iloc[0] == rows["score"].iloc[0]  # identity is exact there, too
    assert result.metrics["split_point"] == told["name"]
    assert result.metrics["latency_s"] == pytest.approx(rows["latency_s"].min())
    assert "best cut anywhere" in result.headline
    assert result.metrics["baseline_lambda"] < len(graph.points)  # float32 at its best split point
    assert f"cuts anywhere: {told['name']} has {len(told['head'])} operations on the edge" in result.headline
    assert "this choice in other workflows: none" in result.headline
    assert result.metrics["accuracy_ref"] >= result.metrics["accuracy"] - 1
    x, cut = torch.rand(3, 1, 8, 8), graph.cut_anywhere(told["head"])  # as the headline says
    assert torch.equal(cut.tail(*cut.head(x)), graph.model(x))


def test_a_chain_of_operations_has_no_better_set(cache, tmp_path):
    own = ("model=cnn", "model.widths=[4,4]", "model.inner_widths=null", "model.stem_width=4")
    result = run(cache, tmp_path / "run", *own, "workflow.codecs=[identity,quant8]", "workflow.cuts=anywhere")
    assert "cuts anywhere: by the estimates the best set of operations is that of a split point" in result.headline
    assert not (tmp_path / "run" / "anywhere.json").exists()


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (("model=repvgg_tiny",), "workflow.cuts=anywhere is for two machines and networks without branches"),
        (("model=cnn", "hardware.chain=[local,datacenter_gpu]"), "workflow.cuts=anywhere is for two machines"),
    ],
)
def test_what_has_no_cuts_anywhere_is_refused_in_a_line(tmp_path, overrides, says):
    with pytest.raises(ConfigError, match=re.escape(says)):
        run(tmp_path, tmp_path / "run", *overrides, "workflow.cuts=anywhere")

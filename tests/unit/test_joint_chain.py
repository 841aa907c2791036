"""workflow=joint with hardware.chain: an exact choice by real bytes, scored through all hops, and what is refused."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from splitsem.codecs.quantise import Quantise
from splitsem.codecs.tensorwise import Identity
from splitsem.cost.machines import Roofline
from splitsem.errors import ConfigError
from splitsem.links.simulated import SimulatedLink
from splitsem.search.chain import Budget, ChainPlan, evaluated, solve_chain
from splitsem.search.chain_pipeline import ChainHop, ChainPipeline
from splitsem.search.objective import cycle, latency
from splitsem.splitting.graph import SplitGraph
from splitsem.tasks.answer import Values
from splitsem.workflows import offload, serve, settings
from splitsem.workflows.codec_offers import offers
from splitsem.workflows.joint import chain_choice, chain_commands, workflow
from splitsem.workflows.joint.machine_chain import MachineChain, PricedChain, priced
from splitsem.workflows.pasted import PROGRAM
from splitsem.workflows.result import Result
from tests.conftest import ROOT
from tests.unit.test_chain import problem
from tests.unit.test_workflow_joint_cuts import run

CHAIN = "hardware.chain=[raspberry_pi_4,jetson_tx2,datacenter_gpu]"
LINKS = "hardware.links=[wifi,ethernet]"
FEW = "workflow.codecs=[identity,quant4,quant1]"
CYCLE = ("optimise.objective._target_=splitsem.search.objective.cycle", "~optimise.objective.omega")


def link() -> SimulatedLink:
    return SimulatedLink(bandwidth_bps=8e6, rtt_s=0.002, energy_j_per_bit=1e-7)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def done(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    folder = tmp_path_factory.mktemp("chain")
    return folder, run(cache, folder, CHAIN, LINKS, FEW, *CYCLE)


def test_the_choice_is_the_exact_one_and_competes_with_each_machine_alone(done):
    folder, result = done
    document = json.loads((folder / "chain.json").read_text())
    plans = {one["name"]: one for one in document["plans"]}
    alone = {"all on raspberry_pi_4", "all on jetson_tx2", "all on datacenter_gpu"}
    assert alone <= plans.keys() <= {*alone, "chosen", "first and last only"}
    assert plans["chosen"]["value"] <= min(one["value"] for one in plans.values())
    metrics = result.metrics
    assert metrics["throughput_hz"] == pytest.approx(1 / plans["chosen"]["cycle_s"])
    assert metrics["accuracy_ref_val"] - metrics["accuracy_val"] <= metrics["epsilon"]
    assert {"accuracy", "accuracy_ref", "feasible", "energy_j", "predicted_damage"} <= metrics.keys()
    json.dumps(metrics, allow_nan=False)
    lost = metrics["accuracy_ref_val"] - plans["chosen"]["score_val"]
    assert f"loss {metrics['estimated_loss_val']:.4f} estimated, {lost:.4f} scored on val" in result.headline
    assert "loss: estimated, the sum of each hop's own; val: scored through all hops" in result.headline
    assert metrics["estimated_loss_val"] == plans["chosen"]["estimated_loss_val"] <= metrics["predicted_damage"]
    assert result.figures.keys() == {"chain_stages"}
    stages = pd.read_csv(folder / "chain_stages.csv")
    sums = stages.groupby("plan")["seconds"].sum()
    assert sums["chosen"] == pytest.approx(plans["chosen"]["latency_s"])
    machines, sought, *table = result.headline.splitlines()
    assert machines.startswith("machines: raspberry_pi_4 (roofline) → jetson_tx2 (roofline) → ")
    assert sought == "sought: the least cycle that loses at most ε = 0.02 of validation score"
    assert max(map(len, table[: len(plans) + 1])) <= 100
    hops = document["hops"]
    assert f"split.point={hops[0][0]}" in result.headline
    assert f"jetson_tx2: {PROGRAM} workflow=serve task=digits model=cnn " in result.headline
    assert "transport.bind=JETSON_TX2:50051 workflow.forward=DATACENTER_GPU:50051" in result.headline


def test_the_best_score_within_a_budget_or_what_is_too_tight(cache, tmp_path):
    found = run(cache, tmp_path / "a", CHAIN, LINKS, FEW, "workflow.least=damage", "workflow.least_rate_hz=100").metrics
    assert found["cycle_s"] <= 0.01
    assert found["predicted_damage"] == 0
    with pytest.raises(ConfigError, match=r"no cut and codec keeps latency_s 1e-06 \(the least is "):
        run(cache, tmp_path / "b", CHAIN, LINKS, FEW, "workflow.most_latency_s=1e-6")


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (("hardware.chain=[local]",), "hardware.chain needs two machines or more, from the camera on, got local"),
        ((CHAIN, "hardware.links=[wifi]"), "hardware.chain has 3 machines, so hardware.links needs 2, got 1"),
        (("hardware.chain=[local,nowhere]",), "hardware.chain: nowhere is no option of hardware/machine; There are"),
        (("hardware.chain=[local,pi4]",), r"pi4 is no option of hardware/machine; did you mean raspberry_pi_4\?"),
        ((CHAIN, "hardware.links=[wifi,nowhere]"), "hardware.links: nowhere is no option of transport"),
        ((CHAIN, "transport=bsc"), "a chain needs simulated links that lose nothing, .* got bsc"),
        ((CHAIN, "hardware.links=[wifi,grpc]"), "a chain needs simulated links that lose nothing, .* got grpc"),
        (
            (CHAIN, "workflow.steps=[rates,plots]"),
            "all steps but plots: workflow.steps lacks deploy, joint, train",
        ),
        ((CHAIN, "workflow.edge_lut=a.json"), "hardware.chain names its machines: keep a table by workflow=profile"),
        ((CHAIN, "answer.at=server"), "hardware.chain has its answers on the first machine: answer.at=edge"),
    ],
)
def test_a_chain_that_cannot_be_is_refused_in_a_line(tmp_path, overrides, says):
    with pytest.raises(ConfigError, match=says) as caught:
        run(tmp_path, tmp_path / "run", *overrides)
    assert "\n" not in str(caught.value)


def test_another_workflow_and_a_network_with_branches_are_refused(tmp_path):
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        cfg = compose("config", ["workflow=split", CHAIN])
        with pytest.raises(ConfigError, match=r"hardware\.chain is what workflow=joint chooses for"):
            settings.check(cfg)
        cfg = compose("config", ["workflow=joint", "task=digits", CHAIN])
        with pytest.raises(ConfigError, match=r"hardware\.chain is for networks without branches: give model="):
            workflow.run(cfg, tmp_path)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["workflow.fallback=local"], "workflow.onward names a chain of machines: not with workflow.fallback=local"),
        (["controller=adaptive"], "not with controller=adaptive"),
        (["answer.at=server"], "not with answer.at=server"),
        (["transport.start=ssh"], "not with transport.start=ssh"),
    ],
)
def test_what_does_not_go_with_a_chain_is_refused_before_anything_is_trained(settings, says):
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        cfg = compose("config", ["workflow=offload", "workflow.onward=[[stage2,identity]]", *settings])
    with pytest.raises(ConfigError, match=re.escape(says)):
        offload.check_chain(cfg)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["workflow.forward=nowhere"], "workflow.forward=nowhere: an address must be host:port"),
        (["workflow.forward=a:1", "workflow.training=true"], "workflow.training=true trains between two machines"),
        (["workflow.forward=a:1", "transport=udp"], "workflow.forward=a:1 needs transport=grpc"),
    ],
)
def test_a_next_machine_that_cannot_be_is_refused_in_a_line(settings, says):
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        cfg = compose("config", ["workflow=serve", *settings])
    with pytest.raises(ConfigError, match=re.escape(says)):
        serve.next_machine(cfg)


@pytest.mark.parametrize("seed", range(20))
def test_a_plan_by_hand_costs_what_the_solver_says_of_it(seed):
    given = problem(seed, 3, 4, 2)
    for objective in (cycle(), latency()):
        best = solve_chain(given, objective)
        assert evaluated(given, objective, best.cuts, best.codecs) == best
    with pytest.raises(ValueError, match="no plan has the cuts"):
        evaluated(given, latency(), [2, 1], [0, 0])
    assert solve_chain(given, latency(), Budget(damage=0.0)).damage == 0.0


def test_a_choice_whose_hops_lose_more_together_than_they_may_is_said_to():
    plan = ChainPlan((1, 2), (0, 0), (0.0,) * 3, 1.0, 1.0, 10.0, 0.01, 1.0)
    table = PricedChain(problem(0, 3, 4, 2), np.full((4, 2), 0.005), ("input", "a", "b", "output"), ("x", "y"))
    one = chain_choice._Named("chosen", plan, 0.0, 0.95)
    assert chain_choice._loss_told(table, one, 0.96, 0.02) == (
        "its loss 0.0000 estimated, 0.0100 scored on val through all hops"
    )
    assert "which with its margin 0.0100 misses ε = 0.01" in chain_choice._loss_told(table, one, 0.96, 0.01)


class Three(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(*(m for _ in range(3) for m in (torch.nn.Linear(8, 8), torch.nn.Tanh())))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def test_samples_go_through_all_hops_as_bytes_and_the_answer_comes_back_over_each():
    torch.manual_seed(0)
    model = Three()
    graph = SplitGraph(model, (8,))
    one, two = (point.name for point in graph.points[1:3])
    x, coder = torch.rand(5, 8), Values((8,))
    with torch.inference_mode():
        expected = torch.cat([model(sample) for sample in x.split(1)])
    hops = [
        ChainHop(one, link(), (Identity(), Identity())),
        ChainHop(one, link(), None),
        ChainHop(two, link(), (Identity(), Identity())),
    ]
    pipeline = ChainPipeline(graph, hops, coder)
    assert torch.equal(torch.cat([pipeline.run(sample) for sample in x.split(1)]), expected)
    sizes = [hop.frames.payload_bytes for hop in hops]
    assert sizes[0] == sizes[1]
    assert [len(hop.frames.answer_bytes) for hop in hops] == [5, 5, 5]
    assert torch.equal(ChainPipeline(graph, [], coder).run(x), model(x))
    lossy = [ChainHop(one, link(), (Quantise(2), Quantise(2))), ChainHop(two, link(), (Quantise(2), Quantise(2)))]
    with torch.inference_mode():
        (z,) = Quantise(2)(graph.cut(one).head(x[:1]))
        again = graph.cut(two).tail(*Quantise(2)(graph.between(one, two)(z)))
    found = ChainPipeline(graph, lossy, coder).run(x[:1])
    assert np.allclose(found, again, atol=1e-6)
    with pytest.raises(ConfigError, match="passed on unread at the cut where it came, not at"):
        ChainPipeline(graph, [ChainHop(one, link(), None)], coder)


def test_a_chain_of_two_machines_is_priced_as_two_machines_are(cache, tmp_path):
    one_table = "workflow.screening_samples=null"  # whose coding is measured once, and kept for the chain
    both = ("workflow.times=hardware", "hardware=pi5_datacenter", "transport=lte", FEW, one_table)
    run(cache, tmp_path / "two", *both)
    rows = pd.read_csv(tmp_path / "two" / "rate_accuracy.csv")
    run(cache, tmp_path / "chain", "hardware.chain=[raspberry_pi_5,datacenter_gpu]", *both)
    document = json.loads((tmp_path / "chain" / "chain.json").read_text())
    plans = {one["name"]: one for one in document["plans"]}
    for name, point in (("all on raspberry_pi_5", "output"), ("all on datacenter_gpu", "input")):
        codec = ["identity", "quant4", "quant1"][plans[name]["codecs"][0]]  # the best at this score
        same = rows[(rows["split_point"] == point) & (rows["codec"] == codec)].iloc[0]
        assert plans[name]["latency_s"] == pytest.approx(same["latency_s"], rel=0.02)
        assert plans[name]["cycle_s"] == pytest.approx(same["cycle_s"], rel=0.02)


def test_a_link_is_asked_for_each_payload_and_not_for_their_mean():
    rows = pd.DataFrame(
        {
            "split_point": ["input", "output"],
            "codec": ["identity", "identity"],
            "left_out": [None, None],
            "offered": True,
            "score": 1.0,
            "margin": 0.0,
            "damage_error": 0.0,
            "payload_bytes": [1500.0, 0.0],
            "payload_sizes": [[1000, 2000], [0, 0]],
            **dict.fromkeys(("encode_s", "decode_s", "answer_encode_s", "answer_decode_s", "answer_bytes"), 0.0),
        }
    )
    settings = {"_target_": "splitsem.links.simulated.SimulatedLink", "energy_j_per_bit": 0.0, "rtt_s": 0.0}
    packets = OmegaConf.create(settings | {"bandwidth_bps": 8e3, "packet_bytes": 1500, "overhead_bytes": 500})
    machine = Roofline(1e9, 1e9, 1.0, 1.0, coding_bytes_per_s=1e6)
    chain = MachineChain(("a", "b"), (machine, machine), ("link",), (packets,))
    found = priced(chain, rows, np.zeros((2, 2)), 1.0).problem
    assert found.link_busy_s[0, 0, 0] == pytest.approx((1500 + 3000) / 2 / 1000)  # their mean is one packet


def _commands(monkeypatch, hops, *given):
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        cfg = compose("config", ["workflow=joint", *given], return_hydra_config=True)
        entries = OmegaConf.create(["identity", "quant4", {"codec": "topk", "keep_ratio": 0.1}])
        known = {offer.label: offer for offer in offers(entries)}
        mine = known["quant4"]
        known["mine"] = mine._replace(name="mine", settings=mine.settings | {"_target_": "my_package.Codec"})
    monkeypatch.setattr(HydraConfig.instance(), "cfg", cfg)
    return chain_commands.commands(["camera", "gateway", "server"], hops, known)


def test_the_printed_commands_say_all_that_each_machine_needs(monkeypatch):
    given = ("model=cnn", "model.widths=[8,8,8]", "trainer.max_epochs=1", "trainer.weights=w", "workflow.epsilon=0.1")
    hops = [("stage1", "topk keep_ratio=0.1"), ("stage2", "quant4")]
    same = "task=digits model=cnn 'model.widths=[8,8,8]' trainer.max_epochs=1 trainer.weights=w"
    told = _commands(monkeypatch, hops, *given)
    assert told[1:] == [
        f"  server: {PROGRAM} workflow=serve {same} transport.bind=SERVER:50051",
        f"  gateway: {PROGRAM} workflow=serve {same} transport.bind=GATEWAY:50051 workflow.forward=SERVER:50051 "
        "'workflow.codecs=[quant4]'",
        f"  camera: {PROGRAM} workflow=offload {same} transport.target=GATEWAY:50051 split.point=stage1 codec=topk "
        "codec.keep_ratio=0.1 'workflow.onward=[[stage2,quant4]]'",
    ]


def test_a_codec_of_ones_own_is_named_where_it_is_read(monkeypatch):
    _, server, gateway, camera = _commands(monkeypatch, [("stage1", "mine"), ("stage1", "")])
    assert server.endswith("transport.bind=SERVER:50051 codec=mine")
    assert gateway.endswith("transport.bind=GATEWAY:50051 codec=mine workflow.forward=SERVER:50051")
    assert camera.endswith("split.point=stage1 codec=mine \"workflow.onward=[[stage1,'']]\"")
    _, server, camera = _commands(monkeypatch, [("stage1", "topk keep_ratio=0.1")])
    assert "  gateway: " in server
    assert "codec" not in server
    assert _commands(monkeypatch, []) == ["to run it: all of it computes on the first machine"]

"""Workflow joint on a network without branches: its table, its choice, what is reused and what is refused."""

import csv
import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from torch import Tensor
from torch.utils.data import Dataset

from splitsem.codecs.quantise import Quantise
from splitsem.cost.lut import read_lut
from splitsem.errors import ConfigError
from splitsem.links.simulated import SimulatedLink
from splitsem.models.cnn import StagedCnn
from splitsem.pipeline import Pipeline
from splitsem.placement import Placement
from splitsem.search.deployed import DeployedCodec
from splitsem.search.objective import quantile
from splitsem.splitting.graph import SplitGraph
from splitsem.tasks.digits import Digits
from splitsem.tasks.task import Splits
from splitsem.workflows.joint import cut_rows, workflow
from splitsem.workflows.result import Result
from tests.conftest import ROOT

FIXED = (
    "workflow=joint",
    "task=digits",
    "model=cnn",
    "model.widths=[4,4]",
    "model.inner_widths=null",
    "model.stem_width=4",
    "device=cpu",
    "trainer.max_epochs=1",
    "trainer.batch_size=32",
    "trainer.limit_train_batches=8",
    "workflow.num_samples=40",
    "workflow.half_s=0.002",
)
CODECS = "workflow.codecs=[fp16,quant4,{codec:quant,bit_width:[1,2],entropy:zstd},{codec:jpeg,quality:40}]"


class NothingToTest(Dataset):
    """A test split that no one may look at."""

    def __len__(self) -> int:
        return 9

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        raise AssertionError("the test split was looked at")


class DigitsWithoutTest(Digits):
    """Digits of which nobody may see the test split."""

    def splits(self) -> Splits:
        """See Task."""
        return super().splits()._replace(test=NothingToTest())


def run(cache: Path, folder: Path, *overrides: str) -> Result:
    folder.mkdir(exist_ok=True)
    given = [*FIXED, f"cache_dir={cache}", *overrides]
    if not any(entry.startswith("workflow.codecs=") for entry in overrides):
        given.append(CODECS)
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        cfg = compose("config", given, return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        return workflow.run(cfg, folder)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def done(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """All steps."""
    folder = tmp_path_factory.mktemp("run")
    return folder, run(cache, folder)


def table(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "rate_accuracy.csv")


def test_all_steps_leave_their_files_figures_and_metrics(done):
    folder, result = done
    files = "cut_times.csv edge_lut.json server_lut.json rate_accuracy.csv initial_throughput_config.json front.csv"
    assert {path.name for path in folder.iterdir()} >= {*files.split(), "digits_joint.json"}
    assert result.figures.keys() == {"rate_accuracy", "accuracy_throughput"}
    promised = (
        "accuracy accuracy_ref epsilon slack feasible lambda split_point codec throughput_hz baseline_throughput_hz "
        "edge_only_throughput_hz server_only_throughput_hz predicted_t_eff_s solver_s payload_bytes gain_over_baseline"
    )
    assert set(promised.split()) <= result.metrics.keys()
    json.dumps(result.metrics, allow_nan=False)


def test_what_is_reported_is_the_best_row_of_the_table(done):
    folder, result = done
    rows, found = table(folder), json.loads((folder / "digits_joint.json").read_text())
    rows = rows[rows["left_out"].isna()]
    assert (rows["value"] - (0.5 * rows["latency_s"] + 0.5 * rows["cycle_s"])).abs().max() < 1e-12
    loss = rows["damage"] + quantile(0.99) * rows["damage_error"]
    allowed = rows[rows["offered"] & (loss <= found["epsilon"] + 1e-12)]
    best = allowed.sort_values(["value", "damage"], kind="stable").iloc[0]
    assert (result.metrics["split_point"], result.metrics["codec"]) == (best["split_point"], best["codec"])
    assert result.metrics["predicted_t_eff_s"] == pytest.approx(best["value"])
    plain = rows[rows["codec"] == "identity"]
    assert result.metrics["baseline_t_eff_s"] == pytest.approx(plain["value"].min())
    assert result.metrics["server_only_throughput_hz"] == pytest.approx(plain.iloc[0]["throughput_hz"])
    assert result.metrics["edge_only_throughput_hz"] == pytest.approx(plain.iloc[-1]["throughput_hz"])


def test_identity_is_exact_and_only_measured_where_it_is_not_listed(done):
    folder, _ = done
    plain = table(folder).query("codec == 'identity'")
    assert (plain["damage"] == 0).all()
    assert (plain["damage_error"] == 0).all()  # however few the samples
    assert (plain["distortion_mse"] == 0).all()
    assert set(plain[plain["offered"]]["split_point"]) == {"output"}  # where no codec is at work
    front = pd.read_csv(folder / "front.csv").query("split_point != 'output'")
    assert "identity" not in set(front["codec"])


def test_a_class_travels_back_unless_the_whole_network_ran_where_it_is_needed(done):
    rows = table(done[0])
    alone = rows.query("split_point == 'output'")
    assert alone["codec"].tolist() == ["identity"]
    assert (alone[["payload_bytes", "link_s", "answer_bytes", "answer_s", "server_s"]] == 0).all(axis=None)
    sent = rows[rows["left_out"].isna() & (rows["split_point"] != "output")]
    assert (sent["answer_bytes"] == 1).all()
    assert (sent[["answer_s", "answer_busy_s", "answer_encode_s", "answer_decode_s"]] > 0).all(axis=None)
    stages = [sent[name] for name in ("edge_s", "link_busy_s", "server_s", "answer_busy_s")]
    assert sent["cycle_s"].to_numpy() == pytest.approx(np.max(stages, axis=0))
    latency_s = sent["edge_s"] + sent["link_s"] + sent["server_s"] + sent["answer_s"]
    assert sent["latency_s"].to_numpy() == pytest.approx(latency_s.to_numpy())


def test_the_round_trip_is_no_work_of_the_link(cache, tmp_path):
    """A second to and fro adds a second to what a cut takes, and nothing to its pace."""
    far = run(cache, tmp_path / "far", "workflow.steps=[throughput]", "transport.rtt_s=1.0")
    assert far.metrics["server_only_throughput_hz"] > 20
    assert far.metrics["server_only_t_eff_s"] > 0.5


def test_a_codec_that_cannot_carry_what_crosses_is_left_out_there_with_the_reason(done):
    folder, result = done
    pictures = table(folder).query("codec == 'jpeg quality=40'").set_index("split_point")
    assert pd.isna(pictures.loc["input", "left_out"])
    rest = pictures.drop("input")
    assert rest["left_out"].str.contains("use it at the split point `input`").all()
    assert rest["payload_bytes"].isna().all()
    assert result.metrics["num_left_out"] == len(rest) > 0


def test_lower_bit_widths_send_fewer_bytes_at_every_split_point(done):
    sizes = table(done[0]).pivot(index="split_point", columns="codec", values="payload_bytes")
    sizes = sizes.drop(index="output")  # where no codec is at work
    one, two = (sizes[f"quant bit_width={bits} entropy=zstd"] for bits in (1, 2))
    assert (one[sizes["identity"] > 64] < two[sizes["identity"] > 64]).all()  # four features fit into one byte anyway
    assert (one <= two).all()
    assert (sizes["fp16"] < sizes["identity"]).all()


def test_coding_counts_and_the_edge_is_this_machine_slowed(done):
    folder, result = done
    rows, times = table(folder), pd.read_csv(folder / "cut_times.csv").set_index("split_point")
    here = read_lut(folder / "server_lut.json")
    row = rows.query("codec == 'fp16'").iloc[1]
    whole = 4 * (here.times[row["split_point"]]["head"].median_s + row["encode_s"] + row["answer_decode_s"])
    assert row["edge_s"] == pytest.approx(whole)
    assert row["server_s"] == pytest.approx(
        times.loc[row["split_point"], "tail_s"] + row["decode_s"] + row["answer_encode_s"]
    )
    assert (result.metrics["edge_timing"], result.metrics["server_timing"]) == ("assumed", "measured")
    assert read_lut(folder / "edge_lut.json").machine["assumed"] == "the times of this machine × 4"


def test_rows_that_cannot_be_the_best_are_scored_in_memory_and_told(done, cache, tmp_path):
    folder, _ = done
    run(cache, tmp_path / "all", "workflow.steps=[rates,joint]", "workflow.screening_samples=null")
    screened, whole = (table(one).set_index(["split_point", "codec"]) for one in (folder, tmp_path / "all"))
    assert not whole["screened_out"].any()
    out = screened["screened_out"]
    assert 0 < out.sum() < out.size / 1.3
    assert set(screened["num_coded"][out]) == {20}
    assert set(screened["num_coded"][~out & screened["left_out"].isna()]) == {40}
    for name in ("score", "damage", "damage_error"):
        pd.testing.assert_series_equal(screened[name], whole[name])
    pd.testing.assert_series_equal(screened["payload_bytes"][~out], whole["payload_bytes"][~out])
    found = json.loads((folder / "digits_joint.json").read_text())
    assert sum(map(len, found["screened_out"].values())) == out.sum()
    assert not any(out[row["split_point"], row["codec"]] for row in found["front"])


def test_what_was_done_is_not_done_again(done, cache, tmp_path, caplog):
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*.*") if path.suffix in (".json", ".safetensors")}
    with caplog.at_level(logging.INFO):
        again = run(cache, tmp_path / "run", "workflow.steps=[rates,joint,deploy]")
    after = {path: path.stat().st_mtime_ns for path in cache.rglob("*.*") if path.suffix in (".json", ".safetensors")}
    assert after == before
    assert sum("is done already" in line for line in caplog.messages) == 3
    assert again.metrics["accuracy"] == done[1].metrics["accuracy"]


def test_noise_in_coding_the_answer_prefers_no_row():
    rows = pd.DataFrame({"answer_encode_s": [1.0, 9.0, 2.0, 0.0, None], "answer_decode_s": [3.0, 3.0, 4.0, 0.0, None]})
    found = cut_rows.with_one_answer(rows)
    assert found["answer_encode_s"].tolist()[:4] == [2.0, 2.0, 2.0, 0.0]  # all on the edge: no answer
    assert found["answer_decode_s"].tolist()[:4] == [3.0, 3.0, 3.0, 0.0]
    assert found.iloc[4].isna().all()


def test_nothing_is_chosen_by_the_test_split(done, tmp_path):
    seen = f"task._target_={__name__}.DigitsWithoutTest"
    result = run(tmp_path / "cache", tmp_path / "run", seen, "workflow.steps=[rates,throughput,joint]")
    assert result.metrics["lambda"] >= 0
    with pytest.raises(AssertionError, match="was looked at"):
        run(tmp_path / "cache", tmp_path / "run", seen, "workflow.steps=[deploy]")


def test_an_epsilon_that_nothing_meets_is_told_with_the_smallest_slack(done, cache, tmp_path, caplog):
    result = run(cache, tmp_path / "run", "workflow.margin=0.9", "workflow.steps=[joint]")
    rows = table(done[0]).query("offered and left_out.isna()")
    assert result.metrics["slack_val"] == pytest.approx(rows["damage"].min() - 0.02 + 0.9)
    assert f"needs ξ = {result.metrics['slack_val']:.4f}" in caplog.text


def test_a_lut_file_is_that_machine_and_coding_is_scaled_as_the_network_is(done, cache, tmp_path):
    folder, _ = done
    edge = f"workflow.edge_lut={folder}/edge_lut.json"
    result = run(cache, tmp_path / "run", edge, "workflow.edge_slowdown=9", "workflow.steps=[lut,rates]")
    assert result.metrics["edge_timing"] == "lut"
    pd.testing.assert_series_equal(table(tmp_path / "run")["edge_s"], table(folder)["edge_s"])
    with pytest.raises(ConfigError, match="belongs to another model"):
        run(cache, tmp_path / "other", edge, "model.widths=[4,8]", "workflow.steps=[lut]")


def test_machines_can_be_those_of_the_group_hardware(done, cache, tmp_path):
    given = ("workflow.times=hardware", "hardware=tx2_desktop", "workflow.steps=[lut,rates]")
    result = run(cache, tmp_path / "run", *given)
    assert (result.metrics["edge_timing"], result.metrics["server_timing"]) == ("roofline", "roofline")
    assert table(tmp_path / "run")["edge_s"].notna().any()


def test_steps_that_need_no_weights_train_nothing(tmp_path):
    run(tmp_path / "cache", tmp_path / "run", "workflow.steps=[lut]")
    assert not (tmp_path / "cache" / "weights").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("workflow.codecs=[]", "must list at least one codec"),
        ("workflow.codecs=[quant9]", "has quant9: no such codec; did you mean quant8\\? There are adjscc,"),
        ("workflow.codecs=[semanticnn]", "is built, or trained, for one cut at a time"),
        ("workflow.codecs=[quant4,quant4]", "has quant4 twice"),
        ("workflow.codecs=[{bit_width:4}]", "an entry is a name or"),
        ("workflow.codecs=[{codec:topk,keep:0.1}]", "topk has no setting keep; it has: keep_ratio, values"),
        ("workflow.codecs=[{codec:quant,bit_width:[4,17]}]", "bit_width must be 1…16, got 17"),
        ("codec=quant4", "chooses cut and codec itself, from workflow.codecs: leave out codec=quant4"),
        ("split.point=stage1", "leave out split.point=stage1"),
        ("workflow.mode=real", "for networks with branches, not for model=cnn"),
        ("workflow.margin=-1", "workflow.margin must be finite and not negative"),
        ("workflow.times=guessed", "workflow.times must be measured or hardware"),
        ("workflow.edge_slowdown=0", "workflow.edge_slowdown: factor must be positive"),
        ("workflow.steps=[importance]", "is for other networks; for model=cnn: train, lut"),
        ("optimise=relaxed", "optimise=exact is all there is"),
        ("transport=grpc", "needs a simulated link"),
    ],
)
def test_settings_that_make_no_sense_are_refused_in_one_line_before_anything_is_done(tmp_path, override, message):
    with pytest.raises(ConfigError, match=message) as refused:
        run(tmp_path / "cache", tmp_path / "run", *(() if "steps" in override else ("workflow.steps=[lut]",)), override)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("point", ["input", "stage1", "output"])
def test_the_modules_that_are_timed_are_those_that_are_scored(point):
    network = StagedCnn((1, 8, 8), (10,), stem_width=4, widths=[4, 4]).eval()
    cut = SplitGraph(network, (1, 8, 8)).cut(point)
    encoder, decoder = Quantise(8), Quantise(8)
    split = DeployedCodec(Pipeline(cut, encoder, decoder, SimulatedLink(1e6, 0.0, 0.0)), Placement("cpu"))
    seen: list[int] = []
    for module in (cut.head, cut.tail):
        module.register_forward_hook(lambda module, *_: seen.append(id(module)))
    x = torch.rand(1, 1, 8, 8)
    output = split(x)
    scored, seen[:] = set(seen), []
    split.time(x, repeats=2)
    assert scored == set(seen) == {id(cut.head), id(cut.tail)}
    with torch.inference_mode():
        assert torch.equal(output, split.server(split.edge(x)))
    assert split.frames.payload_bytes == [len(split.edge(x))]


def test_the_table_is_csv_that_others_can_read(done):
    rows = list(csv.DictReader((done[0] / "rate_accuracy.csv").read_text().splitlines()))
    assert {row["overrides"] for row in rows if row["codec"].startswith("quant bit_width=1")} >= {
        "split.point=input codec=quant codec.bit_width=1 codec.entropy=zstd"
    }

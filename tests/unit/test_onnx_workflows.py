"""model=onnx goes through the workflows, and those that learn refuse it in one line."""

import dataclasses

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir

from splitsem.check import check_model
from splitsem.codecs.tensorwise import Identity
from splitsem.errors import ConfigError, SplitPointError

pytest.importorskip("onnx", reason="the extra export is not installed")
pytest.importorskip("onnxruntime", reason="the extra export is not installed")

from splitsem.api import jobs
from splitsem.models.onnx_model import OnnxModel
from splitsem.remote.labels import weights_digest
from splitsem.remote.tail_engine import TailEngine
from splitsem.splitting.onnx_graph import OnnxGraph
from splitsem.tasks.answer import Values
from splitsem.workflows import device_bundle, learned_codec, points, profile, split, split_train, sweep, train
from splitsem.workflows.federated import workflow as federated
from tests.conftest import ROOT
from tests.unit import onnx_files

GIVEN = ["model=onnx", "model.path=net.onnx", "task=samples", "task.source=samples.npy", "device=cpu", "answer=raw"]
SAMPLES = np.random.default_rng(0).random((12, 3, 12, 10), dtype=np.float32)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a workflow with a small ONNX file on twelve samples."""
    monkeypatch.chdir(tmp_path)
    onnx_files.residual("net.onnx")
    np.save("samples.npy", SAMPLES)
    sweep.register()

    def run(workflow, *overrides):
        with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
            return workflow(compose("config", [*GIVEN, *overrides]), tmp_path)

    return run


@pytest.mark.parametrize("point", ["input", "sum", "output"])
@pytest.mark.usefixtures("run")
def test_a_cut_of_a_file_agrees_with_the_file(point):
    given = [*GIVEN, "trainer.batch_size=4", "tracking=none", "codec=identity", f"split.point={point}"]
    metrics = jobs.run(*given, "task.compare=values").metrics
    assert metrics["score"] == metrics["score_unsplit"] == 1
    assert metrics["split_point"] == point


def test_points_and_profile_know_its_points(run):
    assert run(points.run, "workflow=points").metrics["num_points"] == 5
    found = run(profile.run, "workflow=profile", "workflow.budget_s=0.01").metrics
    assert found["num_points"] == 5
    assert found["whole_s"] > 0


def test_labels_are_no_reason_to_train_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    nodes = [("Flatten", "x", "flat"), ("MatMul", "flat w", "scores"), ("Relu", "scores", "y")]
    values = [onnx_files.value("x", ["batch", 1, 8, 8])], [onnx_files.value("y", ["batch", 10])]
    onnx_files.write(tmp_path / "digits.onnx", nodes, *values, [onnx_files.weight("w", 64, 10)])
    given = ["model=onnx", "model.path=digits.onnx", "task=digits", "device=cpu", "workflow.num_samples=40"]
    metrics = jobs.run(*given, "tracking=none", "codec=identity", "split.point=flat", "split.granularity=op").metrics
    assert metrics["score"] == metrics["score_unsplit"]


@pytest.mark.parametrize(
    ("workflow", "overrides", "said"),
    [
        (train.run, ["workflow=train"], "no gradient passes: take workflow=split"),
        (train.run, ["workflow=train", "split.point=sum"], "no gradient passes"),
        (learned_codec.run, ["workflow=codec", "codec=semanticnn", "split.point=sum"], "no gradient passes"),
        (split.run, ["codec=semanticnn", "split.point=sum"], "no gradient passes"),
        (split_train.run, ["workflow=split_train", "transport=grpc"], "trains by labels, and Samples has none"),
        (federated.run, ["workflow=federated"], "trains by labels, and Samples has none"),
        (device_bundle.run, ["workflow=bundle", "split.point=sum"], "halves of an ONNX file are ONNX graphs already"),
    ],
)
def test_what_learns_refuses_it_in_one_line(workflow, overrides, said, run):
    with pytest.raises(ConfigError, match=said) as refused:
        run(workflow, *overrides)
    assert "\n" not in str(refused.value)


def test_an_unknown_point_has_the_nearest_one_beside_it(run):
    with pytest.raises(SplitPointError, match="no split point 'sun'; did you mean 'sum'"):
        run(split.run, "split.point=sun")


def test_samples_of_another_size_are_refused_in_one_line(run):
    np.save("samples.npy", SAMPLES[:, :2])
    with pytest.raises(ConfigError, match=r"takes x as float32\[any, 3, any, any\], got float32\[1, 2, 12, 10\]"):
        run(points.run, "workflow=points")


def test_a_server_answers_from_onnxruntime(tmp_path):
    model = OnnxModel(onnx_files.residual(tmp_path / "net.onnx"))
    x = torch.from_numpy(SAMPLES[:1])
    graph = OnnxGraph(model, x)
    engine = TailEngine(graph, weights_digest(model))
    for point in graph.points[:-1]:
        plan = dataclasses.replace(engine.offer, point=point.name, codec="Identity", answer=Values((5,)).name)
        answer, _ = engine.answer(engine.open(plan), Identity().encode(graph.cut(point).head(x)))
        assert torch.equal(Values((5,)).decode(answer), model(x)[0]), point
    other = OnnxModel(onnx_files.residual(tmp_path / "other.onnx"))  # the same graph with other weights
    with pytest.raises(ConfigError, match="weights: the server has"):
        engine.open(dataclasses.replace(plan, weights=weights_digest(other)))


def test_it_keeps_the_contract_of_a_model(tmp_path):
    path = onnx_files.residual(tmp_path / "net.onnx")
    assert len(check_model(lambda: OnnxModel(path), (3, 12, 10), (5,))) >= 8

"""MLflow answers which is best: names that differ, what was swept as parameters, a saved view, a training's own run."""

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from splitsem.report.best import as_metrics, best
from splitsem.workflows import comparison, folders, track
from splitsem.workflows.folders import Record
from splitsem.workflows.tracking import Mlflow
from tests.unit.sample_results import complete_results

mlflow = pytest.importorskip("mlflow")
pytestmark = [  # as in test_tracking
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]
EPOCHS = [{"train_loss": 1.0 / (n + 1)} for n in range(3)]


@pytest.fixture(scope="module")
def logged(tmp_path_factory) -> tuple[Mlflow, Path]:
    """A sweep of two codecs in a store: both jobs tell the training that they share."""
    sweep = tmp_path_factory.mktemp("sweep")
    store = Mlflow(None, "splitsem", str(tmp_path_factory.mktemp("store")))
    asked = ["task=digits", "codec=quant2,quant8", "tracking.uri=here", "trainer.max_epochs=3"]
    OmegaConf.save(OmegaConf.create({"hydra": {"overrides": {"task": asked}}}), sweep / "multirun.yaml")
    for number, codec in enumerate(("quant2", "quant8")):
        kept = (job := sweep / str(number)) / ".hydra"
        kept.mkdir(parents=True)
        given = ["split.point=enc2", "task=digits", f"codec={codec}", "trainer.max_epochs=3", "tracking.uri=here"]
        hydra_cfg = {"overrides": {"task": given}, "runtime": {"choices": {"task": "digits"}}}
        OmegaConf.save(OmegaConf.create({"hydra": hydra_cfg}), kept / "hydra.yaml")
        OmegaConf.save(OmegaConf.create(given), kept / "overrides.yaml")
        bits = {"quant2": 2, "quant8": 8}[codec]
        OmegaConf.save(
            OmegaConf.create({"codec": {"bit_width": bits}, "trainer": {"max_epochs": 3}}), kept / "config.yaml"
        )
        metrics = {"score": 0.9 + number / 100, "throughput_hz": 10.0 + number, "codec": codec, "split_point": "enc2"}
        (job / "metrics.json").write_text(
            json.dumps(metrics | {"task": "digits", "model": "cnn", "edge_timing": "lut"})
        )
        (job / track.TRAINING).write_text(json.dumps(EPOCHS))
        for name in ("breakdown.png", "breakdown.pdf", "breakdown.csv", "alone.pdf"):
            (job / name).write_text(name)
        Record(settings="", state="ok").write(job)
    (sweep / folders.BEST).write_text(json.dumps({"best_throughput_hz": 11.0, "winner_throughput_hz": "enc2 · quant8"}))
    (sweep / "table.md").write_text("| a |\n|---|\n| 1 |\n")
    Record(settings="", state="ok").write(sweep)
    track.copy_sweep(store, sweep)
    return store, sweep


def runs(store: Mlflow) -> dict:
    client = mlflow.MlflowClient(store.uri)
    found = client.search_runs([store.open()])
    assert len({run.info.run_name for run in found}) == len(found)
    return {run.info.run_name: run for run in found}


def test_children_are_named_by_what_differs_and_the_parent_by_what_was_asked(logged):
    assert set(runs(logged[0])) == {
        "task=digits codec=quant2,quant8 trainer.max_epochs=3",
        *("enc2 · quant2", "enc2 · quant8", "training · digits · cnn"),
    }


def test_what_was_swept_and_chosen_is_a_parameter_and_the_rest_of_the_words_a_tag(logged):
    data = runs(logged[0])["enc2 · quant8"].data
    assert {name: data.params[name] for name in ("codec", "split_point", "task", "model", "codec.bit_width")} == {
        "codec": "quant8", "split_point": "enc2", "task": "digits", "model": "cnn", "codec.bit_width": "8"
    }  # fmt: skip
    assert data.tags["edge_timing"] == "lut"
    assert "codec" not in data.tags


def test_the_parent_has_the_best_the_winner_the_common_settings_and_a_way_to_the_comparison(logged):
    store, sweep = logged
    data = runs(store)["task=digits codec=quant2,quant8 trainer.max_epochs=3"].data
    assert data.metrics == {"best_throughput_hz": 11.0}
    assert data.tags["winner_throughput_hz"] == "enc2 · quant8"
    assert (data.params["trainer.max_epochs"], data.params["num_jobs"], data.params["split_point"]) == (
        "3",
        "2",
        "enc2",
    )
    assert not {"codec", "codec.bit_width"} & set(data.params)
    assert folders.read(sweep).run_id in data.tags["mlflow.note.content"]
    assert "| 1 |" in data.tags["mlflow.note.content"]


def test_a_training_that_jobs_share_is_one_run_with_its_history(logged):
    store, sweep = logged
    found = runs(store)
    run = found["training · digits · cnn"]
    assert run.data.tags["mlflow.parentRunId"] == folders.read(sweep).run_id
    history = mlflow.MlflowClient(store.uri).get_metric_history(run.info.run_id, "train_loss")
    assert [(point.step, point.value) for point in history] == list(enumerate(row["train_loss"] for row in EPOCHS))
    assert not any("train_loss" in one.data.metrics for name, one in found.items() if not name.startswith("training"))


def test_a_figure_is_there_once(logged):
    run = runs(logged[0])["enc2 · quant2"]
    names = {file.path for file in mlflow.MlflowClient(logged[0].uri).list_artifacts(run.info.run_id)}
    assert {"breakdown.png", "breakdown.csv", "alone.pdf"} <= names
    assert "breakdown.pdf" not in names


def test_the_comparison_is_saved_where_its_address_says(logged):
    store, sweep = logged
    run_id, experiment_id = folders.read(sweep).run_id, folders.read(sweep).experiment_id
    tags = mlflow.MlflowClient(store.uri).get_experiment(experiment_id).tags
    view = json.loads(tags[comparison.TAG + run_id])
    assert f"/#/experiments/{experiment_id}/runs?viewStateShareKey={run_id}&" in store.page(experiment_id, run_id)
    assert view["orderByKey"] == "metrics.`throughput_hz`"
    assert view["orderByAsc"] is False
    assert "params.`codec`" in view["selectedColumns"]
    assert "params.`task`" not in view["selectedColumns"]  # all jobs have it
    found = mlflow.MlflowClient(store.uri).search_runs([experiment_id], view["searchFilter"])
    assert {run.info.run_name for run in found} == {"enc2 · quant2", "enc2 · quant8"}


def test_a_sweep_without_a_result_has_a_view_without_charts_of_scores():
    view = json.loads(comparison.state("id", [], []))
    assert [chart["type"] for chart in view["compareRunCharts"]] == ["PARALLEL"]
    assert "orderByKey" not in view


def test_rows_still_have_the_labels(logged):
    rows = {row["name"]: row for row in logged[0].rows()}
    assert rows["enc2 · quant8"]["codec"] == "quant8"
    assert rows["enc2 · quant8"]["split_point"] == "enc2"


def test_the_best_of_a_sweep_are_numbers_and_the_winners_names():
    found = as_metrics(best(complete_results(codecs=("quant8",))))
    assert {"best_throughput_hz", "best_throughput_hz_score", "best_latency_s", "best_energy_j"} <= set(found)
    assert all(
        isinstance(value, str) == name.startswith(("winner_", "tied_", "beaten_")) for name, value in found.items()
    )

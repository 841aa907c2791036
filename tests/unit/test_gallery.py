"""The gallery: the samples that disagree most are kept, and each form of results is drawn to be read."""

import io
from itertools import combinations
from math import prod
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from PIL import Image
from torch import nn

from splitsem.detections import Boxes, pack
from splitsem.report import figure_choice, gallery_figures
from splitsem.report.gallery_figures import fit
from splitsem.report.gallery_samples import NOTHING, Found, Label, Shown
from splitsem.tasks.answer import TopClasses
from splitsem.tasks.detection.detection import Detection
from splitsem.tasks.detection.scenes import DrawnScenes
from splitsem.tasks.digits import Digits
from splitsem.tasks.disaster import Disaster
from splitsem.tasks.netqos import NetQos
from splitsem.tasks.task import Task
from splitsem.workflows import split, split_summary
from splitsem.workflows.gallery import Gallery
from splitsem.workflows.gallery_forms import ClassMaps, Detected, OutputValues, form_of
from tests.conftest import ROOT
from tests.unit.sample_results import complete_results

METRICS = {
    "task": "t",
    "model": "m",
    "codec": "c",
    "transport": "wifi",
    "split_point": "stage2",
    "score": 0.5,
    "score_name": "score",
    "score_unsplit": 0.75,
}


def plain(drawn_as: str, *output_shape: int, is_image: bool = True) -> Task:
    """A task that says no more than how its answer is drawn."""
    coder = SimpleNamespace(drawn_as=drawn_as)
    made = {"output_shape": output_shape, "is_image": is_image, "is_agreement": False, "palette": None}
    return SimpleNamespace(**made, class_names=("a" * 40, "b"), answer_coder=lambda: coder)


def detections(*boxes: tuple[float, ...]) -> torch.Tensor:
    """One picture's: x1, y1, x2, y2, score, class each."""
    rows = torch.tensor(boxes).reshape(-1, 6)
    return pack([Boxes(rows[:, :4], rows[:, 4], rows[:, 5].long())], 8)


def texts(figure) -> list:
    return [text for ax in figure.axes for text in ax.texts if text.get_text()]


def words(figure) -> str:
    return " ".join(text.get_text() for text in [*texts(figure), *figure.texts]).replace("\n", " ")


def test_the_form_follows_the_tasks_answer_and_any_other_task_shows_values():
    names = [type(form_of(task)).__name__ for task in (Digits(), Disaster(size=8), NetQos(num_samples=2000))]
    assert names == ["Classes", "ClassMaps", "Forecasts"]
    assert isinstance(form_of(plain("boxes", 8, 6)), Detected)
    assert isinstance(form_of(Detection(DrawnScenes())), Detected)
    assert isinstance(form_of(plain("boxes", 8, 6, is_image=False)), OutputValues)
    assert isinstance(form_of(plain("class map", 3, 5)), OutputValues)

    class Silent(Digits):
        answer_coder = Task.answer_coder

    assert isinstance(form_of(Silent()), OutputValues)


def test_another_class_goes_before_any_loss_of_confidence():
    form = form_of(Digits())
    output = torch.zeros(3, 10)
    output[:, 4] = torch.tensor([0.1, 9.5, 0.1])
    split = output.clone()
    split[0, 5], split[1, 4] = 0.2, 0.5
    flipped, unsure, same = form.disagreement(form.results(output), form.results(split)).tolist()
    assert 1 < flipped < 1.1
    assert 0.5 < unsure < 1
    assert same == 0


def test_an_answer_names_a_class_and_the_tail_says_how_sure_it_is():
    form, coder = form_of(Digits()), TopClasses(10)
    raw = torch.randn(2, 10, generator=torch.Generator().manual_seed(0))
    answers = torch.cat([coder.as_output(coder.decode(coder.encode(row))) for row in raw.split(1)])
    assert torch.equal(form.results(answers, raw), raw.softmax(1))
    named = form.results(answers)
    assert torch.equal(named.argmax(1), raw.argmax(1))
    assert named.max(1).values.tolist() == [1, 1]
    assert torch.equal(form.results(answers, raw.flip(1)), named)  # the tail found another class than arrived
    assert form.disagreement(raw.softmax(1), named).tolist() == [0, 0]
    assert (form.disagreement(raw.softmax(1), named.roll(1, 1)) > 1).all()
    assert not form.results(torch.zeros(1, 10), raw[:1]).any()  # nothing arrived


def test_what_exits_on_the_edge_leaves_the_others_their_own_confidence():
    form, coder = form_of(Digits()), TopClasses(10)
    raw = torch.randn(3, 10, generator=torch.Generator().manual_seed(0))
    output = torch.cat([coder.as_output(coder.decode(coder.encode(row))) for row in raw.split(1)])
    output[1] = raw[1]  # exits with its own logits, and passes no tail
    assert torch.allclose(form.results(output, raw[[0, 2]]), raw.softmax(1))
    assert form.results(output, raw[:1]).max(1).values.eq(1).tolist() == [
        True,
        False,
        True,
    ]  # whose they are is unknown


def test_class_maps_disagree_by_the_share_of_pixels():
    form = ClassMaps(Disaster(size=8))
    output = torch.randn(2, 12, 8, 8)
    other = output.clone()
    other[1, :, :4] = other[1, :, :4].roll(1, 0)
    assert form.disagreement(form.results(output), form.results(other)).tolist() == [0, 0.5]


def test_boxes_disagree_by_what_has_no_counterpart():
    form = form_of(plain("boxes", 8, 6))
    both = detections((0, 0, 10, 10, 0.9, 0), (20, 20, 30, 30, 0.8, 1))
    other_class = detections((0, 0, 10, 10, 0.9, 0), (20, 20, 30, 30, 0.8, 0))
    unsure = detections((0, 0, 10, 10, 0.9, 0), (20, 20, 30, 30, 0.8, 1), (5, 5, 9, 9, 0.1, 1))
    half = detections((0, 0, 10, 10, 0.9, 0), (20, 20, 30, 25.0, 0.8, 1))
    found = [float(form.disagreement(both, other)) for other in (both, unsure, half, other_class, detections())]
    assert found == pytest.approx([0, 0, 0.25, 0.5, 1])
    assert float(form.disagreement(detections(), detections())) == 0


def test_values_of_any_structure_disagree_by_their_rms_difference():
    form = OutputValues(plain("values", 3))
    output = {"a": torch.zeros(2, 3), "b": (torch.zeros(2, 1),)}
    other = {"a": torch.zeros(2, 3), "b": (torch.tensor([[0.0], [2.0]]),)}
    assert form.disagreement(form.results(output), form.results(other)).tolist() == [0, 1]


def test_the_largest_disagreements_are_kept_in_one_pass_and_the_score_is_what_it_is():
    task, net = Digits(), nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    test = [task.splits().test[i] for i in range(50)]
    batches = [tuple(map(torch.stack, zip(*part, strict=True))) for part in (test[:30], test[30:])]
    noise = torch.rand(50, 1, generator=torch.Generator().manual_seed(1)) * 3 * torch.eye(10)[0]
    runs: list[int] = []
    with torch.no_grad():
        unsplit = net(torch.cat([x for x, _ in batches]))

    def run(x):
        at = sum(runs)
        runs.append(len(x))
        return unsplit[at : at + len(x)] + noise[at : at + len(x)]

    form = form_of(task)
    gallery = Gallery(form, form.results(unsplit), most=8)
    scored = gallery.score(run, task, iter(batches))
    assert runs == [30, 20]
    assert scored.num_samples == 50
    expected = form.disagreement(form.results(unsplit), form.results(unsplit + noise)).topk(8).indices.tolist()
    kept = sorted(gallery._kept, key=lambda one: one[:2], reverse=True)
    assert [one.number for _, _, one in kept] == expected
    assert torch.equal(kept[0][2].x, test[expected[0]][0][None])
    figure = gallery.figures(METRICS)["gallery"].figure()
    assert len(figure.axes[0].images) == 8
    assert "the 8 largest disagreements of 50 samples" in figure.texts[0].get_text()
    shown = [text.get_text() for text in texts(figure)]
    assert sum(text.startswith("true: ") for text in shown) == 8
    assert sum(text.endswith(" %)") for text in shown) == 16


def test_a_text_stands_where_a_picture_would():
    class Said(Digits):
        is_image = False

        def text_of(self, x):
            return f"{len(x['ids'])} of many words " * 20

    form = form_of(Said())
    gallery = Gallery(form, form.results(torch.randn(4, 10)), most=4)
    gallery.add({"ids": torch.zeros(4, 8)}, torch.arange(4), torch.randn(4, 10))
    shown = [text.get_text() for text in texts(gallery.figures(METRICS)["gallery"].figure())]
    assert sum(text.startswith("1 of many words") and text.endswith(" …") for text in shown) == 4


def test_samples_beyond_those_that_memory_holds_are_scored_and_not_compared():
    form = OutputValues(plain("values", 2))
    gallery = Gallery(form, torch.zeros(3, 2), most=8)
    for _ in range(2):
        gallery.add(torch.zeros(2, 1), torch.zeros(2), torch.ones(2, 2))
    assert len(gallery._kept) == 3
    assert "of 3 samples" in gallery.figures(METRICS)["gallery"].figure().texts[0].get_text()


def test_without_any_difference_the_title_says_so():
    gallery = Gallery(OutputValues(plain("values", 2)), torch.ones(3, 2), most=2)
    gallery.add(torch.zeros(3, 1), torch.zeros(3), torch.ones(3, 2))
    assert [one.number for _, _, one in sorted(gallery._kept, reverse=True)] == [0, 1]
    assert "no result of 3 samples differs" in gallery.figures(METRICS)["gallery"].figure().texts[0].get_text()


def figures():
    """A figure of each form, with long names."""
    random = np.random.default_rng(0)
    picture, long = random.random((20, 30, 3)), "a very long name of a class that nobody has room for"
    label = [Shown(i, picture, Label(long, 0.9), Label("b")) for i in range(5)]
    yield gallery_figures.labels(label, "title", "subtitle")
    maps = [Shown(i, picture[:, :20], *random.integers(0, 3, (2, 20, 20))) for i in range(3)]
    yield gallery_figures.masks(maps, {0: long}, None, "title", "subtitle")
    found = Found(np.array([[2.0, 2, 29, 19]]), [f"{long[:20]} 0.93"], np.array([True]))
    yield gallery_figures.boxes([Shown(0, picture, found, found)], "title", "subtitle")
    task = NetQos(num_samples=2000)
    gallery = Gallery(form_of(task), torch.zeros(4, 8), most=4)
    x, y = (torch.stack([task.splits().test[i][part] for i in range(4)]) for part in (0, 1))
    gallery.add(x, y, torch.ones(4, 8))
    yield gallery.figures(METRICS)["gallery"].figure()
    values = [Shown(i, None, *random.normal(size=(2, 30))) for i in range(2)]
    yield gallery_figures.bars(values, "title", "subtitle")


@pytest.mark.parametrize("style", ["screen", "paper", "talk"])
def test_a_gallery_says_what_its_orange_means_in_each_style(style):
    with figure_choice.using(style):
        for figure in figures():
            assert "orange: " in " ".join(text.get_text() for text in [*texts(figure), *figure.texts]).replace(
                "\n", " "
            )


def test_a_gallery_says_why_a_sample_has_no_percentage():
    says = "without a percentage: the answer names the class alone"
    for one, is_told in ((Label("b"), True), (Label("b", 0.4), False), (Label(NOTHING), False)):
        figure = gallery_figures.labels([Shown(0, None, Label("a", 0.9), one)], "title", "subtitle")
        assert (says in words(figure)) == is_told


@pytest.mark.parametrize("style", ["screen", "paper"])
def test_no_name_of_a_class_is_cut_beside_its_colour(style):
    names = {i: f"building_total_destruction_{i}" for i in range(9)}
    maps = [Shown(i, None, *np.random.default_rng(i).integers(0, 9, (2, 20, 20))) for i in range(3)]
    with figure_choice.using(style):
        figure = gallery_figures.masks(maps, names, None, "title", "subtitle")
        figure.draw_without_rendering()
    found = [text for text in texts(figure) if text.get_text() in names.values()]
    assert len(found) == 9
    boxes = [text.get_window_extent() for text in found]
    assert max(box.x1 for box in boxes) <= figure.bbox.x1
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))


def test_every_text_can_be_read_and_stays_inside_the_figure():
    for figure in figures():
        figure.canvas.draw() if hasattr(figure.canvas, "draw") else figure.draw_without_rendering()
        width, height = figure.get_size_inches() * figure.dpi
        assert prod(figure.get_size_inches()) < 120
        for text in texts(figure):
            box = text.get_window_extent()
            assert text.get_size() >= 8
            assert -1 <= box.x0 <= box.x1 <= width + 1, text.get_text()
            assert -1 <= box.y0 <= box.y1 <= height + 1, text.get_text()


def test_no_name_of_a_box_hides_another_and_what_one_network_finds_is_named_first():
    corners = np.array([[2.0, 8, 29, 19]] * 6)
    found = Found(corners, [f"cross 0.9{i}" for i in range(6)], np.array([True] * 5 + [False]))
    figure = gallery_figures.boxes([Shown(0, np.zeros((40, 40, 3)), found, found)], "title", "subtitle")
    figure.draw_without_rendering()
    names = [text for text in texts(figure) if text.get_text().startswith("cross")]
    assert [text.get_text() for text in names[:2]] == ["cross 0.95", "cross 0.90"]
    assert len(names) == 4
    ours = [text.get_window_extent() for text in names[:2]]
    assert not ours[0].overlaps(ours[1])


def test_a_long_name_ends_in_an_ellipsis_and_keeps_its_confidence():
    figure = next(figures())
    [first, *_] = [text.get_text() for text in texts(figure) if text.get_text().startswith("unsplit")]
    assert first.endswith("… (90 %)")
    assert fit("short", 1.0, 8.5) == "short"


def test_the_series_of_a_forecast_is_the_one_it_was_made_of():
    task = NetQos(num_samples=2000)
    x, y = task.splits().test[0]
    following, _ = task.splits().test[len(y)]
    past, future = task.series(x, y)
    assert future.tolist() == pytest.approx(task.series(following, y)[0][-len(y) :].tolist(), rel=1e-3)
    assert len(past) == 48


@pytest.mark.parametrize("most", [0, 3])
def test_a_run_has_the_gallery_that_it_asks_for_and_the_same_metrics(most, tmp_path, monkeypatch):
    fixed = ["device=cpu", "trainer.max_epochs=0", "workflow.num_samples=9", "split.point=stage2", "codec=quant1"]
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        cfg = compose("config", [*fixed, f"cache_dir={tmp_path}", f"workflow.gallery={most}"], return_hydra_config=True)
    monkeypatch.setattr(HydraConfig.instance(), "cfg", cfg)
    result = split.run(cfg, tmp_path)
    assert ("gallery" in result.figures) == bool(most)
    assert result.headline.endswith(" samples/s (estimated)")
    if most:
        assert len(result.figures["gallery"].figure().axes[0].images) == most


def test_the_page_of_a_sweep_shows_the_galleries_of_at_most_three_stars_and_stays_small(tmp_path):
    results = complete_results()
    results = results.assign(job=range(len(results)))
    noise = np.random.default_rng(0).integers(0, 256, (900, 900, 3), np.uint8)
    for job in results["job"]:
        (tmp_path / str(job)).mkdir()
        Image.fromarray(noise).save(tmp_path / str(job) / "gallery.png")
    found = split_summary.galleries(tmp_path, results)
    assert 1 <= len(found) <= 3
    for name, (caption, png) in found.items():
        assert name.startswith("gallery_")
        assert caption.startswith("★ ")
        assert Image.open(io.BytesIO(png)).size[0] > 300
    assert sum(len(png) for _, png in found.values()) <= 300_000  # of a page below a megabyte
    assert split_summary.galleries(tmp_path / "elsewhere", results) == {}

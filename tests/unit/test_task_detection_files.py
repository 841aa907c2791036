"""Detection on a user's own files: COCO's layout, and videos whose targets are the unsplit network's detections."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from splitsem.check import check_task
from splitsem.detections import unpack_targets
from splitsem.errors import ConfigError
from splitsem.tasks.detection.coco import CocoFolder, read_annotations
from splitsem.tasks.detection.detection import Detection
from splitsem.tasks.detection.letterbox import fitted, letterbox
from splitsem.tasks.detection.video import VideoFrames, decoded_frames, found_as_targets
from splitsem.workflows.evaluation import scores

CATEGORIES = [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}, {"id": 90, "name": "toothbrush"}]


def box(image: int, category: int, *bbox: float, **more: object) -> dict:
    return {"id": 1, "image_id": image, "category_id": category, "bbox": list(bbox), "segmentation": [], **more}


def write_coco(folder: Path, boxes: list[dict] | None = None, num: int = 24, changed: dict | None = None) -> Path:
    """Pictures of 40×20, in each of which but the first a red box stands where a person is; the second has a crowd."""
    folder.mkdir(parents=True, exist_ok=True)
    images = []
    for number in range(num):
        picture = np.full((20, 40, 3), 40, np.uint8)
        picture[5:15, 10 : 20 + number % 10] = (200, 0, 0)
        picture[0, 0] = number
        name = f"{number:03}.png"
        Image.fromarray(picture).save(folder / name)
        images.append({"id": 100 + number, "file_name": name, "width": 40, "height": 20, "license": 1})
    if boxes is None:
        boxes = [box(100 + number, 1, 10, 5, 10 + number % 10, 10, area=1.0) for number in range(1, num)]
        boxes += [box(101, 90, 0, 0, 40, 20, iscrowd=1), box(101, 18, 30, 10, 10.4, 10)][: num - 1]
    file = {"images": images, "annotations": boxes, "categories": CATEGORIES, "info": {}} | (changed or {})
    path = folder.parent / f"{folder.name}.json"
    path.write_text(json.dumps(file))
    return path


def test_boxes_of_coco_lie_where_the_things_are_in_the_letterbox(tmp_path):
    task = Detection(CocoFolder(str(tmp_path / "a"), str(write_coco(tmp_path / "a"))), size=(80, 80), augment=False)
    assert task.class_names == ("person", "dog", "toothbrush")
    seen = 0
    for split in task.splits():
        for x, y in (split[i] for i in range(len(split))):
            seen += 1
            assert (x.shape, y.shape) == ((3, 80, 80), (3, 6))
            assert (x[:, :20] == 128 / 255).all()
            assert (x[:, 60:] == 128 / 255).all()
            for corners, is_crowd, number in zip(*next(unpack_targets(y[None])), strict=True):
                left, top, right, bottom = corners.round().int().tolist()
                inside = x[0, top + 2 : bottom - 2, left + 2 : right - 2]
                assert is_crowd == (number == 2)
                assert number != 0 or (inside > 0.5).all()
                assert 0 <= left < right <= 80
                assert 20 <= top < bottom <= 60
    assert seen == 24


def test_every_picture_is_in_one_split_which_more_pictures_do_not_change(tmp_path):
    source = CocoFolder(str(tmp_path / "a"), str(write_coco(tmp_path / "a")))
    names = [{split._annotated.pictures[i][0] for i in split.indices} for split in source.splits((80, 80))]
    assert sum(map(len, names)) == len(set.union(*names)) == 24
    more = CocoFolder(str(tmp_path / "b"), str(write_coco(tmp_path / "b", num=40)))
    for before, split in zip(names, more.splits((80, 80)), strict=True):
        assert before <= {split._annotated.pictures[i][0] for i in split.indices}


def test_files_of_their_own_may_order_their_categories_otherwise(tmp_path):
    train, test = write_coco(tmp_path / "train"), tmp_path / "test"
    other = [{"id": 2, "name": "dog"}, {"id": 7, "name": "person"}]
    path = write_coco(test, [box(100, 7, 10, 5, 10, 10)], num=3, changed={"categories": other})
    source = CocoFolder({"train": str(tmp_path / "train"), "test": str(test)}, {"train": str(train), "test": str(path)})
    splits = source.splits((80, 80))
    assert len(splits.test) == 3
    assert len(splits.train) + len(splits.val) == 24
    assert next(unpack_targets(splits.test[0][1][None])).classes.tolist() == [0]
    write_coco(test, [box(100, 3, 10, 5, 10, 10)], num=3, changed={"categories": [{"id": 3, "name": "cat"}]})
    with pytest.raises(ConfigError, match=r"has the category 'cat', which .*train\.json has not"):
        CocoFolder(
            {"train": str(tmp_path / "train"), "test": str(test)}, {"train": str(train), "test": str(path)}
        ).splits((80, 80))


def test_classes_of_a_pretrained_network_are_found_by_name(tmp_path):
    source = CocoFolder(str(tmp_path / "a"), str(write_coco(tmp_path / "a")))
    task = Detection(source, classes="coco80", augment=False)
    found = torch.cat([split[i][1][:, 5] for split in task.splits() for i in range(len(split))]).unique()
    assert found.tolist() == [-1, 0, 16, 79]
    assert task.model_facts()["num_classes"] == 80


def test_a_category_without_a_box_needs_no_class_of_the_network(tmp_path):
    categories = [*CATEGORIES, {"id": 91, "name": "unicorn"}]
    path = str(write_coco(tmp_path / "a", changed={"categories": categories}))
    task = Detection(CocoFolder(str(tmp_path / "a"), path), classes="coco80", augment=False)
    assert len(task.splits().train) > 0
    task = Detection(CocoFolder(str(tmp_path / "a"), path), classes=["dog", "person"], augment=False)
    with pytest.raises(ConfigError, match=r"classes lack toothbrush, which the targets are of"):
        task.splits()


def test_a_box_outside_by_less_than_a_pixel_is_cut_and_by_more_is_refused_unless_it_shall_be_cut(tmp_path, caplog):
    path = write_coco(tmp_path / "a", [box(100, 1, 30, 10, 10.8, 10), box(100, 1, 1, 1, 0, 5)])
    with caplog.at_level(logging.WARNING):
        assert read_annotations(path).rows[:, :4].tolist() == [[30, 10, 40, 20]]
    assert "1 boxes without area are left out, the first in 000.png" in caplog.text
    path = write_coco(tmp_path / "a", [box(103, 1, 30, 10, 14, 10)])
    said = r"in 003\.png, 40x20 pixels, the box x=30 y=10 width=14 height=10 reaches 4 pixels outside: .*clip=true"
    with pytest.raises(ConfigError, match=said):
        read_annotations(path)
    assert read_annotations(path, clip=True).rows[:, :4].tolist() == [[30, 10, 40, 20]]


@pytest.mark.parametrize(
    ("annotations", "changed", "said"),
    [
        ([], {}, "has no boxes: its annotations are empty"),
        ([box(100, 1, 2, 2, 0, 0)], {}, "has no boxes with an area"),
        ([box(100, 5, 1, 1, 2, 2)], {}, r"category_id 5 in 000\.png, which is not among its categories"),
        ([box(7, 1, 1, 1, 2, 2)], {}, "image_id 7, which is not among its images"),
        (None, {"annotations": "none"}, r"is not a whole annotations file.*\$\.annotations"),
        (None, {"images": [{"id": 1}]}, r"is not a whole annotations file.*file_name"),
        (None, {"categories": [CATEGORIES[0]] * 2}, "two categories the same id"),
        (None, {"categories": [*CATEGORIES, {"id": 5, "name": "dog"}]}, "two categories of the name 'dog'"),
    ],
)
def test_annotations_that_are_wrong_are_told_in_a_line(annotations, changed, said, tmp_path):
    path = write_coco(tmp_path / "a", annotations, num=3, changed=changed)
    with pytest.raises(ConfigError, match=said) as raised:
        read_annotations(path)
    assert "\n" not in str(raised.value)


def test_a_missing_file_and_missing_or_other_pictures_are_told(tmp_path):
    with pytest.raises(ConfigError, match="cannot read the annotations file"):
        CocoFolder(str(tmp_path), str(tmp_path / "none.json")).splits((80, 80))
    path = write_coco(tmp_path / "a")
    (tmp_path / "a" / "003.png").unlink()
    with pytest.raises(ConfigError, match=r"1 of \d+ pictures of .*a\.json are missing, the first: .*003\.png"):
        CocoFolder(str(tmp_path / "a"), str(path)).splits((80, 80))
    path = write_coco(tmp_path / "a")
    Image.new("RGB", (30, 20)).save(tmp_path / "a" / "004.png")
    splits = CocoFolder(str(tmp_path / "a"), str(path)).splits((80, 80))
    with pytest.raises(ConfigError, match=r"004\.png is 30x20 pixels .* annotations are for 40x20"):
        [split[i] for split in splits for i in range(len(split))]
    few = CocoFolder(str(tmp_path / "b"), str(write_coco(tmp_path / "b", num=2)))
    with pytest.raises(ConfigError, match="has 2 pictures, none of which becomes"):
        few.splits((80, 80))


def test_folders_and_files_must_be_of_the_same_parts():
    with pytest.raises(ValueError, match="images must be one path, or one for train"):
        CocoFolder({"train": "a"}, {"train": "a.json", "test": "b.json"})
    with pytest.raises(ValueError, match="annotations must be one path, or one for train"):
        CocoFolder("a", {"test": "b.json"})
    with pytest.raises(ValueError, match="below 1 together"):
        CocoFolder("a", "b.json", val_fraction=0.5, test_fraction=0.5)


@pytest.mark.parametrize(("width", "height"), [(200, 100), (100, 200), (77, 77), (1, 90)])
def test_a_letterbox_holds_all_of_a_picture_in_its_middle(width, height):
    at = letterbox(width, height, (64, 96))
    assert at.left + at.width <= 96
    assert at.top + at.height <= 64
    assert abs(96 - 2 * at.left - at.width) <= 1
    assert abs(64 - 2 * at.top - at.height) <= 1
    assert at.width == 96 or at.height == 64
    made = fitted(Image.new("RGB", (width, height), (9, 9, 9)), (64, 96))
    assert (made == 9).sum() == 3 * at.width * at.height
    assert set(np.unique(made)) <= {9, 128}
    whole = at.boxes(np.array([[0, 0, width, height]], np.float32))[0]
    np.testing.assert_allclose(whole, (at.left, at.top, at.left + at.width, at.top + at.height), rtol=1e-6)


def write_video(path: Path, num: int = 40) -> Path:
    """A film in which frame number i is as bright as 6 · i."""
    av = pytest.importorskip("av", reason="the extra detection is not installed")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 64, 32, "yuv420p", 1
        stream.bit_rate = 8_000_000
        draw = np.random.default_rng(0)
        for number in range(num):
            picture = np.full((32, 64, 3), 6 * number, np.uint8)
            picture[:16] = draw.integers(0, 255, (16, 64, 3))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def brightness(split) -> list[int]:
    return [round(float(split.samples[i][:, 36:44].mean()) * 255 / 6) for i in range(len(split))]


def test_a_video_gives_its_beginning_to_train_and_its_end_to_test(tmp_path):
    source = VideoFrames(str(write_video(tmp_path / "a.avi")), every=2, gap=2)
    task = Detection(source, size=(64, 64))
    assert task.is_agreement
    assert len(task.class_names) == 80
    train, val, test = map(brightness, task.splits())
    assert (train, val, test) == ([*range(0, 14, 2)], [18, 20, 22], [*range(28, 40, 2)])
    assert brightness(VideoFrames(str(tmp_path / "a.avi"), 1, 12, gap=0).splits((64, 64)).test) == [7, 8, 9, 10, 11]
    assert task.data_paths() == (tmp_path / "a.avi",)


def test_targets_of_a_video_are_what_the_network_is_sure_of(tmp_path):
    task = Detection(VideoFrames(str(write_video(tmp_path / "a.avi")), gap=0), size=(64, 64), most=2)
    found = torch.tensor([[1.0, 2, 30, 40, 0.26, 7], [1, 2, 9, 9, 0.25, 3]])
    with pytest.raises(ConfigError, match="no labels"):
        task.splits().test[0]
    task.label_by(lambda x: found.repeat(len(x), 1, 1))
    x, y = task.splits().test[0]
    assert x.shape == (3, 64, 64)
    assert y.tolist() == [[1, 2, 30, 40, 0, 7], [0, 0, 0, 0, 0, -1]]
    metrics = task.metrics()
    metrics.update(found[None], y[None])
    assert float(metrics.compute()["score"]) == 1.0
    assert found_as_targets(torch.zeros(1, 2, 6), 0.0, (64, 64))[0, :, 5].tolist() == [-1, -1]


def test_a_task_of_a_video_keeps_the_contract_of_a_task(tmp_path):
    path = str(write_video(tmp_path / "a.avi"))
    check_task(lambda: Detection(VideoFrames(path, every=2, gap=0), size=(64, 64)))


def test_a_task_in_cocos_layout_keeps_the_contract_of_a_task(tmp_path):
    path = str(write_coco(tmp_path / "a"))
    check_task(lambda: Detection(CocoFolder(str(tmp_path / "a"), path), size=(80, 80), augment=False))


def test_of_a_video_that_ends_early_or_is_broken_what_decodes_is_used_and_counted(tmp_path, caplog):
    whole = write_video(tmp_path / "a.avi").read_bytes()
    (tmp_path / "short.avi").write_bytes(whole[: len(whole) // 2])
    uncounted = write_video(tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "short.mkv").write_bytes(uncounted[: len(uncounted) // 2])
    broken = bytearray(whole)
    broken[len(whole) // 2 : len(whole) // 2 + 4000] = bytes(4000)
    (tmp_path / "broken.avi").write_bytes(broken)
    for name, declared in (("short.avi", 40), ("broken.avi", 40), ("short.mkv", 38)):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            num = sum(1 for _ in decoded_frames(tmp_path / name))
        assert 10 < num < 40
        assert f"{num} frames decode and are used; it declares {declared} or more" in caplog.text
    caplog.clear()
    assert [sum(1 for _ in decoded_frames(tmp_path / name)) for name in ("a.avi", "whole.mkv")] == [40, 40]
    assert not caplog.text


def test_what_is_no_video_or_too_short_a_one_is_told_in_a_line(tmp_path):
    pytest.importorskip("av", reason="the extra detection is not installed")
    (tmp_path / "text.avi").write_text("no video")
    for name, said in (("text", "cannot read the video .*text.avi: .*ffmpeg"), ("none", "No such file")):
        with pytest.raises(ConfigError, match=said) as raised:
            VideoFrames(str(tmp_path / f"{name}.avi")).splits((64, 64))
        assert "\n" not in str(raised.value)
    with pytest.raises(ConfigError, match="gives 2 frames, of which 10 are left out"):
        VideoFrames(str(write_video(tmp_path / "a.avi")), every=20).splits((64, 64))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"every": 0}, "every and num_frames must be at least 1, got 0 and None"),
        ({"test_fraction": 1.0}, "below 1 together, got 0.2 and 1.0"),
        ({"gap": -1}, "gap must be at least 0, got -1"),
        ({"score_threshold": 1.0}, "score_threshold must be from 0 to below 1, got 1.0"),
    ],
)
def test_bad_arguments_of_a_video_are_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        VideoFrames("a.avi", **arguments)


def test_a_network_agrees_with_itself_whatever_odd_boxes_it_finds(tmp_path):
    task = Detection(VideoFrames(str(write_video(tmp_path / "a.avi")), gap=0), size=(64, 64), most=6)
    inf, nan = float("inf"), float("nan")
    odd = [[5, 5, 5, 5, 0.9, 7], [70, 2, 90, 9, 0.8, 7], [nan, 2, 9, 9, 0.7, 7], [1, 2, 9, inf, 0.6, 3]]
    found = torch.tensor([[-30.0, 10, 50, 80, 0.95, 7], *odd, [8, 8, 20, 30, 0.2, 7]])
    task.label_by(lambda x: found.repeat(len(x), 1, 1))
    samples, coder = task.splits().test, task.answer_coder()
    answer = coder.as_output(coder.decode(coder.encode(found[None])))
    for output in (found[None], answer):
        metrics = task.metrics()
        metrics.update(output, samples[0][1][None])
        assert float(metrics.compute()["score"]) == 1.0
    assert samples[0][1][0].tolist() == [0, 10, 50, 64, 0, 7]
    assert (samples[0][1][1:, 5] == -1).all()


def test_a_network_that_finds_nothing_is_told_so_instead_of_an_agreement_of_zero(tmp_path):
    task = Detection(VideoFrames(str(write_video(tmp_path / "a.avi")), gap=0), size=(64, 64), most=2)

    def unsure(x):
        return torch.tensor([1.0, 2, 30, 40, 0.2, 7]).repeat(len(x), 2, 1)

    task.label_by(unsure)
    batches = {split: list(DataLoader(getattr(task.splits(), split), batch_size=8)) for split in ("val", "test")}
    with pytest.raises(ConfigError, match="finds nothing in the test samples, so that agreement with it says nothing"):
        scores(unsure, task, batches.__getitem__)

"""What holds for every classification task: exact pictures, disjoint splits, loss and score."""

import pytest
import torch
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassAccuracy

from splitsem.errors import DataError
from splitsem.tasks.classification import ClassificationTask, ImageTensors, RandomCropFlip, hold_out
from splitsem.tasks.digits import Digits
from splitsem.tasks.metrics import Accuracy, Metrics
from splitsem.tasks.task import Splits


class Blank(ClassificationTask):
    """As many classes as wanted, no data."""

    def __init__(self, num_classes: int) -> None:
        super().__init__([str(number) for number in range(num_classes)], (3, 4, 5))
        self.num_loads = 0

    def _load(self) -> Splits:
        self.num_loads += 1
        data = ImageTensors(torch.zeros(1, 3, 4, 5, dtype=torch.uint8), torch.zeros(1))
        return Splits(data, data, data)


@pytest.fixture(scope="module")
def digits() -> Digits:
    return Digits()


def everything(data: ImageTensors) -> tuple[torch.Tensor, torch.Tensor]:
    return next(iter(DataLoader(data, batch_size=len(data))))


def test_digits_are_float_pictures_that_uint8_carries_exactly(digits: Digits) -> None:
    x, y = everything(digits.splits().test)
    assert x.dtype == torch.float32
    assert y.dtype == torch.int64
    assert x.shape[1:] == digits.input_shape == (1, 8, 8)
    assert torch.equal(x, (x * 255).round().to(torch.uint8).float() / 255)
    assert (x.min().item(), x.max().item()) == (0.0, 1.0)
    assert digits.input_bytes == 64


def test_digits_are_split_sixty_twenty_twenty_without_overlap_and_without_loss(digits: Digits) -> None:
    sizes = [len(part) for part in digits.splits()]
    assert sum(sizes) == 1797
    assert [round(size / 1797, 2) for size in sizes] == [0.6, 0.2, 0.2]
    pictures = torch.cat([part.images for part in digits.splits()]).flatten(1)
    assert len(pictures.unique(dim=0)) == len(pictures)


def test_every_class_is_in_every_split_in_proportion(digits: Digits) -> None:
    total = torch.cat([part.labels for part in digits.splits()]).bincount()
    for part in digits.splits():
        share = part.labels.bincount(minlength=10) / total
        assert (share - len(part) / 1797).abs().max() < 0.01


def test_the_same_seed_gives_the_same_splits_and_another_seed_other_ones() -> None:
    first, again, other = (Digits(seed).splits() for seed in (0, 0, 1))
    assert torch.equal(first.test.images, again.test.images)
    assert torch.equal(first.train.images, again.train.images)
    assert not torch.equal(first.test.images, other.test.images)


def test_data_are_loaded_once() -> None:
    task = Blank(3)
    assert task.splits() is task.splits()
    assert task.num_loads == 1


def found(metrics: Metrics, y_hat: torch.Tensor, y: torch.Tensor) -> dict[str, float]:
    metrics.update(y_hat, y)
    return {name: float(value) for name, value in metrics.compute().items()}


def test_score_is_the_share_of_right_answers() -> None:
    y = torch.tensor([0, 1, 2, 1])
    y_hat = torch.nn.functional.one_hot(torch.tensor([0, 1, 2, 0]), 3).float()
    assert found(Blank(3).metrics(), y_hat, y) == {"score": 0.75}


def test_many_classes_are_also_scored_by_the_best_five_guesses() -> None:
    y_hat = torch.linspace(1, 0, 20).repeat(4, 1)
    y = torch.tensor([0, 4, 5, 19])
    assert found(Blank(20).metrics(), y_hat, y) == {"score": 0.25, "top5": 0.5}


@pytest.mark.parametrize("top_k", [1, 5])
def test_accuracy_is_that_of_torchmetrics(top_k: int) -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = Accuracy(top_k), MulticlassAccuracy(20, average="micro", top_k=top_k)
    for _ in range(3):
        y_hat, y = torch.rand(7, 20, generator=generator), torch.randint(20, (7,), generator=generator)
        ours.update(y_hat, y)
        theirs.update(y_hat, y)
    assert ours.compute() == theirs.compute()


def test_metrics_are_fresh_each_time() -> None:
    task = Blank(3)
    task.metrics().update(torch.eye(3), torch.tensor([1, 2, 0]))
    assert found(task.metrics(), torch.eye(3), torch.tensor([0, 1, 2]))["score"] == 1.0


def test_loss_of_equal_logits_is_the_log_of_the_number_of_classes() -> None:
    loss = Blank(7).loss(torch.zeros(5, 7), torch.arange(5))
    assert loss.item() == pytest.approx(torch.tensor(7.0).log().item())


def test_output_shape_and_bytes_follow_from_classes_and_picture() -> None:
    assert (Blank(7).output_shape, Blank(7).input_bytes) == ((7,), 60)


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
def test_hold_out_is_disjoint_complete_and_stratified(fraction: float) -> None:
    labels = torch.randint(0, 5, (1000,), generator=torch.Generator().manual_seed(3))
    rest, held_out = hold_out(labels, fraction, seed=0)
    assert torch.equal(torch.cat([rest, held_out]).sort().values, torch.arange(1000))
    assert (labels[held_out].bincount() - fraction * labels.bincount()).abs().max() <= 0.5


def test_hold_out_leaves_a_member_of_each_class_on_both_sides() -> None:
    rest, held_out = hold_out(torch.tensor([0, 0, 1, 1]), 0.01, seed=0)
    assert len(rest) == len(held_out) == 2


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_hold_out_refuses_to_hold_out_nothing_or_all(fraction: float) -> None:
    with pytest.raises(ValueError, match=r"fraction must be in \(0, 1\)"):
        hold_out(torch.zeros(4), fraction, seed=0)


def test_one_sample_equals_the_same_sample_of_a_batch() -> None:
    images = torch.randint(0, 256, (9, 3, 4, 5), dtype=torch.uint8)
    data = ImageTensors(images, torch.arange(9))
    x, y = everything(data)
    assert torch.equal(x[4], data[4][0])
    assert y[4] == data[4][1] == 4


def test_images_that_are_not_uint8_are_refused() -> None:
    with pytest.raises(ValueError, match="images must be uint8"):
        ImageTensors(torch.zeros(2, 1, 4, 4), torch.zeros(2))


def test_augmentation_shifts_and_mirrors_whole_pictures() -> None:
    torch.manual_seed(0)
    picture = torch.arange(1, 37, dtype=torch.uint8).view(1, 1, 6, 6)
    shifts = torch.nn.functional.pad(picture, [2] * 4).unfold(2, 6, 1).unfold(3, 6, 1).reshape(-1, 36)
    allowed = {tuple(shift.tolist()) for shift in torch.cat([shifts, shifts.view(-1, 6, 6).flip(2).reshape(-1, 36)])}
    seen = {tuple(image.flatten().tolist()) for image in RandomCropFlip(2)(picture.expand(2000, -1, -1, -1))}
    assert seen == allowed


def test_augmentation_repeats_with_the_seed() -> None:
    images = torch.randint(0, 256, (8, 3, 6, 6), dtype=torch.uint8)
    results = []
    for _ in range(2):
        torch.manual_seed(5)
        results.append(RandomCropFlip(1)(images))
    assert torch.equal(*results)


def test_negative_padding_is_refused() -> None:
    with pytest.raises(ValueError, match="padding must be at least 0, got -1"):
        RandomCropFlip(-1)


@pytest.mark.parametrize("label", [-1, 10])
def test_a_label_that_is_no_class_is_told_with_what_labels_may_be(label: int) -> None:
    with pytest.raises(DataError, match=f"whole numbers from 0 to 9, one for each class name, got {label}$"):
        Blank(10).loss(torch.zeros(2, 10), torch.tensor([3, label]))

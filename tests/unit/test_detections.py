"""Boxes as one tensor: packing, unpacking and non-maximum suppression."""

import pytest
import torch

from splitsem.detections import Boxes, pack, pack_targets, suppress, unpack, unpack_targets

ONE = Boxes(torch.tensor([[1.0, 2, 3, 4], [5, 6, 9, 9]]), torch.tensor([0.25, 0.75]), torch.tensor([7, 0]))


def test_what_is_packed_unpacks_with_the_highest_score_first():
    (boxes,) = unpack(pack([ONE], 4))
    assert torch.equal(boxes.corners, ONE.corners[[1, 0]])
    assert boxes.scores.tolist() == [0.75, 0.25]
    assert boxes.classes.tolist() == [0, 7]


def test_the_lowest_scores_go_first_where_there_are_too_many():
    (boxes,) = unpack(pack([ONE], 1))
    assert boxes.classes.tolist() == [0]


def test_targets_of_class_zero_and_pictures_without_any_survive():
    targets = Boxes(ONE.corners, torch.tensor([0.0, 1.0]), ONE.classes)
    nothing = Boxes(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long))
    found, none = unpack_targets(pack_targets([targets, nothing], 2))
    assert found.scores.tolist() == [0, 1]
    assert found.classes.tolist() == [7, 0]
    assert len(none.corners) == 0


def test_more_targets_than_rows_are_refused():
    with pytest.raises(ValueError, match="most must be at least 2"):
        pack_targets([ONE], 1)


def test_suppression_keeps_the_best_of_overlapping_boxes_of_a_class_and_all_classes():
    corners = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]]])
    scores = torch.tensor([[[0.9, 0.0], [0.8, 0.7], [0.0, 0.01]]])
    (boxes,) = unpack(suppress(corners, scores, most=5))
    assert boxes.scores.tolist() == pytest.approx([0.9, 0.7])
    assert boxes.classes.tolist() == [0, 1]


def test_boxes_that_a_network_made_while_it_learns_are_packed_and_unpacked():
    corners, scores = ONE.corners.clone().requires_grad_(), ONE.scores.clone().requires_grad_()
    (boxes,) = unpack(pack([Boxes(corners, scores, ONE.classes)], 2))
    boxes.corners.sum().backward()
    assert corners.grad.tolist() == [[1] * 4] * 2

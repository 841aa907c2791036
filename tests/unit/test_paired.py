"""What a network may lose beside what it lost here, from the samples on which it and the reference differ."""

import numpy as np
import pytest

from splitsem.search.objective import paired_margin


def test_the_same_function_needs_no_margin_and_rarer_disagreement_a_smaller_one():
    right = np.random.default_rng(0).random(500) < 0.9
    flipped = [right ^ (np.arange(500) < num) for num in (0, 5, 20, 80)]
    margins = [paired_margin(one, right) for one in flipped]
    assert margins[0] == 0
    assert margins == sorted(margins)


def test_losses_beyond_the_margin_are_as_rare_as_the_confidence_says():
    rng = np.random.default_rng(1)
    worse, better, n = 0.03, 0.01, 500  # shares of samples that only the reference, only the network has right
    misses = []
    for _ in range(2000):
        drawn = rng.random(n)
        right_ref, right = drawn < 0.9 + worse - better, (drawn < 0.9 - better) | (drawn > 1 - better)
        upper = (right_ref.mean() - right.mean()) + paired_margin(right, right_ref, 0.95)
        misses.append(upper < worse - better)
    assert 0.02 < np.mean(misses) < 0.09


def test_other_samples_or_a_confidence_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="of the same samples, two or more"):
        paired_margin([1, 0], [1, 0, 1])
    with pytest.raises(ValueError, match="confidence must be above"):
        paired_margin([1, 0], [1, 0], 0.5)

"""Screening keeps whatever may be on the front or the choice, and codes each k-th sample only."""

import numpy as np
import pandas as pd
import pytest
import torch

from splitsem.pipeline import Features
from splitsem.search.fronts import choose
from splitsem.workflows.codec_offers import REFERENCE
from splitsem.workflows.joint.rates import MEANS, MEDIANS, _every, error_of
from splitsem.workflows.joint.screening import survivors


def _valued(rows: pd.DataFrame) -> pd.DataFrame:
    """The seconds of link and coding, whose sum no row may lessen by taking longer."""
    return rows.assign(value=rows["link_s"] + rows["encode_s"])


def _table(draw: np.random.Generator, num_rows: int) -> pd.DataFrame:
    """Rows as a few samples tell them: values in clusters, damages of few different sizes."""
    columns = {name: np.zeros(num_rows) for name in (*MEANS, *map(error_of, MEANS), *MEDIANS)}
    rows = pd.DataFrame(columns).assign(codec=[f"codec{row}" for row in range(num_rows)])
    return rows.assign(
        link_s=draw.uniform(1.0, 2.0, num_rows).round(2),
        link_s_error=draw.uniform(0.0, 0.02, num_rows),
        encode_s=draw.uniform(0.0, 0.2, num_rows),
        damage=draw.integers(-2, 8, num_rows) / 100,
        margin=draw.integers(0, 3, num_rows) / 200,
    )


@pytest.mark.parametrize("seed", range(20))
def test_the_front_and_the_choice_are_those_of_all_rows(seed: int) -> None:
    draw = np.random.default_rng(seed)
    rows = _table(draw, 60)
    kept = survivors(rows, _valued)
    assert 0 < kept.sum() < len(rows)
    for _ in range(20):  # what all samples may tell
        means = rows["link_s"] + draw.uniform(-4, 4, len(rows)) * rows["link_s_error"]
        value = (means + draw.uniform(0.7, 1.3, len(rows)) * rows["encode_s"]).to_numpy()
        damage, margin = rows["damage"].to_numpy(), rows["margin"].to_numpy()
        assert kept[choose(value, damage, 0.02).front].all()
        assert kept[choose(value, damage + margin, 0.02).best]


def test_rows_of_the_baselines_stay() -> None:
    rows = _table(np.random.default_rng(0), 40)
    out = int(np.flatnonzero(~survivors(rows, _valued))[0])
    rows.loc[out, "codec"] = REFERENCE
    assert survivors(rows, _valued)[out]


@pytest.mark.parametrize("is_batched", [True, False])
def test_each_third_sample_is_coded_across_batches(is_batched: bool) -> None:
    coded, before = [], 0
    for size in (4, 1, 5, 3):
        samples = torch.arange(before, before + size).float()[:, None]
        groups = [Features((samples,), size)] if is_batched else [Features((one,), 1) for one in samples.split(1)]
        coded += [int(z) for made in _every(3, groups, before) for z in made.z[0].ravel()]
        before += size
    assert coded == [0, 3, 6, 9, 12]

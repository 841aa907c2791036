"""Intervals: how sure a mean over seeds is."""

import pandas as pd
from scipy import special


def half_ci95(values: pd.Series) -> float:
    """Half the 95 % confidence interval of the mean, ``t·s/√n`` (Student's t); 0 for a single value.

    >>> round(half_ci95(pd.Series([1.0, 2.0, 3.0])), 3)
    2.484
    """
    if len(values) < 2:
        return 0.0
    return float(special.stdtrit(len(values) - 1, 0.975) * values.std(ddof=1) / len(values) ** 0.5)


def over_trainings(group: pd.DataFrame, column: str = "score") -> pd.Series:
    """The values that an interval is made of: one for each ``training_seed``, the mean over the channel's seeds.

    Runs of one training share its luck: they are no independent samples of what another training would give. Where
    there is but one training (or the column is missing), the runs themselves.
    """
    if "training_seed" not in group or group["training_seed"].nunique() < 2:
        return group[column]
    return group.groupby("training_seed")[column].mean()

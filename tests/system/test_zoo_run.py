"""workflow=zoo with real processes: what becomes of networks that end their process or take too long."""

import pandas as pd
import pytest

NETWORKS = """
import os
import time

from torch import nn


class Good(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 3))


class Dying(nn.Module):
    def __init__(self):
        os._exit(3)


class Slow(nn.Module):
    def __init__(self):
        time.sleep(600)
"""
LIST = """
- {network: slow, _target_: zoo_toys.Slow, input: [6]}
- {network: dying, _target_: zoo_toys.Dying, input: [6]}
- {network: good, family: toys, _target_: zoo_toys.Good, input: [6]}
- {network: absent, _target_: no_such_package.Net, input: [6]}
"""


@pytest.mark.slow
def test_networks_that_die_or_take_too_long_stop_no_other(run_py, tmp_path):
    (tmp_path / "zoo_toys.py").write_text(NETWORKS)
    (tmp_path / "list.yaml").write_text(LIST)
    done = run_py(
        "workflow=zoo", "workflow.file=list.yaml", "workflow.limit_s=15", "device=cpu", "tracking=none",
        "hydra.run.dir=zoo", PYTHONPATH=str(tmp_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = pd.read_csv(tmp_path / "zoo" / "results.csv", keep_default_na=False).set_index("network")
    assert rows.loc["slow", "reason"] == "not done within workflow.limit_s=15 s"
    assert rows.loc["dying", "reason"] == "its process ended with an error; see networks.log"
    assert rows.loc["good", "is_exact"] == "yes"
    assert "no module no_such_package" in rows.loc["absent", "reason"]
    assert "1 of 4 networks are exact" in done.stdout
    assert (tmp_path / "zoo" / "bottlenecks.png").exists()

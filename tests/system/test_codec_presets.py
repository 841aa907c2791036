"""The presets that compare codecs, shrunk: every job leaves its rows, the sweep one table and one figure."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest

from tests.conftest import ENVIRONMENT, ROOT

pytestmark = pytest.mark.thorough
UNTRAINED = ("task=digits", "tracking=none", "trainer.max_epochs=0", "workflow.num_samples=6", "-m")
ONE_STEP = [
    f"codec.stages.{name}" for name in ("features.max_epochs=0", "task.max_epochs=1", "task.limit_train_batches=1")
]
SWEEPS = (
    (
        "experiment=ber_sweep",
        "codec=semanticnn,adjscc",
        *ONE_STEP,
        "workflow.over.values=[-3,7]",
        "hydra.sweep.dir=ber",
    ),
    ("experiment=three_way", "codec=crbq,quant2", "hydra.sweep.dir=three"),
)
# One process for both, because its imports take longer than a shrunk sweep.
BOTH = """
import json, runpy, sys
run_py, *sweeps = sys.argv[1:]
for arguments in map(json.loads, sweeps):
    sys.argv = [run_py, *arguments]
    runpy.run_path(run_py, run_name="__main__")
    print("NEXT", flush=True)
"""


class Done(NamedTuple):
    """The sweep's folder and what it printed."""

    folder: Path
    text: str


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory: pytest.TempPathFactory) -> list[Done]:
    """Both sweeps, as ``run.py`` makes them."""
    folder = tmp_path_factory.mktemp("presets")
    arguments = [json.dumps([*sweep, *UNTRAINED]) for sweep in SWEEPS]
    done = subprocess.run(
        [sys.executable, "-c", BOTH, str(ROOT / "run.py"), *arguments],
        cwd=folder,
        env=os.environ | ENVIRONMENT | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return [Done(folder / name, text) for name, text in zip(("ber", "three"), done.stdout.split("NEXT"), strict=False)]


def test_ber_sweep_joins_the_curves_of_all_codecs(sweeps):
    folder, text = sweeps[0]
    rows = pd.read_csv(folder / "link_scores.csv")
    assert len(rows) == 2 * 2 * 3  # codecs, settings, channel seeds
    assert set(rows["setting"]) == {"channel.ebn0_db"}
    ber = rows.groupby("setting_value")["ber"].mean()
    assert ber[-3.0] > 0.1 > 0.01 > ber[7.0]
    results = pd.read_csv(folder / "results.csv")
    first = rows.query("codec == 'semanticnn'")
    job = results.query("codec == 'semanticnn'").iloc[0]
    assert job["score_over_link"] == pytest.approx(first["score"].mean())
    assert job["score_over_link"] == pytest.approx((job["score_at_-3"] + job["score_at_7"]) / 2)
    for name in ("score_snr.png", "score_ber.png", "three_way.png", "three_way.csv"):
        assert (folder / name).exists()
    assert "over the link: area under score" in text
    assert (folder / "report.html").read_text().count(
        "data:image/png"
    ) == 7  # three of the link, three of the sweep, a gallery


def test_three_way_puts_learned_codecs_beside_plain_ones_and_the_picture(sweeps):
    folder, text = sweeps[1]
    table = pd.read_csv(folder / "three_way.csv").set_index("codec")
    assert set(table.index) == {"crbq", "quant2", "JPEG", "WebP"}
    assert (table["encoder_bytes"] > 0).to_dict() == {"crbq": True, "quant2": False, "JPEG": False, "WebP": False}
    assert not (folder / "link_scores.csv").exists()
    assert "no other is at least as good in all three" in text

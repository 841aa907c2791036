"""The end of a sweep over codecs: the three-way table, and all jobs' scores over the link in one table and figure."""

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from omegaconf import OmegaConf
from rich.console import Console

from splitsem.plots import results as rs
from splitsem.plots.codec_table import codec_table
from splitsem.plots.score_channel import score_channel
from splitsem.plots.three_way import is_three_way, three_way, three_way_figure
from splitsem.plots.units import format_bytes
from splitsem.workflows.over_link import SCORES

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def codec_figures(folder: Path, results: pd.DataFrame) -> dict[str, "Figure"]:
    """Write ``three_way.csv`` and ``link_scores.csv`` where the sweep has them; returns their figures by name.

    Args:
        folder: the sweep's.
        results: one row a job.
    """
    figures = {}
    if is_three_way(results):
        three_way(results).to_csv(folder / "three_way.csv", index=False)
        figures["three_way"] = three_way_figure(results)
    rows = link_scores(folder, results)
    if len(rows):
        rows.to_csv(folder / SCORES, index=False)
        sizes = rows.groupby("codec")["payload_bytes"].transform("mean").map(format_bytes)
        shown = rows.assign(link=rows["setting_value"], codec=rows["codec"] + " · " + sizes)
        shown = shown.drop(columns="score_clean")  # a line for each of so many codecs would hide the curves
        subtitle = rs.describe(rs.with_series(results))
        if shown["snr_db"].notna().any():
            figures["score_snr"] = score_channel(shown, "snr_db", subtitle)
        figures["score_ber"] = score_channel(shown, "ber", subtitle)
    return figures


def print_codecs(console: Console, results: pd.DataFrame) -> None:
    """The three-way table on the terminal, where the sweep compared codecs with weights."""
    if is_three_way(results):
        console.print(codec_table(three_way(results), rs.describe(rs.with_series(results))))


def link_scores(folder: Path, results: pd.DataFrame) -> pd.DataFrame:
    """The rows that the jobs left under ``workflow.over``, in one table.

    Returns:
        A row for each job, setting of the link and channel seed: ``codec`` (what tells the job from the others),
        ``training_seed``, ``setting`` and ``setting_value``, what ``replay.play_all`` counts, and the job's
        ``score_clean``, ``score_unsplit`` and ``encoder_bytes``. Empty without such jobs.
    """
    tables = []
    frame = rs.with_series(results)
    for _, job in frame[frame["is_ok"] & ~frame["is_reference"]].iterrows():
        path = folder / f"{job['job']:.0f}" / SCORES
        if not path.exists():
            continue
        table = pd.read_csv(path)
        setting = str(table.columns[0])
        table = table.rename(columns={setting: "setting_value"})
        training_seed = OmegaConf.load(path.parent / ".hydra" / "config.yaml").seed
        table.insert(0, "codec", job["series"])
        table.insert(1, "training_seed", training_seed)
        table.insert(2, "setting", setting)
        tables.append(table.assign(**{n: job[n] for n in ("score_clean", "score_unsplit", "encoder_bytes")}))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()

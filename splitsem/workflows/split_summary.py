"""The end of a sweep over cuts, codecs and links: its figures, its report and the best choices in sentences."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from omegaconf import OmegaConf

from splitsem.files import write_csv
from splitsem.report import results as rs
from splitsem.report import style
from splitsem.report.best import as_metrics, best
from splitsem.report.breakdown import latency_breakdown
from splitsem.report.codec_figures import is_three_way, score_channel, three_way, three_way_figure
from splitsem.report.page import small_png
from splitsem.report.sensitivity import ASSUMPTIONS, how_sure, sensitivity
from splitsem.report.sensitivity_figure import sensitivity_figure
from splitsem.report.sweep_figures import accuracy_throughput, rate_accuracy
from splitsem.report.sweep_report import report
from splitsem.report.tables import OWN_TABLE, codec_table, measured_table
from splitsem.report.tables import table as results_table
from splitsem.report.terminal import grid_of
from splitsem.report.units import format_bytes
from splitsem.workflows.result import DRAWS, SCORES
from splitsem.workflows.summary import Sweep

_OF_JOB = ("score_name", "score_clean", "score_unsplit", "encoder_bytes")
_MOST_GALLERIES = 3
_GALLERIES_BYTES = 300_000  # of all on the page, so that it stays below a megabyte; base64 adds a third

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray


def summarise(sweep: Sweep) -> None:
    """Leave the figures and ``report.html``; print the table and what is best."""
    folder, results = sweep.folder, with_draws(sweep.folder, sweep.results)
    if "score" not in results:  # no job succeeded
        sweep.print_list()
        return
    figures = {draw.__name__: draw(results) for draw in (accuracy_throughput, latency_breakdown, rate_accuracy)}
    if (over_channel := _over_channel(results)) is not None:
        figures["score_channel"] = score_channel(
            over_channel, "snr_db" if "snr_db" in over_channel else "ber", sweep.origin.title
        )
    figures |= codec_figures(folder, results)
    sure = sensitivity(results) if sweep.setting("workflow.sensitivity") else []
    if sure:
        figures["sensitivity"] = sensitivity_figure(sure, rs.describe(rs.prepare(results)))
    for name, figure in figures.items():
        style.save(figure, folder / name)
    sweep.print_table(results_table(results))
    if (measured := measured_table(results)) is not None:
        sweep.print_table(measured, OWN_TABLE.removesuffix(".md"))
    if is_three_way(results):
        sweep.print_table(codec_table(three_way(results), rs.describe(rs.with_series(results))), "codecs")
    sweep.write_best(as_metrics(answers := best(results)))
    for answer in answers:
        sweep.console.print(f"• {answer.sentence}", highlight=False)
    if sure:
        sweep.console.print(f"How sure, if one of six assumptions is off ({ASSUMPTIONS}):", highlight=False)
    told = how_sure(answers, sure)
    for line in told:
        sweep.console.print(f"• {line}", highlight=False)
    remarks = {"sensitivity": "\n".join(told)}
    shown = galleries(folder, results)
    remarks |= {name: remark for name, (remark, _) in shown.items()}
    pictures = {name: small_png((folder / f"{name}.png").read_bytes()) for name in figures}  # drawn once
    pictures |= {name: png for name, (_, png) in shown.items()}
    sweep.write_page(report(results, pictures, *sweep.origin, remarks, answers))


def galleries(folder: Path, results: pd.DataFrame) -> dict[str, tuple[str, bytes]]:
    """Caption and PNG of the galleries of the ★ jobs, the fastest first, at most three: a page holds no more.

    Args:
        folder: the sweep's.
        results: one row a job.
    """
    frame = rs.prepare(results.assign(job=results["job"].map("{:.0f}".format)))  # as text: of several seeds, the first
    best_first = frame[frame["front"] == "best"].sort_values("throughput_hz", ascending=False)
    paths = [folder / job / "gallery.png" for job in best_first["job"]]
    found = [(row, path) for (_, row), path in zip(best_first.iterrows(), paths, strict=True) if path.exists()]
    shown = found[:_MOST_GALLERIES]
    return {
        f"gallery_{row['job']}": (
            f"★ {row['split_point']} · {row['series']}. Each job's folder has such a file.",
            small_png(path.read_bytes(), _GALLERIES_BYTES / len(shown)),
        )
        for row, path in shown
    }


def summarise_trainings(sweep: Sweep) -> None:
    """Print what differs between the trainings, and their scores; with the codec in the loop, as ``summarise``."""
    if "payload_bytes" in sweep.results or "score" not in sweep.results:
        summarise(sweep)
        return
    done = sweep.done
    swept = [name for name in map(str, done) if rs.is_override(name)]
    columns = [name for name in swept if done[name].astype(str).nunique() > 1]
    table = grid_of("")
    for name in ("job", *columns, rs.score_name(done)):
        table.add_column(name, justify="left" if name in columns else "right")
    for row in done.to_dict("records"):
        table.add_row(f"{row['job']:.0f}", *(str(row[name]) for name in columns), f"{row['score']:.4f}")
    sweep.print_table(table)
    sweep.print_list()


def with_draws(folder: Path, results: pd.DataFrame) -> pd.DataFrame:
    """The results with the column ``results.DRAWS``: what each row's job kept of its validation score's uncertainty.

    Args:
        folder: the sweep's.
        results: as ``summary.gather`` gives them: a row a job, then a row for each reference.
    """
    jobs = results["job"].dropna()
    paths = [folder / f"{job:.0f}" / DRAWS for job in jobs]
    paths += [path.with_suffix(".npz") for path in sorted(folder.glob("references/*.json"))]
    draws = pd.Series([_validation_draws(path) for path in paths], results.index, dtype=object)
    return results.assign(**{rs.DRAWS: draws})


def _validation_draws(path: Path) -> "NDArray[np.float32] | None":
    if not path.exists():
        return None
    with np.load(path) as kept:
        return kept.get("val")


def _over_channel(results: pd.DataFrame) -> pd.DataFrame | None:
    """The jobs of a sweep over a channel's settings, the codec column naming whatever else was swept; else None."""
    swept = [c for c in map(str, results) if "." in c and rs.is_override(c) and results[c].nunique() > 1]
    if "ber" not in results or not any(c.startswith("transport.channel.") for c in swept):
        return None
    others = [c for c in swept if not c.startswith("transport.channel.")]
    rows = results[results["ber"].notna()]
    labels = rows["codec"].astype(str)
    for column in others:
        labels += " · " + rows[column].fillna("").astype(str)
    return rows.assign(codec=labels)


def codec_figures(folder: Path, results: pd.DataFrame) -> dict[str, "Figure"]:
    """Write ``link_scores.csv`` where the sweep has them; returns the figures that compare codecs, by name.

    Args:
        folder: the sweep's.
        results: one row a job.
    """
    figures = {}
    if is_three_way(results):
        figures["three_way"] = three_way_figure(results)
    rows = link_scores(folder, results)
    if len(rows):
        write_csv(rows, folder / SCORES)
        sizes = rows.groupby("codec")["payload_bytes"].transform("mean").map(format_bytes)
        shown = rows.assign(link=rows["setting_value"], codec=rows["codec"] + " · " + sizes)
        shown = shown.drop(columns="score_clean")  # a line for each of so many codecs would hide the curves
        subtitle = rs.describe(rs.with_series(results))
        if shown["snr_db"].notna().any():
            figures["score_snr"] = score_channel(shown, "snr_db", subtitle)
        figures["score_ber"] = score_channel(shown, "ber", subtitle)
    return figures


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
        tables.append(table.assign(**{name: job[name] for name in _OF_JOB}))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()

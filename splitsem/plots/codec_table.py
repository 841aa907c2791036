"""Codecs side by side on the terminal: bytes of the encoder, bytes of a payload, score."""

import pandas as pd
from rich.table import Table

from splitsem.plots.tables import grid_of
from splitsem.plots.units import MISSING, format_bytes, format_number, format_ratio, format_score


def codec_table(three_way: pd.DataFrame, title: str) -> Table:
    """One line a codec setting, smallest payload first.

    Args:
        three_way: as from ``plots.three_way``.
        title: what was run.
    """
    grid = grid_of(title)
    has_intervals = bool((three_way["num_trainings"] > 1).any())
    has_link = bool(three_way["score_over_link"].notna().any())
    grid.add_column("codec", overflow="fold", min_width=17)
    grid.add_column("cut", overflow="fold", min_width=5)
    for header in ("encoder", "payload", "feature /\npayload", "sample /\npayload", "clean\nscore"):
        grid.add_column(header, justify="right", no_wrap=True)
    if has_intervals:
        grid.add_column("±", justify="right", no_wrap=True)
    grid.add_column("points to\nunsplit", justify="right", no_wrap=True)
    if has_link:
        grid.add_column("over the\nlink", justify="right", no_wrap=True)
    for _, row in three_way.sort_values(["payload_bytes", "score"], ascending=[True, False]).iterrows():
        cells = [
            format_bytes(row["encoder_bytes"]) if row["encoder_bytes"] else "none",
            format_bytes(row["payload_bytes"]),
            format_ratio(row["raw_ratio"]),
            format_ratio(row["input_ratio"]),
            format_score(row["score"]),
        ]
        cells += [format_number(row["score_ci95"], 2)] * has_intervals
        cells.append(f"{100 * (row['score'] - row['score_unsplit']):+.2f}")
        over = row["score_over_link"]
        cells += [MISSING if pd.isna(over) else format_score(over)] * has_link
        look = "dim" if row["is_reference"] else "bold" if row["pareto"] else ""
        codec = ("★ " if row["pareto"] else "  ") + str(row["codec"]).replace("[", r"\[")
        grid.add_row(codec, row["split_point"], *cells, style=look)
    notes = ["★ no other is at least as good in all three: encoder bytes, payload bytes, clean score"]
    if has_intervals:
        notes.append(f"±: half the 95 % interval over {three_way['num_trainings'].max()} trainings")
    if has_link:
        notes.append("over the link: area under score against the swept setting / its range")
    grid.caption = "\n".join(notes)
    return grid

"""The choice and what it is compared with, in the order of what was minimised, for the terminal."""

from collections.abc import Mapping
from math import hypot

from splitsem.report.units import format_bytes, format_hz, format_joules, format_score, format_seconds
from splitsem.search.objective import Objective
from splitsem.workflows.joint.base import Document, t_eff_s

CHOSEN = "chosen"
_STAGES = {"edge": "edge_s", "link": "link_s", "server": "server_s", "back": "answer_s"}
_WIDTH = 80  # the most characters in a line
_GAP = "  "


def are_tied(one: Document, other: Document) -> bool:
    """Whether what was minimised differs by no more than the spread of the measured times behind it.

    The spread is half the distance from the 10th to the 90th percentile; of two solutions, the spreads add as squares.

    >>> are_tied({"value": 2.0, "value_spread": 0.3}, {"value": 2.4, "value_spread": 0.4})
    True
    """
    return bool(abs(one["value"] - other["value"]) <= hypot(one["value_spread"], other["value_spread"]))


def format_value(value: float, objective: Objective) -> str:
    """The value of an objective with its unit."""
    return format_joules(value) if objective.unit == "J" else format_seconds(value)


def ranking(solutions: Mapping[str, Document], objective: Objective) -> list[str]:
    """A line of headings, then a line for each solution: the least value first.

    What does not fit in 80 columns follows below, under headings of its own: no number is ever cut.

    Args:
        solutions: by their names for people; the one called ``chosen`` is what the others are compared with.
        objective: what was minimised.
    """
    name = objective.words.partition(" = ")[0].partition(" of ")[0]
    ranked = sorted(solutions.items(), key=lambda item: (item[1]["value"], item[0] != CHOSEN))
    rows = [_row(words, one, solutions[CHOSEN], name, objective) for words, one in ranked]
    return _in_blocks([[*rows[0]], *([*row.values()] for row in rows)], num_words=2 + ("codec" in solutions[CHOSEN]))


def _row(words: str, one: Document, chosen: Document, name: str, objective: Objective) -> dict[str, str]:
    """The cells of a solution by their headings."""
    tied = "= " if words != CHOSEN and are_tied(one, chosen) else ""
    row = {"": words, "cut": str(one["split_point"])} | ({"codec": str(one["codec"])} if "codec" in chosen else {})
    row[name] = f"{tied}{format_value(one['value'], objective)}"
    if name != "latency":
        row.setdefault("T_eff", format_seconds(t_eff_s(one)))
        row["latency"] = format_seconds(one["latency_s"])
    row["rate"] = format_hz(one["throughput_hz"])
    row |= {title: format_seconds(one[stage]) for title, stage in _STAGES.items()}
    row |= {"payload": format_bytes(one["payload_bytes"])} if "codec" in chosen else {}
    return row | {"val": format_score(one["accuracy_val"])}


def _in_blocks(rows: list[list[str]], num_words: int) -> list[str]:
    """Rows in columns, words to the left and numbers to the right; each block of columns begins with the first one."""
    columns = [list(cells) for cells in zip(*rows, strict=True)]
    widths = [max(map(len, cells)) for cells in columns]
    blocks: list[list[int]] = [[0]]
    for i in range(1, len(columns)):
        if len(blocks[-1]) > 1 and sum(widths[j] + len(_GAP) for j in blocks[-1]) + widths[i] > _WIDTH:
            blocks.append([0])
        blocks[-1].append(i)
    lines = []
    for block in blocks:
        cells = [[f"{c:<{widths[i]}}" if i < num_words else f"{c:>{widths[i]}}" for c in columns[i]] for i in block]
        lines += [_GAP.join(line).rstrip() for line in zip(*cells, strict=True)]
    return lines

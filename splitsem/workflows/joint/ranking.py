"""The choice and what it is compared with, in the order of what was minimised, for the terminal."""

from collections.abc import Mapping
from math import hypot

from rich.console import Console
from rich.table import Table

from splitsem.report.units import format_bytes, format_hz, format_joules, format_score, format_seconds
from splitsem.search.objective import Objective
from splitsem.workflows.joint.base import Document, t_eff_s

CHOSEN = "chosen"
_STAGES = {"edge": "edge_s", "link": "link_s", "server": "server_s", "back": "answer_s"}
_WIDTH = 160  # the most characters in a line


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

    Args:
        solutions: by their names for people; the one called ``chosen`` is what the others are compared with.
        objective: what was minimised.
    """
    has_codecs = "codec" in solutions[CHOSEN]
    name = objective.words.partition(" = ")[0]
    times = dict.fromkeys(("T_eff", "latency")) if name != "latency" else dict.fromkeys(("latency",))
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    for header in ("", "cut", *["codec"] * has_codecs):
        grid.add_column(header, no_wrap=True)
    for header in (*dict.fromkeys((name, *times)), "rate", *_STAGES, *["payload"] * has_codecs, "val"):
        grid.add_column(header, justify="right", no_wrap=True)
    for words, one in sorted(solutions.items(), key=lambda item: (item[1]["value"], item[0] != CHOSEN)):
        tied = "= " if words != CHOSEN and are_tied(one, solutions[CHOSEN]) else ""
        seconds = {"T_eff": t_eff_s(one), "latency": one["latency_s"]}
        values = {name: f"{tied}{format_value(one['value'], objective)}"}
        values = {header: format_seconds(seconds[header]) for header in times} | values
        ordered = [values[header] for header in dict.fromkeys((name, *times))]
        codec = [one["codec"].replace("[", r"\[")] if has_codecs else []
        payload = [format_bytes(one["payload_bytes"])] if has_codecs else []
        stages = (format_seconds(one[stage]) for stage in _STAGES.values())
        rate, accuracy = format_hz(one["throughput_hz"]), format_score(one["accuracy_val"])
        grid.add_row(words, one["split_point"], *codec, *ordered, rate, *stages, *payload, accuracy)
    console = Console(width=_WIDTH, color_system=None)
    with console.capture() as printed:
        console.print(grid)
    return [line.rstrip() for line in printed.get().splitlines()]

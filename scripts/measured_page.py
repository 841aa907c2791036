"""Write the tables of docs/measured.md from the kept rows, benchmarks/measured.json.

    python scripts/measured_page.py          # after make bench, or after a row was mended by hand

A table stands between ``<!-- rows: NAME -->`` and the next blank line, where NAME is a topic of the figures that have
a bar, a table of one benchmark, or ``predictions``, which sums both up; the text around it is kept.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "benchmarks")]

from harness.measured_rows import BARS, TOPICS, Tables, of_topic, read  # noqa: E402 (of this checkout)

PAGE = ROOT / "docs" / "measured.md"
PREDICTIONS = [
    "network, line",
    "latency, median",
    "latency, worst",
    "throughput, median",
    "throughput, worst",
    "command",
]
_PREDICTED = re.compile(r"(?P<of>latency|throughput)(?:, predicted against measured)?: (?P<where>.+)")
_PLACE = re.compile(r"(<!-- rows: (\w+) -->\n\n)((?:\|.*\n)+\n)?")


def rendered(page: str, tables: Tables) -> str:
    """The page with its tables as the rows have them."""
    bars = tables[BARS]
    found = {topic: _table(bars["columns"], of_topic(topic, bars["rows"])) for topic in TOPICS}
    found |= {name: _table(table["columns"], table["rows"]) for name, table in tables.items()}
    found["predictions"] = _table(PREDICTIONS, predictions(tables))
    return _PLACE.sub(lambda place: place[1] + found[place[2]], page)


def predictions(tables: Tables) -> list[dict[str, str]]:
    """How far latency and throughput were predicted from what was measured, a row for each network and line."""
    found: dict[str, dict[str, str]] = {}
    for row in tables[BARS]["rows"]:
        what = _PREDICTED.fullmatch(row["what"])
        if what is not None:
            known = found.setdefault(what["where"], dict.fromkeys(PREDICTIONS, "–"))
            known |= {
                "network, line": what["where"],
                f"{what['of']}, median": row["measured"],
                "command": row["command"],
            }
    simulated = tables["simulated_summary"]
    for row in simulated["rows"]:
        where = f"{row[simulated['columns'][0]].partition(' (')[0]} Mbit/s, simulated sweep"
        known = found.setdefault(where, dict.fromkeys(PREDICTIONS, "–"))
        known |= {"network, line": where, "command": "`python benchmarks/simulated_real.py`"}
        for of in ("latency", "throughput"):
            median, worst = row[f"{of}: median, worst error"].removesuffix(" %").split(", ")
            known |= {f"{of}, median": f"{median} %", f"{of}, worst": f"{worst} %"}
    return list(found.values())


def _table(columns: list[str], rows: list[dict[str, str]]) -> str:
    """A table in Markdown and the blank line below it; nothing where no figure was recorded."""
    if not rows:
        return ""
    lines = [columns, ["---"] * len(columns), *([row[name] for name in columns] for row in rows)]
    text = "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
    return text.replace("| --- ", "|---").replace("|--- |", "|---|") + "\n"


def main() -> None:
    """Write the page."""
    PAGE.write_text(rendered(PAGE.read_text(encoding="utf-8"), read()), encoding="utf-8")
    sys.stdout.write(f"{PAGE.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()

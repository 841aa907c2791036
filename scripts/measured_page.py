"""Write the tables of docs/measured.md from the kept rows, benchmarks/measured.json.

    python scripts/measured_page.py          # after make bench, or after a row was mended by hand

A table stands between ``<!-- rows: NAME -->`` and the next blank line, where NAME is a topic of the figures that have
a bar, or a table of one benchmark; the text around it is kept.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]

from benchmarks.harness.measured_rows import BARS, TOPICS, Tables, of_topic, read  # noqa: E402 (of this checkout)

PAGE = ROOT / "docs" / "measured.md"
_PLACE = re.compile(r"(<!-- rows: (\w+) -->\n\n)((?:\|.*\n)+\n)?")


def rendered(page: str, tables: Tables) -> str:
    """The page with its tables as the rows have them."""
    bars = tables[BARS]
    found = {topic: _table(bars["columns"], of_topic(topic, bars["rows"])) for topic in TOPICS}
    found |= {name: _table(table["columns"], table["rows"]) for name, table in tables.items()}
    return _PLACE.sub(lambda place: place[1] + found[place[2]], page)


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

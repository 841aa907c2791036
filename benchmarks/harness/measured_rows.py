"""Rows of the page "Measured": a benchmark that prints a figure beside its bar also records it.

``make bench`` sets ``SPLITSEM_RECORD`` to the file of the kept rows; without it ``record`` does nothing, so that
a trial run changes no page. ``python scripts/measured_page.py`` writes the page's tables from the rows.
"""

import json
import os
import re
import shlex
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
ROWS = ROOT / "benchmarks" / "measured.json"
BARS = "bars"
"""The table of figures beside their bars; the others are of one benchmark each."""

TOPICS = {
    "exactness": "identity any_cut onnx_cuts train_mode",
    "coder": "entropy coder_maps clipping_rules device_coders photos",
    "links": "round_trip function_calls pipelined chain channels adaptive adaptive_line udp_lines",
    "speed": "sweep many_devices optimise places",
    "prediction": "prediction roofline_fit predict_machine regret published_table simulated_real",
    "machines": "published_networks device_process server_memory",
    "federated": "federated splitfed rate_controller time_to_score",
    "security": "hostile_payloads hostile_server federated_attacks",
}
"""The benchmarks whose figures a section of the page has, in its order."""

Tables = dict[str, dict[str, list[Any]]]
"""By name: ``columns``, their headers, and ``rows``, each a mapping from header to text."""
_recorded: list[str] = []  # by this process


def record(what: str, measured: str, bar: str, is_missed: bool) -> None:
    """Keep a figure; the first one of a process takes the place of all that its command recorded before.

    Args:
        what: what was measured, on what.
        measured: the figure with its unit.
        bar: what it must reach.
        is_missed: whether it does not, which makes the figure bold.
    """
    if not (file := os.environ.get("SPLITSEM_RECORD")):
        return
    path, script = Path(file), Path(sys.argv[0]).resolve()
    command = f"`{shlex.join(['python', str(script.relative_to(ROOT)), *sys.argv[1:]])}`"
    where = f"{time.strftime('%Y-%m-%d', time.gmtime())}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    figure = f"**{measured}**" if is_missed else measured
    row = {"what": what, "measured": figure, "bar": bar, "date, machine": where, "command": command}
    tables = read(path)
    rows = tables[BARS]["rows"]
    old = [n for n, kept in enumerate(rows) if kept["command"] == command]
    at = old[0] if old and not _recorded else old[-1] + 1 if old else len(rows)
    if not _recorded:
        tables[BARS]["rows"] = rows = [kept for kept in rows if kept["command"] != command]
    rows.insert(at, row)
    _recorded.append(what)
    write(tables, path)


def keep_table(name: str, rows: list[dict[str, str]]) -> None:
    """Keep the rows of a table that is one benchmark's own, in place of those before; as ``record``, only if asked."""
    if file := os.environ.get("SPLITSEM_RECORD"):
        tables = read(Path(file))
        tables[name]["rows"] = list(rows)
        write(tables, Path(file))


def of_topic(topic: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows whose benchmark belongs to a topic; what no benchmark measures is a matter of speed."""
    return [row for row in rows if _topic(row["command"]) == topic]


def _topic(command: str) -> str:
    script = re.search(r"benchmarks/(\w+)\.py", command)
    return next((t for t, names in TOPICS.items() if script and script[1] in names.split()), "speed")


def read(path: Path = ROWS) -> Tables:
    """The kept tables."""
    found: Tables = json.loads(path.read_text(encoding="utf-8"))
    return found


def write(tables: Tables, path: Path = ROWS) -> None:
    """Keep the tables, a row a line, so that a change is one line, too."""
    parts = []
    for name, table in tables.items():
        rows = ",\n".join(json.dumps(row, ensure_ascii=False) for row in table["rows"])
        columns = json.dumps(table["columns"], ensure_ascii=False)
        parts.append(f'{json.dumps(name)}: {{"columns": {columns}, "rows": [\n{rows}\n]}}')
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")

"""The page "Measured" has its tables from kept rows; a first record takes the place of its command's old rows."""

import sys

from harness import measured_rows
from scripts import measured_page
from tests.conftest import ROOT


def test_the_page_agrees_with_the_rows():
    page = measured_page.PAGE.read_text()
    assert measured_page.rendered(page, measured_rows.read()) == page, "run python scripts/measured_page.py"
    tables = {*measured_rows.TOPICS, *measured_rows.read(), "predictions"} - {measured_rows.BARS}
    assert [name for name in tables if page.count(f"<!-- rows: {name} -->") != 1] == []
    for table in measured_rows.read().values():
        assert len(set(table["columns"])) == len(table["columns"]), "a row holds one cell for each header"


def test_predictions_are_summed_up_from_the_rows_that_the_page_has():
    rows = {row["network, line"]: row for row in measured_page.predictions(measured_rows.read())}
    bars = {row["what"]: row["measured"] for row in measured_rows.read()[measured_rows.BARS]["rows"]}
    where = "cnn, 50 Mbit/s"
    for name in ("latency", "throughput"):
        assert rows[where][f"{name}, median"] == bars[f"{name}, predicted against measured: {where}"]
    assert rows[where]["latency, worst"] == "–"  # which the benchmark does not record
    simulated = measured_rows.read()["simulated_summary"]["rows"]
    assert len([name for name in rows if name.endswith("simulated sweep")]) == len(simulated)
    for row in simulated:
        one = rows[f"{row['network, Mbit/s'].partition(' (')[0]} Mbit/s, simulated sweep"]
        pair = f"{one['throughput, median'].removesuffix(' %')}, {one['throughput, worst']}"
        assert pair == row["throughput: median, worst error"]


def test_each_benchmark_has_one_topic_and_each_figure_one_place():
    named = " ".join(measured_rows.TOPICS.values()).split()
    assert sorted(named) == sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py"))
    rows = measured_rows.read()[measured_rows.BARS]["rows"]
    assert sum(len(measured_rows.of_topic(topic, rows)) for topic in measured_rows.TOPICS) == len(rows)


def test_the_cells_of_a_row_are_short():
    rows = measured_rows.read()[measured_rows.BARS]["rows"]
    assert [cell for row in rows for cell in row.values() if len(cell) > 110] == []


def test_each_row_says_when_where_and_by_which_command():
    rows = measured_rows.read()[measured_rows.BARS]["rows"]
    assert len(rows) > 20
    assert all(row["date, machine"].startswith("2026-") and "cores" in row["date, machine"] for row in rows)
    assert all(row["command"].startswith("`") and row["bar"] for row in rows)


def test_the_first_record_of_a_run_takes_the_place_of_its_command_s_rows(tmp_path, monkeypatch):
    file = tmp_path / "rows.json"
    measured_rows.write(measured_rows.read(), file)
    before = measured_rows.read(file)[measured_rows.BARS]["rows"]
    monkeypatch.setattr(sys, "argv", [str(ROOT / "benchmarks" / "places.py")])
    monkeypatch.setattr(measured_rows, "_recorded", [])
    measured_rows.record("a new one", "1 s", "≤ 2 s", False)
    assert measured_rows.read(file)[measured_rows.BARS]["rows"] == before, "nothing is kept unless asked for"
    monkeypatch.setenv("SPLITSEM_RECORD", str(file))
    for run in (("old name", "other old name"), ("a new one", "another")):
        measured_rows._recorded.clear()
        for what in run:
            measured_rows.record(what, "3 s", "≤ 2 s", False)
    *others, one, two = measured_rows.read(file)[measured_rows.BARS]["rows"]
    assert others == before
    assert (one["what"], one["measured"], one["command"]) == ("a new one", "3 s", "`python benchmarks/places.py`")
    assert two["what"] == "another"
    page = measured_page.rendered("<!-- rows: speed -->\n\n| old |\n\nrest\n", measured_rows.read(file))
    assert "| a new one | 3 s | ≤ 2 s | " in page
    assert page.endswith("|\n\nrest\n")
    assert "| old |" not in page

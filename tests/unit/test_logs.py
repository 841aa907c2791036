"""Logs as JSON: one object a line, whatever a client calls itself."""

import json
import logging
import sys
from datetime import UTC, datetime

from splitsem.workflows.startup import JsonFormatter


def record(message, *args, exc_info=None, **extra):
    made = logging.LogRecord("splitsem.x", logging.INFO, __file__, 1, message, args, exc_info)
    vars(made).update(extra)
    return JsonFormatter().format(made)


def test_a_record_is_one_line_with_its_fields():
    line = record("client %s\nsays hello", "a\r\nb", peer="ipv4:1", client="x\ny", token="secret")
    assert "\n" not in line
    assert "\r" not in line
    facts = json.loads(line)
    assert facts["message"] == "client a\r\nb\nsays hello"
    assert (facts["level"], facts["logger"], facts["peer"], facts["client"]) == ("INFO", "splitsem.x", "ipv4:1", "x\ny")
    assert "token" not in facts
    assert abs((datetime.now(UTC) - datetime.fromisoformat(facts["time"])).total_seconds()) < 60


def test_an_exception_brings_its_traceback():
    try:
        raise ZeroDivisionError("oh")
    except ZeroDivisionError:
        facts = json.loads(record("failed", exc_info=sys.exc_info()))
    assert "ZeroDivisionError: oh" in facts["traceback"]

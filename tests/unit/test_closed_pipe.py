"""A command whose output nobody reads any more ends quietly."""

import contextlib
import logging
import os
import sys

import pytest

import splitsem.__main__
import splitsem_device.__main__
from splitsem import redaction
from splitsem.workflows import startup
from splitsem_device.program import closed_pipe


@pytest.mark.parametrize("buffering", [1, -1])  # told by the writing itself, and by the last flush
def test_output_that_nobody_reads_any_more_ends_the_program_quietly(buffering, monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w", buffering) as unread, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", unread)
        with pytest.raises(SystemExit) as ended, closed_pipe.quiet():
            sys.stdout.write("0\tclass 3\n")
    assert ended.value.code == closed_pipe.STATUS
    with pytest.raises(BrokenPipeError), closed_pipe.quiet():
        raise BrokenPipeError("of another pipe")


def test_both_commands_end_quietly():
    for command in (splitsem.__main__.main, splitsem_device.__main__.main):
        assert command.__wrapped__


def test_a_log_line_that_nobody_reads_is_dropped_and_a_wrong_one_is_told(capsys):
    startup.log_in_vain()
    reading, writing = os.pipe()
    os.close(reading)
    with contextlib.suppress(BrokenPipeError), os.fdopen(writing, "w", 1) as unread:
        logging.StreamHandler(unread).handle(logging.makeLogRecord({"msg": "in vain"}))
    assert capsys.readouterr().err == ""
    logging.StreamHandler(sys.stdout).handle(logging.makeLogRecord({"msg": "%d", "args": ("no number",)}))
    assert "--- Logging error ---" in capsys.readouterr().err


def test_a_stream_that_was_closed_when_the_program_began_stays_so(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    redaction.install()
    assert sys.stdout is None

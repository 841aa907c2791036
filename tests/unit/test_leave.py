"""A command that leaves at once leaves nothing undone."""

import subprocess
import sys

BEGIN = (
    "import atexit, sys, threading; from splitsem.workflows.startup import leave; atexit.register(print, 'at the end');"
)


def printed(code: str) -> str:
    return subprocess.run([sys.executable, "-c", BEGIN + code], check=True, capture_output=True, text=True).stdout


def test_what_was_registered_is_done_and_what_was_printed_arrives() -> None:
    assert printed("print('done'); leave(); print('never')") == "done\nat the end\n"


def test_a_thread_that_must_end_is_waited_for() -> None:
    code = "wait = threading.Event(); threading.Thread(target=lambda: (wait.wait(), print('worked'))).start()"
    assert printed(f"{code}; leave(); wait.set()") == "worked\nat the end\n"

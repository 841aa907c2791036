"""Messages between the device and the server that it started: lines of JSON on the server's stdin and stdout.

    device  {"protocol", "sections", "settings", "weights": {"sha256", "num_bytes"}}
    server  {"weights": "missing" | "present", "pid"}
    device  the weights file's bytes, when it is missing; from here on an empty line every HEARTBEAT_S
    server  {"serving": "HOST:PORT"}

The server ends when its stdin does, and when nothing came for SILENCE_S.
"""

import json
from typing import Any

PROTOCOL_VERSION = 1
HEARTBEAT_S = 10.0
SILENCE_S = 60.0
MAX_LINE_BYTES = 1 << 20
_MARK = b"splitsem: "  # login scripts and libraries print to stdout too


def to_line(facts: dict[str, Any]) -> bytes:
    """One message, as a line."""
    return _MARK + json.dumps(facts).encode() + b"\n"


def from_line(line: bytes) -> dict[str, Any] | None:
    """The message in a line; None when it is something else."""
    if not line.startswith(_MARK):
        return None
    try:
        facts = json.loads(line.removeprefix(_MARK))
    except (ValueError, RecursionError):
        return None
    return facts if isinstance(facts, dict) else None

"""JsonFormatter: log records as JSON, one object a line, for whoever collects the logs of servers."""

import json
import logging
import os
from datetime import UTC, datetime

FIELDS = ("peer", "session", "client")


class JsonFormatter(logging.Formatter):
    """``{"time", "level", "logger", "message"}``, the record's ``peer``, ``session`` or ``client`` and its traceback.

    Chosen by ``hydra/job_logging=json``. ``time`` is ISO 8601 in UTC with microseconds.
    """

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        facts = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        facts |= {name: str(getattr(record, name)) for name in FIELDS if hasattr(record, name)}
        if record.exc_info:
            facts["traceback"] = self.formatException(record.exc_info)
        return json.dumps(facts, ensure_ascii=False)


def spin_briefly() -> None:
    """Have OpenMP's threads look for work for a thousand turns of a loop, unless the environment says otherwise.

    Must be called before torch is imported. GNU's OpenMP by itself spins hundreds of times as long.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")

"""The tenant's log: JSON lines on stderr, every text in them made displayable."""

from __future__ import annotations

import json
import logging
import sys

from agentvault_tui.clock import Clock, iso
from agentvault_tui.process import log_level
from agentvault_tui.text import visible

_EXTRAS = ("sub", "why", "port", "page")


class _JsonLines(logging.Formatter):
    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def format(self, record: logging.LogRecord) -> str:
        """Write one record as one line, with nothing in it that acts on a terminal."""
        line = {
            "time": iso(self._clock.now()),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": visible(record.getMessage(), 500),
        }
        for name in _EXTRAS:
            if hasattr(record, name):
                line[name] = visible(getattr(record, name), 200)
        if record.exc_info:
            line["trace"] = visible(self.formatException(record.exc_info), 8000)
        return json.dumps(line)


def log_to_stderr(clock: Clock) -> None:
    """Send every log of this process to stderr, from ``AGENTVAULT_LOG_LEVEL`` up.

    Raises:
        SettingsError: that is not a level.
    """
    level = log_level("info")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines(clock))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel("WARNING")
    # Other libraries speak up for warnings alone: their debug lines hold secrets.
    logging.getLogger("agentvault").setLevel(level)

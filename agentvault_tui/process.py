"""What a process that holds authority does before anything else."""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import resource
import sys
from datetime import UTC, datetime
from typing import Any, Final

from agentvault_tui.clock import iso

_PR_SET_DUMPABLE: Final = 4


def harden() -> None:
    """Make files private, forbid core dumps, and keep same-uid processes out.

    Without ``PR_SET_DUMPABLE`` another process of the same user reads
    ``/proc/PID/environ`` and attaches a debugger.
    """
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def log_json_lines() -> None:
    """Send the log to stderr, one JSON object a line.

    The level is ``AGENTVAULT_LOG_LEVEL``, by default ``WARNING``.
    HTTP libraries stay quiet: at lower levels they log URLs and headers.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines())
    level = os.environ.get("AGENTVAULT_LOG_LEVEL", "WARNING").upper()
    known = logging.getLevelNamesMapping()
    logging.basicConfig(
        level=known.get(level, logging.WARNING), handlers=[handler], force=True
    )
    for name in ("httpx", "httpcore", "uvicorn", "asyncio", "aiosqlite"):
        logging.getLogger(name).setLevel(logging.WARNING)


class _JsonLines(logging.Formatter):
    """One record, one line: a newline in a message cannot forge a second one."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": iso(datetime.fromtimestamp(record.created, UTC)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)

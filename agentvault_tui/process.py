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
from agentvault_tui.errors import SettingsError
from agentvault_tui.text import visible

LOG_LEVELS: Final = ("debug", "info", "warning", "error", "critical")
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

    HTTP libraries stay quiet: at lower levels they log URLs and headers.

    Raises:
        SettingsError: ``AGENTVAULT_LOG_LEVEL`` is not a level.
    """
    level = log_level("warning")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in ("httpx", "httpcore", "uvicorn", "asyncio", "aiosqlite"):
        logging.getLogger(name).setLevel(logging.WARNING)


def log_level(default: str) -> str:
    """Return ``AGENTVAULT_LOG_LEVEL`` as `logging` names it, by default *default*.

    Raises:
        SettingsError: it is not one of the levels; names them.
    """
    said = os.environ.get("AGENTVAULT_LOG_LEVEL") or default
    if said.lower() not in LOG_LEVELS:
        raise SettingsError(
            f"AGENTVAULT_LOG_LEVEL is '{visible(said, 40)}'",
            f"it may be {', '.join(LOG_LEVELS[:-1])} or {LOG_LEVELS[-1]}",
        )
    return said.upper()


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

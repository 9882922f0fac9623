"""The terminal: output, input, and key bindings."""

from __future__ import annotations

from collections.abc import Mapping


def over_ssh(environ: Mapping[str, str]) -> bool:
    return bool(environ.get("SSH_CONNECTION") or environ.get("SSH_TTY"))

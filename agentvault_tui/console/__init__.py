"""The console: a client of the operators' API without authority of its own."""

from __future__ import annotations

import gc
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agentvault_tui.clock import Clock, SystemClock
from agentvault_tui.console.term import over_ssh
from agentvault_tui.console_settings import ConsoleSettings, Switch

if TYPE_CHECKING:
    from agentvault_tui.operator_api.remote import BrokerAddress

__all__ = ["run"]

_TEXTUAL = {"TEXTUAL_ANIMATIONS": "none", "TEXTUAL_SMOOTH_SCROLL": "0"}
"""Read by Textual when it is imported, so they are set before that."""
_YOUNG: Final = 5_000
"""Objects made before the collector looks: hardly any here are in a circle."""


def run(
    broker: BrokerAddress,
    *,
    read_only: bool,
    settings: ConsoleSettings,
    broker_note: str | None = None,
    memory_folder: Path | None = None,
    config_folder: Path | None = None,
    clock: Clock | None = None,
    known_to: int = 0,
) -> int:
    """Show the console of *broker* until the operator leaves.

    Args:
        broker: the operators' Unix socket, or a broker elsewhere.
        read_only: take no decision.
        settings: ``[console]``.
        broker_note: said once at the start, when the broker runs for this console.
        config_folder: where saved filters and the user's keys are; may be nowhere.
        memory_folder: the folder of the last head seen; by default the user's state.
        clock: the source of now.
        known_to: the header announces no loosening up to this event.

    Returns:
        the exit code.
    """
    for name, value in _TEXTUAL.items():
        os.environ.setdefault(name, value)
    # Loading makes many objects and no garbage; `_keep` turns this on again.
    gc.disable()
    gc.set_threshold(_YOUNG)
    # Textual is imported here and not above: see `_TEXTUAL`, and the CLI's other
    # commands need none of it.
    from agentvault_tui.console.app import build  # noqa: PLC0415

    app = build(
        broker,
        read_only=read_only,
        settings=settings,
        clock=clock or SystemClock(),
        memory_folder=memory_folder,
        config_folder=config_folder,
        note=broker_note,
        known_to=known_to,
    )
    app.loaded = _keep
    app.run(mouse=takes_mouse(settings.mouse, os.environ))
    # Whoever leaves leaves with a code; without one it broke.
    return 1 if app.return_code is None else app.return_code


def _keep() -> None:
    """Let the collector pass over the loaded objects: they stay, and looking costs."""
    gc.collect()
    gc.freeze()
    gc.enable()


def takes_mouse(wanted: Switch, environ: Mapping[str, str]) -> bool:
    """Check whether to take the mouse: it costs bytes, and the terminal's selection."""
    if wanted is Switch.AUTO:
        return not over_ssh(environ)
    return wanted is Switch.ON

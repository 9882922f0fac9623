"""Puts a console together from settings and environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from agentvault_tui.clock import Clock
from agentvault_tui.console.app import ConsoleApp
from agentvault_tui.console.desk import Desk, name_ways
from agentvault_tui.console.draw import glyphs, theme
from agentvault_tui.console.link.link import Link
from agentvault_tui.console.link.memory import Memory
from agentvault_tui.console.screens.base import PULSES
from agentvault_tui.console.state.mirror import Mirror
from agentvault_tui.console.state.saved import SavedFilters
from agentvault_tui.console.term import over_ssh
from agentvault_tui.settings import Settings


def build(
    socket: Path,
    *,
    read_only: bool,
    settings: Settings,
    clock: Clock,
    memory_folder: Path | None = None,
    config_folder: Path | None = None,
    note: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> ConsoleApp:
    """Return the app for the broker at *socket*; it connects when it runs."""
    environ = os.environ if environ is None else environ
    alphabet = glyphs.choose(settings.console.ascii, environ)
    name, complaint = theme.choose(settings.console.theme, environ)
    mirror = Mirror(clock, ascii_only=alphabet.ascii_only)
    memory = Memory(socket, memory_folder)
    # Nobody sees more often than the screen looks.
    pause = PULSES[settings.console.link]
    link = Link(mirror, socket, memory, read_only=read_only, pause=pause)
    saved = SavedFilters(config_folder)
    desk = Desk(mirror, link, alphabet, read_only=read_only, saved=saved)
    name_ways(desk, socket, environ)
    said = ". ".join(text for text in (note, complaint) if text)
    app = ConsoleApp(
        desk,
        link,
        theme_name=name,
        speed=settings.console.link,
        note=said,
        config_folder=config_folder,
    )
    if over_ssh(environ) or settings.console.link == "slow":
        # Whatever TEXTUAL_ANIMATIONS asks for: motion is bytes that say nothing.
        app.animation_level = "none"
    return app

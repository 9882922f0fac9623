"""Registers the console's colours as themes of Textual."""

from __future__ import annotations

from typing import Any, Final

from textual.app import App
from textual.theme import Theme

from agentvault_tui.presenters.theme import COLOURS, OWN, Colours

_ANSI_VARIABLES: Final = {
    "ansi-background": OWN,
    "block-cursor-background": OWN,
    "block-cursor-foreground": OWN,
    "block-cursor-text-style": "bold reverse",
}
"""Textual's own ANSI themes paint the highlighted row magenta; here it is reversed."""


def _theme(name: str, colours: Colours) -> Theme:
    return Theme(
        name=name,
        primary=colours.accent,
        secondary=colours.muted,
        accent=colours.accent,
        success=colours.accent,
        warning=colours.waiting,
        error=colours.danger,
        foreground=colours.text,
        background=colours.ground,
        surface=colours.raised,
        panel=colours.raised,
        boost=colours.cursor,
        dark=colours.dark,
        ansi=colours.ansi,
        variables={
            "muted": colours.muted,
            "line": colours.line,
            "waiting": colours.waiting,
            "danger": colours.danger,
            "border": colours.accent,
            "border-blurred": colours.line,
            "scrollbar": colours.line,
            "scrollbar-hover": colours.muted,
            "scrollbar-active": colours.accent,
            "scrollbar-background": colours.ground,
            "scrollbar-corner-color": colours.ground,
            "footer-background": colours.ground,
            "footer-foreground": colours.muted,
            "footer-key-foreground": colours.accent,
            "footer-description-foreground": colours.muted,
            "input-cursor-background": colours.text,
            "input-cursor-foreground": colours.ground,
            "input-cursor-text-style": "reverse" if colours.ansi else "none",
            "input-selection-background": colours.cursor,
            **(_ANSI_VARIABLES if colours.ansi else {}),
        },
    )


def install(app: App[Any], name: str) -> None:
    """Register all themes with *app* and put *name* on."""
    for theme_name, colours in COLOURS.items():
        app.register_theme(_theme(theme_name, colours))
    app.theme = name

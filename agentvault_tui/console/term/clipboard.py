"""The operator's clipboard, by OSC 52: on `y` alone, and always said."""

from __future__ import annotations

from textual.app import App

from agentvault_tui.text import visible

_SHOWN = 60


def copy(app: App[object], kind: str, what: str) -> None:
    """Copy an id, a link or a digest, and say which; never a secret or a user code."""
    # The base class's own: the console's app keeps every other copy to itself.
    App.copy_to_clipboard(app, what)
    app.notify(f"Copied {kind}: {visible(what, _SHOWN)}", markup=False, timeout=3)

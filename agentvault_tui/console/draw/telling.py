"""Tells this operator what another has just decided, without taking a key from them."""

from __future__ import annotations

from typing import Any, Final

from textual.app import App

from agentvault_tui.console.state.presence import Presence

_SECONDS: Final = 6
_AT_ONCE: Final = 3


def tell_news(app: App[Any], presence: Presence) -> None:
    """Show what is news, a few lines at most; a dialog has it in its lower edge.

    There a toast would lie over the keys that decide.
    """
    if not presence.news:
        return
    news = list(presence.news)
    presence.news.clear()
    if app.screen.is_modal:
        return
    for text in news[-_AT_ONCE:]:
        app.notify(text, markup=False, timeout=_SECONDS)
    if len(news) > _AT_ONCE:
        more = f"and {len(news) - _AT_ONCE} more decisions by others"
        app.notify(more, markup=False, timeout=_SECONDS)

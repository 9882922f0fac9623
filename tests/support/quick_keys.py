"""Keys pressed as fast as they are handled: for tests that press very many.

Textual's own pilot waits for the processor to be idle after each key, which takes
twenty milliseconds at least.
"""

from __future__ import annotations

import asyncio
from typing import Any

from textual import events
from textual.app import App
from textual.keys import key_to_character

_CALM = 8
"""Turns of the loop without a message after which all of them were handled."""
_TURNS = 20_000


async def press(app: App[Any], *keys: str) -> None:
    """Press keys one by one, each handled before the next."""
    for key in keys:
        app.post_message(events.Key(key, key_to_character(key)))
        await settled(app)


async def settled(app: App[Any]) -> None:
    """Let the loop turn until no message waits, for the app or anything in it."""
    calm = 0
    for _ in range(_TURNS):
        await asyncio.sleep(0)
        calm = 0 if _waiting(app) else calm + 1
        if calm == _CALM:
            return
    raise AssertionError("messages went on and on")


def _waiting(app: App[Any]) -> bool:
    nodes = [app, *app.screen_stack]
    nodes += [node for screen in app.screen_stack for node in screen.walk_children()]
    return any(node._message_queue.qsize() for node in nodes if node.is_running)

"""The pages on which people sign in (``/prompts``)."""

from __future__ import annotations

from agentvault_tui.vault.api import Api
from agentvault_tui.vault.reply import Json


async def get(api: Api) -> Json:
    """Return the settings of Universal Login (200). Scope ``read:prompts``.

    ``universal_login_experience`` is ``new`` or ``classic``; the commands by which our
    Actions ask for a factor are those of the new one.
    """
    reply = await api.request(
        "GET", "prompts", what="show its login pages", scope="read:prompts"
    )
    return reply.json()

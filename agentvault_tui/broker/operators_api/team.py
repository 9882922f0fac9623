"""The operators' HTTP about the team: make another key for it."""

from __future__ import annotations

from starlette.requests import Request
from starlette.routing import Route

from agentvault_tui.broker.authority import Authority, Need
from agentvault_tui.broker.core import Broker
from agentvault_tui.broker.operators_api.wire import body_of, operator_of, route
from agentvault_tui.errors import UsageError
from agentvault_tui.operator_api import access, calls
from agentvault_tui.operator_api import requests as asks


def routes(broker: Broker, authority: Authority) -> list[Route]:
    """Return the route."""

    async def make(request: Request) -> access.TeamKeyInfo:
        """Make the team's first key, or another.

        Raises:
            UsageError: this broker is of no team.
        """
        asked = await body_of(request, asks.TeamKeyRequest)
        actor = await authority.actor(operator_of(request), Need.GIVE, "the team's key")
        if broker.team_key is None or broker.team is None:
            raise UsageError(
                "this broker has a store of its own",
                "stop it, and make the team's key then: docs/team.md",
            )
        made = await broker.team_key.make(actor, lost=asked.lost)
        members = (one for one in broker.team.members if one.id != broker.team.id)
        return access.TeamKeyInfo(
            key=made.key,
            before=made.before or None,
            missing=tuple(one.id for one in members if one.said.key != made.key),
        )

    return [route(calls.TEAM_KEY, make)]

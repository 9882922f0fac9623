"""auth0-python 6 as it comes, reading a whole tenant: what do its models not know?

Runs under an interpreter of its own, which has the SDK and nothing of ours.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from auth0.management import ManagementClient
from pydantic import BaseModel


def unknown(found: Any, at: str = "") -> Iterator[str]:
    """Yield the path of each member that no model of the SDK's has a field for."""
    if isinstance(found, BaseModel):
        for name in found.model_extra or {}:
            yield f"{at}.{name}"
        for name in type(found).model_fields:
            yield from unknown(getattr(found, name), f"{at}.{name}")
    elif isinstance(found, list):
        for one in found:
            yield from unknown(one, f"{at}[]")


def read(given: dict[str, Any]) -> Iterator[tuple[str, Callable[[], Iterable[Any]]]]:
    api = ManagementClient(
        domain=given["AUTH0_DOMAIN"],
        client_id=given["AUTH0_CLIENT_ID"],
        client_secret=given["AUTH0_CLIENT_SECRET"],
        audience=given["AUTH0_AUDIENCE"],
    )
    yield "clients", api.clients.list
    yield "client grants", api.client_grants.list
    yield "APIs", api.resource_servers.list
    yield "actions", api.actions.list
    yield "bindings", lambda: api.actions.triggers.bindings.list("post-login")
    yield "factors", api.guardian.factors.list
    yield "connections", api.connections.list
    yield "roles", api.roles.list
    yield "settings", lambda: [api.tenants.settings.get()]
    yield "prompts", lambda: [api.prompts.get_settings()]
    console = next(
        one.client_id for one in api.clients.list() if one.name == "AgentVault console"
    )
    yield "connections of the console", lambda: api.clients.connections.get(console)
    yield "users", api.users.list
    yield "logs", lambda: api.logs.list(sort="date:-1")
    for role in api.roles.list():
        yield (
            f"permissions of {role.name}",
            lambda role=role: api.roles.permissions.list(role.id),
        )


def main() -> None:
    said = {}
    for what, listed in read(json.load(sys.stdin)):
        found = list(listed())
        said[what] = {
            "found": [one.model_dump(mode="json", by_alias=True) for one in found],
            "typed": all(isinstance(one, BaseModel) for one in found),
            "unknown": sorted({path for one in found for path in unknown(one)}),
        }
    json.dump(said, sys.stdout)


main()

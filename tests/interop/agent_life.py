"""An operator on auth0-python 6 as it comes: sets an agent up, and cuts it off.

The calls are those of our provisioning and of our kill order, made by Auth0's code.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from auth0.authentication import GetToken, RevokeToken
from auth0.management import ManagementClient
from sdk_answers import told

POST_LOGIN = "post-login"
API = "https://elevated.example/"
CODE = "exports.onExecutePostLogin = async () => {};"


Calls = dict[str, Callable[[], Any]]


def making(api: ManagementClient, given: dict[str, Any]) -> Calls:
    return {
        "api": lambda: api.resource_servers.create(
            identifier=API,
            name="elevated",
            token_lifetime=300,
            scopes=[{"value": "stepup:pay"}],
        ),
        "grant": lambda: api.client_grants.create(
            client_id=given["client_id"],
            audience=API,
            scope=["stepup:pay"],
            subject_type="user",
        ),
        "action": lambda: api.actions.create(
            name="stamp",
            code=CODE,
            supported_triggers=[{"id": POST_LOGIN, "version": "v3"}],
        ),
        "factor": lambda: api.guardian.factors.set("otp", enabled=True),
    }


def deploying(api: ManagementClient, given: dict[str, Any]) -> Calls:
    def action() -> str:
        return str(next(iter(api.actions.list(trigger_id=POST_LOGIN))).id)

    def bind() -> Any:
        ref = {"type": "action_id", "value": action()}
        bound = [{"ref": ref, "display_name": "stamp"}]
        return api.actions.triggers.bindings.update_many(POST_LOGIN, bindings=bound)

    return {
        "deployed": lambda: api.actions.deploy(action()),
        "bound": bind,
        "bindings": lambda: api.actions.triggers.bindings.list(POST_LOGIN),
        "apis": lambda: api.resource_servers.list(identifiers=[API]),
        "grants": lambda: api.client_grants.list(client_id=given["client_id"], take=1),
        "factors": api.guardian.factors.list,
        "policies": api.guardian.policies.list,
        "settings": api.tenants.settings.get,
        "users": lambda: api.users.list(per_page=1),
        "connections": lambda: api.connections.list(take=1),
        "linked": lambda: api.connections.clients.get(given["connection_id"]),
    }


def cutting_off(api: ManagementClient, given: dict[str, Any]) -> Calls:
    agent, user, domain = given["client_id"], given["user_id"], given["domain"]
    connection, (one, other) = given["connection_id"], given["refresh_tokens"]
    own = GetToken(domain, agent, client_secret=given["client_secret"])
    ends = RevokeToken(domain, agent, client_secret=given["client_secret"])
    unlinked = [{"client_id": agent, "status": False}]
    return {
        "before": lambda: own.refresh_token(one),
        "handed back": lambda: ends.revoke_refresh_token(one),
        "handed back again": lambda: ends.revoke_refresh_token(one),
        "one after": lambda: own.refresh_token(one),
        "other after": lambda: own.refresh_token(other),
        "devices": lambda: api.device_credentials.list(user_id=user, client_id=agent),
        "held": lambda: api.refresh_tokens.list(user_id=user, client_id=agent, take=1),
        "narrowed": lambda: api.clients.update(agent, grant_types=["refresh_token"]),
        "unlinked": lambda: api.connections.clients.update(
            connection, request=unlinked
        ),
        "links": lambda: api.connections.clients.get(connection),
        "revoked": lambda: api.refresh_tokens.revoke(user_id=user, client_id=agent),
        "other revoked": lambda: own.refresh_token(other),
        "held after": lambda: api.refresh_tokens.list(user_id=user),
        "user logs": lambda: api.users.logs.list(user, per_page=2),
        "deleted": lambda: api.clients.delete(agent),
        "gone": lambda: api.clients.get(agent),
        "own end": lambda: own.refresh_token(other),
    }


def main() -> None:
    given = json.loads(sys.stdin.readline())
    api = ManagementClient(
        domain=given["domain"],
        client_id=given["management_id"],
        client_secret=given["management_secret"],
        audience=given["audience"],
    )
    parts = {"make": making, "deploy": deploying, "cut off": cutting_off}
    for line in sys.stdin:
        calls = parts[line.strip()](api, given)
        said = {name: told(call) for name, call in calls.items()}
        print(json.dumps(said), flush=True)


main()

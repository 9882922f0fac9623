"""auth0-python 6 as it comes, watching one agent: reads a line, tells what stands.

Runs under an interpreter of its own, which has the SDK and nothing of ours.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from auth0.authentication import GetToken
from auth0.management import ManagementClient
from sdk_answers import told


def main() -> None:
    given = json.loads(sys.stdin.readline())
    api = ManagementClient(
        domain=given["domain"],
        client_id=given["management_id"],
        client_secret=given["management_secret"],
        audience=given["audience"],
    )
    agent, user = given["client_id"], given["user_id"]
    own = GetToken(given["domain"], agent, client_secret=given["client_secret"])

    def looked() -> dict[str, Any]:
        rows = [row for row in api.logs.list(sort="date:-1") if row.client_id == agent]
        return {
            "grants": api.clients.get(agent).grant_types,
            "accounts": told(lambda: api.users.connected_accounts.list(user)),
            "refresh tokens": told(lambda: api.users.refresh_token.list(user)),
            "logs": {row.log_id: row.type for row in rows},
            "refreshed": told(lambda: own.refresh_token(given["refresh_token"])),
        }

    for _ in sys.stdin:
        print(json.dumps(looked()), flush=True)


main()

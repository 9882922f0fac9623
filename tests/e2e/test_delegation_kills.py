"""Delegation trees of a real broker that is killed: whole, or not there."""

from __future__ import annotations

import contextlib
import json
import threading
from pathlib import Path

import httpx
import pytest
from support.vault import Client, serving

EXCHANGE = {
    "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
    "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
}


@pytest.mark.slow
def test_kill_9_between_exchanges_and_a_revocation(home: Path) -> None:
    """What was answered is active after it, what was cut is not; the chain holds."""
    given: list[str] = []
    with serving(home, tenant=False) as vault:
        first = vault.register("planner", "read:calendar")
        second = vault.register("searcher", "read:contacts")
        allow = {"agent_id": first.id, "to": second.id, "scopes": ["read:calendar"]}
        assert vault.operator.post("/api/agents/delegates", json=allow).is_success
        mine = [first.token("read:calendar").json()["access_token"] for _ in range(4)]
        cut = vault.register("other", "read:calendar")
        allow = {"agent_id": cut.id, "to": second.id, "scopes": ["read:calendar"]}
        assert vault.operator.post("/api/agents/delegates", json=allow).is_success
        theirs = cut.token("read:calendar").json()["access_token"]
        gone = exchange(cut, theirs, second).json()["access_token"]
        stop = threading.Event()

        def pass_on(parent: str) -> None:
            with contextlib.suppress(httpx.TransportError):
                while not stop.is_set():
                    reply = exchange(first, parent, second)
                    if reply.status_code != 200:
                        return
                    given.append(reply.json()["access_token"])

        threads = [threading.Thread(target=pass_on, args=(one,)) for one in mine]
        for thread in threads:
            thread.start()
        for thread in threads[:1]:
            thread.join(30)  # one tree is full, others may be half
        asked = {"agent_id": cut.id, "reason": "runaway"}
        told = vault.operator.post("/api/agents/revoke", json=asked).json()
        assert told["delegated_revoked"] == 1
        vault.kill()
        stop.set()
        for thread in threads:
            thread.join(30)
    with serving(home, tenant=False) as vault:
        second = vault.again(second)
        active = [second.introspect(token)["active"] for token in given]
        assert active == [True] * len(given)
        assert second.introspect(gone) == {"active": False}
        tree = vault.operator.get("/api/delegations").json()
        passed_on = [one for one in tree["tokens"] if one["depth"]]
        assert len(given) <= len(passed_on) <= len(given) + len(mine)
        verified = json.loads(vault.cli("audit", "verify", "--json").stdout)
        assert verified["ok"] is True


def exchange(agent: Client, parent: str, other: Client) -> httpx.Response:
    form = {**EXCHANGE, "subject_token": parent, "audience": other.id}
    return agent.http.post("/oauth/token", data=form)

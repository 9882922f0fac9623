"""Step-ups of a real vault: held for a person, begun at the tenant, followed."""

from __future__ import annotations

from typing import Any

from httpx_sse import connect_sse
from support.vault import PAYMENT, Client, Vault


def stepup_until(vault: Vault, stepup_id: str, *statuses: str) -> dict[str, Any]:
    """Follow the stream until the step-up has one of *statuses*."""
    path = f"/api/agents/stepup/{stepup_id}"
    with connect_sse(vault.operator, "GET", "/api/events") as source:
        found = dict(vault.operator.get(path).json())
        if found["status"] in statuses:
            return found
        for event in source.iter_sse():
            if event.event == "stepup":
                found = dict(event.json())
                # Shown by pytest where it waits for too long.
                print(found["id"], found["status"], found["problem"])
                if found["id"] == stepup_id and found["status"] in statuses:
                    return found
    raise AssertionError("the stream ended")


def hold(agent: Client, amount: int = 4200) -> str:
    parameters = {"amount": amount, "currency": "USD"}
    held = agent.token("send:payment", {**PAYMENT, "parameters": parameters})
    assert held.status_code == 403
    assert held.json()["error"] == "insufficient_user_authentication"
    return str(held.json()["auth_req_id"])


def start(vault: Vault, stepup_id: str) -> dict[str, Any]:
    stepup = vault.operator.get(f"/api/agents/stepup/{stepup_id}").json()
    body = {"id": stepup_id, "decision": "approve", "digest": stepup["digest"]}
    answer = vault.operator.post("/api/agents/stepup", json=body)
    assert answer.status_code == 202, answer.text
    return dict(answer.json())

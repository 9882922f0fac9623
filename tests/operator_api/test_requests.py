"""What an operator asks in a way that means nothing is refused, and said where."""

from __future__ import annotations

import pytest
from support.vault import Vault


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("agents", '{"owner": "o"}', "'name' is missing"),
        ("agents", '{"name": "", "owner": "o"}', "'name' is wrong"),
        ("agents", '{"name": "a", "owner": 3}', "'owner' is wrong: expected str"),
        ("agents", '{"name": "a", "owner": "o", "scopes": "x"}', "'scopes' is wrong"),
        ("agents", '{"name": "a", "owner": "o", "colour": 1}', "unknown member"),
        ("agents", '{"name": "a", "name": "b", "owner": "o"}', "twice"),
        ("agents", "[1]", "must be an object"),
        ("agents/revoke", "{}", "either an agent_id or"),
        ("agents/revoke", '{"all": false}', "either an agent_id or"),
        ("agents/revoke", '{"all": true, "agent_id": "x"}', "either an agent_id or"),
        ("agents/revoke", f'{{"agent_id":"x","reason":"{"y" * 1001}"}}', "'reason'"),
        ("agents/stepup", '{"id": "x", "decision": "aprove"}', "'decision' is wrong"),
        ("presence", '{"seat": "s", "looking_at": 4}', "'looking_at' is wrong"),
        ("policy/reset", '{"now": true}', "unknown member"),
    ],
)
def test_a_body_that_is_not_as_described_is_refused(
    vault: Vault, path: str, body: str, said: str
) -> None:
    """400, a problem document, and the member that is wrong; nothing is done."""
    answer = vault.operator.post(f"/api/{path}", content=body)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert said in answer.json()["detail"]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("agents?limit=501", "'limit' is wrong"),
        ("agents?limit=many", "'limit' is wrong"),
        ("agents?limit=1e2", "'limit' is wrong"),
        ("agents?limit=1.0", "'limit' is wrong"),
        ("agents?limit=1&limit=2", "twice"),
        ("agents?tokens=perhaps", "'tokens' is wrong"),
        ("agents?colour=red", "unknown parameter"),
        ("agents/stepup?status=open", "unknown status"),
        ("audit?limit=0", "'limit' is wrong"),
        ("audit?after=null", "'after' is wrong"),
        ("audit?after=1&before=2", "not both"),
        ("audit?type=token", "unknown type"),
        ("audit?since=soon", "'since' is not a time"),
        ("audit/links", "'seq' is missing"),
        ("past", "give 'at'"),
        ("events?as=spy", "'as' is wrong"),
    ],
)
def test_a_query_that_is_not_as_described_is_refused(
    vault: Vault, query: str, said: str
) -> None:
    """The same for what is asked in a query."""
    answer = vault.operator.get(f"/api/{query}")
    assert answer.status_code == 400
    assert said in answer.json()["detail"]


def test_a_name_that_looks_like_nothing_is_a_name(vault: Vault) -> None:
    """An agent called null is found by its name, and nobody else is."""
    vault.register("null", "read:email")
    found = vault.operator.get("/api/agents", params={"name": "null"}).json()["agents"]
    assert [agent["name"] for agent in found] == ["null"]

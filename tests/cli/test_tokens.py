"""`agentvault tokens` and `scopes`."""

from __future__ import annotations

from collections.abc import Callable

from support.command_line import Agent, Answer

Run = Callable[..., Answer]


def test_a_revoked_token_is_worth_nothing_and_the_others_go_on(
    av: Run, agent: Agent
) -> None:
    """One token ends; the agent's other token and its right to ask stay."""
    for _ in range(2):
        agent.ask("read:calendar", {})
    listed = av("tokens", "list", "--agent", agent.id, "--json").json["tokens"]
    first, second = (one["id"] for one in listed)
    answer = av("tokens", "revoke", first, "--reason", "leaked", "--json")
    assert (answer.code, answer.json["tokens_revoked"]) == (0, 1)
    left = av("tokens", "list", "--agent", agent.id, "--json").json["tokens"]
    assert [one["id"] for one in left] == [second]
    (event,) = av(
        "audit", "search", "--agent", agent.id, "--type", "token.revoked", "--json"
    ).lines
    assert event["reason"] == "leaked"
    assert av("tokens", "revoke", first).code == 4


def test_scopes_are_listed_with_their_risk(av: Run) -> None:
    """The catalogue can be read without opening its file."""
    found = av("scopes", "list", "--json").json["scopes"]
    assert found["send:payment"]["risk"] == "high"
    assert "send:payment" in av("scope", "list").out

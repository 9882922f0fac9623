"""`agentvault audit past` against a real broker; bad moments are told in words."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.command_line import HOSTILE, Agent, Answer

Run = Callable[..., Answer]


def test_past_shows_what_was_and_no_more(av: Run, agent: Agent) -> None:
    """Right after its registration an agent held nothing; later it held its token."""
    search = ("audit", "search", "--agent", agent.id, "--json")
    (registered,) = av(*search, "--type", "agent.registered").lines
    agent.ask("read:calendar", {})
    agent.ask("send:payment", {"amount": 9, "currency": "EUR"}, HOSTILE)
    (decision, escalated) = av(*search, "--type", "token.decision").lines

    def then(seq: int) -> dict[str, object]:
        found = av("audit", "past", "--seq", str(seq), "--json").json
        (mine,) = [each for each in found["agents"] if each["id"] == agent.id]
        waiting = [s["action"] for s in found["stepups"] if s["agent_id"] == agent.id]
        return {**mine, "waiting": waiting, "at": found["at"]}

    first = then(registered["seq"])
    assert first["tokens_live"] == 0
    assert first["counts"] == {"allowed": 0, "denied": 0, "escalated": 0}
    assert first["at"] == registered["time"]
    second = then(decision["seq"])
    assert second["tokens_live"] == 1
    assert second["waiting"] == []
    assert then(escalated["seq"] + 1)["waiting"] == ["send:payment"]
    people = av("audit", "past", "--seq", str(escalated["seq"] + 1)).out
    assert agent.name in people
    assert "send:payment" in people
    assert "s left" in people
    assert all(row.isprintable() for row in people.split("\n"))


def test_past_by_time(av: Run, agent: Agent) -> None:
    """A time, or how long ago, is told as of that moment."""
    now = av("audit", "past", "--at", "0s", "--json").json
    assert agent.id in {each["id"] for each in now["agents"]}
    assert now["at"] >= now["time"]


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ([], 2, "give one moment"),
        (["--at", "1m", "--seq", "1"], 2, "give one moment"),
        (["--at", "soonish"], 2, "is not a time"),
        (["--at", "2099-01-01T00:00:00Z"], 2, "still to come"),
        (["--at", "2001-01-01T00:00:00Z"], 4, "the first event was at"),
        (["--seq", "99999999"], 4, "no event 99999999"),
    ],
)
def test_bad_moments_are_told_in_words(
    av: Run, line: list[str], code: int, words: str
) -> None:
    """What is no moment, to come, or before all exits 2 or 4 with one line."""
    answer = av("audit", "past", *line)
    assert answer.code == code
    assert words in answer.err
    assert answer.err.count("\n") == 1

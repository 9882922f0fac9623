"""`agentvault advise`: told, taken away on trial and given back, at a real broker."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from support.command_line import Agent, Answer
from support.patience import PATIENT

pytestmark = pytest.mark.slow

Run = Callable[..., Answer]


def test_advice_is_applied_and_given_back(av: Run, agent: Agent) -> None:
    """The unused scope is told; on trial it is refused, and then it comes back."""
    mine = ("advise", "--agent", agent.name, "--json")
    assert av(*mine).json["advice"] == []  # it was granted just now
    found: list[dict[str, Any]] = []
    ends = time.monotonic() + PATIENT
    while not [one for one in found if one["kind"] == "unused_scope"]:
        assert time.monotonic() < ends
        # The other scope is in use, so that it is not the agent that is idle.
        assert "access_token" in agent.ask("read:calendar", {})
        found = av(*mine, "--window", "1s").json["advice"]
    (one,) = found
    # Another window, which finds nothing, takes no id away.
    assert av(*mine).json["advice"] == []
    assert one["change"] == {"ungrant": ["send:payment"]}
    applied = av("advise", "apply", one["id"], "--for", "1h", "--json").json
    assert (applied["status"], applied["id"]) == ("on_trial", one["id"])
    pay = {"amount": 1, "currency": "USD"}
    assert agent.ask("send:payment", pay)["reason"] == "on_trial"
    assert one["id"] in av("advise").out
    assert av("advise", "give-back", one["id"]).code == 0
    assert "auth_req_id" in agent.ask("send:payment", pay)
    rate = av(*mine).json["hit_rate"]
    assert rate == {"applied": 1, "given_back": 1}
    listed = av(*mine, "--all").json["advice"]
    assert [found["status"] for found in listed] == ["given_back"]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (("apply", "adv_nonsense"), 4),
        (("dismiss", "adv_nonsense"), 4),
        (("give-back", "adv_nonsense"), 4),
        (("--window", "a month"), 2),
        (("--window", "0d"), 2),
        (("--agent", "nobody"), 4),
    ],
)
def test_what_is_not_there_is_told(av: Run, line: tuple[str, ...], code: int) -> None:
    """Unknown advice exits 4, a window that is none 2."""
    assert av("advise", *line).code == code
